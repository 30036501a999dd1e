//! Models by their names on the Hugging Face hub (feature `hub`).
//!
//! Only the files that an encoder needs are downloaded, into the cache that all programs of Hugging Face share, and only
//! safetensors: there is no code for pickled weights. The environment variables `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`,
//! `HF_HOME`, `HF_HUB_CACHE` and `HF_HUB_OFFLINE` mean what they mean elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{self, Names};
use hf_hub::repository::{RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync};
use sha2::{Digest, Sha256};

use crate::{Clip, Error, Result, T5, clip, t5, tokenizer};

/// Bytes asked for at once. What has arrived of a file is kept in such parts when a download breaks off.
const PART: u64 = 16 << 20;

impl T5 {
    /// Opens the T5 model `repository`, such as `org/name`, of the hub: see [`HubModel`].
    ///
    /// # Errors
    /// As [`HubModel::t5`] and [`T5::open`].
    pub fn from_hub(repository: &str, runtime: Runtime) -> Result<Self> {
        Self::open(&HubModel::new(repository).t5()?, runtime)
    }
}

impl Clip {
    /// Opens the CLIP model `repository`, such as `org/name`, of the hub: see [`HubModel`].
    ///
    /// # Errors
    /// As [`HubModel::clip`] and [`Clip::open`].
    pub fn from_hub(repository: &str, runtime: Runtime) -> Result<Self> {
        Self::open(&HubModel::new(repository).clip()?, runtime)
    }
}

/// A model on the hub, and which state and part of it is meant.
#[derive(Debug, Clone)]
pub struct HubModel {
    repository: String,
    revision: String,
    variant: Option<String>,
    subfolder: Option<String>,
}

impl HubModel {
    /// The newest state of the model `repository`, such as `org/name`.
    #[must_use]
    pub fn new(repository: impl Into<String>) -> Self {
        Self { repository: repository.into(), revision: "main".to_owned(), variant: None, subfolder: None }
    }

    /// The state under the name of a branch, a tag or a commit.
    #[must_use]
    pub fn revision(self, revision: impl Into<String>) -> Self {
        Self { revision: revision.into(), ..self }
    }

    /// The weights under the name of a variant, such as `fp16`.
    #[must_use]
    pub fn variant(self, variant: impl Into<String>) -> Self {
        Self { variant: Some(variant.into()), ..self }
    }

    /// The encoder in a folder of the repository, such as `text_encoder` of a pipeline, whose tokenizer may stand in the
    /// folder `tokenizer`.
    #[must_use]
    pub fn subfolder(self, subfolder: impl Into<String>) -> Self {
        Self { subfolder: Some(subfolder.into()), ..self }
    }

    /// Downloads what [`T5::open`] (or `open_variant`) needs and the cache does not have; gives the folder.
    ///
    /// # Errors
    /// [`Error::Hub`]: no such repository or file, no right to it, no connection; [`Error::NoSafetensors`].
    pub fn t5(&self) -> Result<PathBuf> {
        self.download(t5::names, &[&["tokenizer.json"], &["spiece.model"]], &[])
    }

    /// Downloads what [`Clip::open`], [`ClipText::open`](crate::ClipText::open) and
    /// [`ClipVision::open`](crate::ClipVision::open) need and the cache does not have; gives the folder.
    ///
    /// # Errors
    /// As [`t5`](Self::t5).
    pub fn clip(&self) -> Result<PathBuf> {
        let names: Names = |stored| clip::text_names(stored).or_else(|| clip::vision_names(stored));
        self.download(names, &[&["tokenizer.json"], &["vocab.json", "merges.txt"]], &["preprocessor_config.json"])
    }

    /// `tokenizers` are sets of files of which the first complete one is taken; `optional` files are taken if there are any.
    fn download(&self, names: Names, tokenizers: &[&[&str]], optional: &[&str]) -> Result<PathBuf> {
        let remote = Remote::new(self)?;
        let within = |name: &str| self.subfolder.as_ref().map_or(name.to_owned(), |folder| format!("{folder}/{name}"));
        let part = self.variant.as_ref().map(|variant| format!(".{variant}")).unwrap_or_default();
        let weights = within(&format!("model{part}.safetensors"));
        let index = within(&format!("model.safetensors.index{part}.json"));
        let mut sets: Vec<Vec<String>> =
            tokenizers.iter().map(|set| set.iter().map(|name| within(name)).collect()).collect();
        if let Some(subfolder) = &self.subfolder {
            let beside = tokenizer::beside(Path::new(subfolder));
            sets.extend(tokenizers.iter().map(|set| set.iter().map(|name| format!("{beside}/{name}")).collect()));
        }
        let optional: Vec<String> = optional.iter().map(|name| within(name)).collect();
        let all = [vec![weights.clone(), index.clone()], sets.concat(), optional.clone()].concat();
        let there = remote.files(&all)?;
        let config = remote.fetch(&within("config.json"), None)?;
        let folder = config.parent().map(Path::to_owned).unwrap_or_default();
        let known = |path: &String| there.iter().find(|file| file.path == *path);
        if let Some(set) = sets.iter().find(|set| set.iter().all(|path| known(path).is_some())) {
            set.iter().try_for_each(|path| remote.fetch(path, known(path)).map(drop))?;
        }
        optional
            .iter()
            .filter(|path| known(path).is_some())
            .try_for_each(|path| remote.fetch(path, known(path)).map(drop))?;
        if known(&weights).is_some() {
            remote.fetch(&weights, known(&weights))?;
        } else if known(&index).is_some() {
            let index = remote.fetch(&index, known(&index))?;
            let shards = weights::shards(&index, names)?;
            let shards: Vec<String> =
                shards.iter().filter_map(|path| Some(within(path.file_name()?.to_str()?))).collect();
            let there = remote.files(&shards)?;
            for shard in &shards {
                remote.fetch(shard, there.iter().find(|file| file.path == *shard))?;
            }
        } else {
            return Err(Error::NoSafetensors { repository: self.repository.clone(), looked_for: weights });
        }
        Ok(folder)
    }
}

/// A file as the hub lists it.
struct Listed {
    path: String,
    size: u64,
    /// Names its content: the object of git.
    object: String,
    /// Whether it is kept outside git. The cache names such a file by the SHA-256 of its content, others by their object.
    large: bool,
    /// The SHA-256 of its content, where the hub tells it.
    sha256: Option<String>,
}

/// A repository, and where its files are kept.
struct Remote<'a> {
    model: &'a HubModel,
    repository: HFRepositorySync<RepoTypeModel>,
    cache: PathBuf,
    offline: bool,
}

impl<'a> Remote<'a> {
    fn new(model: &'a HubModel) -> Result<Self> {
        let failed = |source| Error::Hub { repository: model.repository.clone(), source: Box::new(source) };
        let client = HFClient::new().map_err(failed)?;
        let (owner, name) = hf_hub::split_id(&model.repository);
        let cache = client.cache_dir().to_owned();
        let repository = HFClientSync::from_inner(client).map_err(failed)?.model(owner, name);
        let offline = std::env::var("HF_HUB_OFFLINE")
            .is_ok_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()));
        Ok(Self { model, repository, cache, offline })
    }

    fn error(&self, source: HFError) -> Error {
        Error::Hub { repository: self.model.repository.clone(), source: Box::new(source) }
    }

    /// Those of `paths` that the repository has; offline those that the cache has.
    fn files(&self, paths: &[String]) -> Result<Vec<Listed>> {
        let revision = self.model.revision.clone();
        if self.offline {
            let kept = paths.iter().filter(|path| self.linked(path).is_ok());
            let (size, object, large, sha256) = (0, String::new(), false, None);
            let listed = |path: &String| Listed {
                path: path.clone(),
                size,
                object: object.clone(),
                large,
                sha256: sha256.clone(),
            };
            return Ok(kept.map(listed).collect());
        }
        let entries = self.repository.get_paths_info().paths(paths.to_vec()).revision(revision).send();
        let listed = |entry| match entry {
            RepoTreeEntry::File { path, size, oid, lfs, .. } => {
                let large = lfs.is_some();
                Some(Listed { path, size, object: oid, large, sha256: lfs.and_then(|lfs| lfs.sha256) })
            }
            RepoTreeEntry::Directory { .. } => None,
        };
        Ok(entries.map_err(|error| self.error(error))?.into_iter().filter_map(listed).collect())
    }

    /// The file `path` in the cache, downloaded if it is not there.
    fn fetch(&self, path: &str, listed: Option<&Listed>) -> Result<PathBuf> {
        if let Some(listed) = listed.filter(|listed| !self.offline && listed.size > PART) {
            self.complete(listed)?;
        }
        self.linked(path).map_err(|error| self.error(error))
    }

    fn linked(&self, path: &str) -> std::result::Result<PathBuf, HFError> {
        let (path, revision) = (path.to_owned(), self.model.revision.clone());
        self.repository.download_file().filename(path).revision(revision).local_files_only(self.offline).send()
    }

    /// Brings a large file into the cache part by part, going on where an earlier download broke off; the client itself would
    /// begin anew.
    fn complete(&self, file: &Listed) -> Result<()> {
        let kept = self.repository.download_file().filename(file.path.clone()).revision(self.model.revision.clone());
        let kept = kept.local_files_only(true).send().ok();
        if kept.is_some_and(|kept| kept.metadata().is_ok_and(|kept| kept.len() == file.size)) {
            return Ok(());
        }
        let name = format!("models--{}", self.model.repository.replace('/', "--"));
        let blobs = self.cache.join(&name).join("blobs");
        let tag = file.sha256.as_ref().unwrap_or(&file.object);
        let part = blobs.join(format!("{tag}.incomplete"));
        let io = |source| Error::from(ediffi_core::Error::WriteFile { path: part.clone(), source });
        std::fs::create_dir_all(&blobs).map_err(io)?;
        // The lock that the client takes for the same file, so that two programs do not write it at once.
        let lock = self.cache.join(".locks").join(&name).join(format!("{tag}.lock"));
        lock.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(io)?;
        let lock = File::create(lock).map_err(io)?;
        lock.lock().map_err(io)?;
        let mut target = OpenOptions::new().create(true).append(true).open(&part).map_err(io)?;
        let mut have = target.metadata().map_err(io)?.len();
        if have > file.size {
            target.set_len(0).map_err(io)?;
            have = 0;
        }
        while have < file.size {
            let range = have..(have + PART).min(file.size);
            tracing::debug!(file = file.path, have, size = file.size, "downloading");
            let (path, revision) = (file.path.clone(), self.model.revision.clone());
            let request = self.repository.download_file_to_bytes().filename(path).revision(revision);
            let bytes = request.range(range.clone()).send().map_err(|error| self.error(error))?;
            if bytes.len() as u64 != range.end - range.start {
                let (expected, got) = (range.end - range.start, bytes.len());
                return Err(self.damaged(file, format!("{expected} bytes were asked for, {got} came")));
            }
            target.write_all(&bytes).map_err(io)?;
            have = range.end;
        }
        target.sync_all().map_err(io)?;
        let tag = if file.large { hash(&part).map_err(io)? } else { file.object.clone() };
        if file.sha256.as_ref().is_some_and(|expected| *expected != tag) {
            std::fs::remove_file(&part).map_err(io)?;
            return Err(self.damaged(file, "its SHA-256 is not the one that the hub names".to_owned()));
        }
        std::fs::rename(&part, blobs.join(tag)).map_err(io)
    }

    fn damaged(&self, file: &Listed, reason: String) -> Error {
        Error::Download { repository: self.model.repository.clone(), file: file.path.clone(), reason }
    }
}

fn hash(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}
