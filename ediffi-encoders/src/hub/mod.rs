//! Models by their names on the Hugging Face hub (feature `hub`).
//!
//! Only the files that are needed are downloaded, into the cache that all programs of Hugging Face share. Weights have
//! to be safetensors; pickled weights are never read. All files of a model come from one commit. Downloaded weights are
//! checked against the SHA-256 that the hub names; of a file that is in the cache already, the size is checked.
//!
//! If the hub cannot be reached or is too busy, or with `HF_HUB_OFFLINE`, only the cache is used. The environment variables
//! `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE` and `HF_HUB_DISABLE_IMPLICIT_TOKEN` mean what they
//! mean in other programs of Hugging Face.

mod client;
mod remote;
mod snapshot;
mod watch;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{self, Names};
use hf_hub::HFError;

use crate::{Clip, Error, Result, T5, clip, t5, tokenizer};
use client::no_answer;
use remote::Remote;
use snapshot::{Snapshot, is_within};
pub use watch::Fetched;
use watch::Watcher;

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

/// A model on the hub: its repository, revision, variant and folder.
#[derive(Debug, Clone)]
#[must_use]
pub struct HubModel {
    repository: String,
    revision: String,
    variant: Option<String>,
    subfolder: Option<String>,
    watcher: Watcher,
}

/// The files of an encoder besides its configuration.
struct ModelFiles<'a> {
    /// The tensors that it uses.
    names: Names,
    /// Sets of files. The first complete one is its tokenizer.
    tokenizers: &'a [&'a [&'a str]],
    /// Files that it uses if they exist.
    optional: &'a [&'a str],
    /// Whether the encoder that the configuration in a folder describes has a tokenizer.
    has_tokenizer: fn(&Path) -> Result<bool>,
}

impl HubModel {
    /// The newest commit of the model `repository`, such as `org/name`.
    pub fn new(repository: impl Into<String>) -> Self {
        let (repository, revision) = (repository.into(), "main".to_owned());
        Self { repository, revision, variant: None, subfolder: None, watcher: Watcher::default() }
    }

    /// Tells `watcher` of every part of a file that arrives: a megabyte of large ones. `Break` ends the download with
    /// [`Cancelled`](ediffi_core::Error::Cancelled); the next one goes on from there. What the cache has is not told of.
    pub fn watch(self, watcher: impl Fn(&Fetched<'_>) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self { watcher: Watcher::new(watcher), ..self }
    }

    /// Chooses a branch, a tag or a commit (default: `main`).
    pub fn revision(self, revision: impl Into<String>) -> Self {
        Self { revision: revision.into(), ..self }
    }

    /// Chooses the weights of a variant, such as `fp16`.
    pub fn variant(self, variant: impl Into<String>) -> Self {
        Self { variant: Some(variant.into()), ..self }
    }

    /// Chooses the encoder in a folder of the repository, such as `text_encoder` of a pipeline. Its tokenizer may be in the
    /// folder `tokenizer`.
    pub fn subfolder(self, subfolder: impl Into<String>) -> Self {
        Self { subfolder: Some(subfolder.into()), ..self }
    }

    /// Downloads the files that [`T5::open`] (or `open_variant`) needs and the cache lacks, and returns their folder.
    ///
    /// Small files are first. So a model of another architecture, or one without a tokenizer, is refused before its weights
    /// are downloaded.
    ///
    /// # Errors
    /// [`Error::Hub`] if the repository or file does not exist or may not be read, or if there is no connection and the cache
    /// lacks the file; [`Error::Architecture`]; [`Error::NoTokenizerOnHub`]; [`Error::NoSafetensors`]; [`Error::Download`].
    pub fn t5(&self) -> Result<PathBuf> {
        self.encoder(&ModelFiles {
            names: t5::names,
            tokenizers: &[&["tokenizer.json"], &["spiece.model"]],
            optional: &[],
            has_tokenizer: |folder| T5::read_config(folder).map(|_| true),
        })
    }

    /// Downloads the files that [`Clip::open`], [`ClipText::open`](crate::ClipText::open) and
    /// [`ClipVision::open`](crate::ClipVision::open) need and the cache lacks, and returns their folder.
    ///
    /// # Errors
    /// As [`t5`](Self::t5).
    pub fn clip(&self) -> Result<PathBuf> {
        self.encoder(&ModelFiles {
            names: |stored| clip::text_names(stored).or_else(|| clip::vision_names(stored)),
            tokenizers: &[&["tokenizer.json"], &["vocab.json", "merges.txt"]],
            optional: &["preprocessor_config.json", "processor_config.json"],
            has_tokenizer: clip::has_text,
        })
    }

    /// Downloads the files of these paths that the cache lacks, and returns the folder that the paths start from. It is named
    /// after the commit.
    ///
    /// # Errors
    /// [`Error::Hub`] naming a file that the repository does not have, or as [`t5`](Self::t5); [`Error::Download`].
    pub fn files(&self, paths: &[&str]) -> Result<PathBuf> {
        self.download(&|snapshot| {
            let paths = self.paths(snapshot, paths)?;
            let there = snapshot.list(&paths)?;
            if let Some(path) = paths.iter().find(|path| !there.has(path)) {
                return Err(snapshot.missing(path));
            }
            paths.iter().try_for_each(|path| snapshot.fetch(path, &there).map(drop))?;
            Ok(self.folder(snapshot))
        })
    }

    /// Downloads the first of these files that there is, if the cache lacks it, and returns the folder that the paths start from, and which it
    /// is. The folder is named after the commit.
    ///
    /// # Errors
    /// [`Error::Hub`] naming the files where there is none of them, or as [`files`](Self::files).
    pub fn first_of(&self, paths: &[&str]) -> Result<(PathBuf, usize)> {
        self.download(&|snapshot| {
            let paths: Vec<String> = self.paths(snapshot, paths)?;
            let there = snapshot.list(&paths)?;
            let Some((index, path)) = paths.iter().enumerate().find(|(_, path)| there.has(path)) else {
                return Err(snapshot.missing(&paths.join(" or ")));
            };
            snapshot.fetch(path, &there)?;
            Ok((self.folder(snapshot), index))
        })
    }

    /// Which of these files there are; without a connection, which of them the cache has. Nothing is downloaded. The
    /// [revision](Self::revision) has to be a commit, as the folders of [`files`](Self::files) are named.
    ///
    /// # Errors
    /// [`Error::Hub`] for another revision, and as [`files`](Self::files).
    pub fn there(&self, paths: &[&str]) -> Result<Vec<bool>> {
        self.download(&|snapshot| {
            if !remote::is_commit(&self.revision) {
                let wrong = format!("`{}` is no commit", self.revision);
                return Err(snapshot.error(HFError::InvalidParameter(wrong)));
            }
            let paths = self.paths(snapshot, paths)?;
            let there = snapshot.list(&paths)?;
            Ok(paths.iter().map(|path| there.has(path)).collect())
        })
    }

    /// These paths from the top of the repository.
    fn paths(&self, snapshot: &Snapshot<'_>, paths: &[&str]) -> Result<Vec<String>> {
        let within =
            |path: &&str| self.subfolder.as_ref().map_or((*path).to_owned(), |folder| format!("{folder}/{path}"));
        let paths: Vec<String> = paths.iter().map(within).collect();
        match paths.iter().find(|path| !is_within(path)) {
            None => Ok(paths),
            Some(path) => {
                Err(snapshot.error(HFError::InvalidParameter(format!("`{path}` is no path within a repository"))))
            }
        }
    }

    /// The folder that its paths start from.
    fn folder(&self, snapshot: &Snapshot<'_>) -> PathBuf {
        self.subfolder.as_ref().map_or(snapshot.folder(), |folder| snapshot.folder().join(folder))
    }

    fn encoder(&self, files: &ModelFiles<'_>) -> Result<PathBuf> {
        self.download(&|snapshot| self.collect(snapshot, files))
    }

    fn download<T>(&self, collect: &dyn Fn(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        let remote = Remote::new(&self.repository, &self.revision, &self.watcher)?;
        let parts = [("revision", Some(&self.revision)), ("subfolder", self.subfolder.as_ref())];
        for (what, part) in parts.into_iter().chain([("variant", self.variant.as_ref())]) {
            if let Some(part) = part.filter(|part| !is_within(part)) {
                return Err(remote.error(HFError::InvalidParameter(format!("`{part}` is no {what}"))));
            }
        }
        if remote.offline() {
            return collect(&Snapshot::kept(&remote)?);
        }
        let newest = Snapshot::newest(&remote).and_then(|snapshot| {
            let folder = collect(&snapshot)?;
            // Only now: a name in the cache stands for a commit of which everything that was asked for is there.
            snapshot.remember()?;
            Ok(folder)
        });
        match newest {
            Err(error) if no_answer(&error) => {
                let kept = Snapshot::kept(&remote).and_then(|snapshot| collect(&snapshot));
                let Ok(folder) = kept else { return Err(error) };
                tracing::warn!(repository = self.repository, %error, "the hub does not answer: opening from the cache");
                Ok(folder)
            }
            found => found,
        }
    }

    /// Brings the files of `snapshot` that are needed into its folder.
    fn collect(&self, snapshot: &Snapshot<'_>, files: &ModelFiles<'_>) -> Result<PathBuf> {
        let within = |name: &str| self.subfolder.as_ref().map_or(name.to_owned(), |folder| format!("{folder}/{name}"));
        let config = within("config.json");
        let [weights, indices @ ..] = weights::candidates("model", self.variant.as_deref()).map(|name| within(&name));
        let mut sets: Vec<Vec<String>> =
            files.tokenizers.iter().map(|set| set.iter().map(|name| within(name)).collect()).collect();
        if let Some(subfolder) = &self.subfolder {
            let beside = tokenizer::beside(Path::new(subfolder));
            let named = |set: &&[&str]| set.iter().map(|name| format!("{beside}/{name}")).collect();
            sets.extend(files.tokenizers.iter().map(named));
        }
        let mut optional: Vec<String> = files.optional.iter().map(|name| within(name)).collect();
        // The folder of each set may have them.
        let settings: Vec<String> = sets.iter().flat_map(|set| settings_beside(set)).collect();
        let all = [vec![config.clone(), weights.clone()], indices.to_vec(), sets.concat(), optional.clone(), settings];
        let all = all.concat();
        let there = snapshot.list(&all)?;

        let config = snapshot.fetch(&config, &there)?;
        let folder = config.parent().map(Path::to_owned).unwrap_or_default();
        if (files.has_tokenizer)(&folder)? {
            let Some(set) = sets.iter().find(|set| set.iter().all(|path| there.has(path))) else {
                let (repository, looked_for) = (self.repository.clone(), sets.concat().join(", "));
                return Err(Error::NoTokenizerOnHub { repository, looked_for });
            };
            set.iter().try_for_each(|path| snapshot.fetch(path, &there).map(drop))?;
            optional.extend(settings_beside(set));
        }
        for path in &optional {
            if there.has(path) {
                snapshot.fetch(path, &there)?;
            } else {
                snapshot.note_absent(path)?;
            }
        }
        if there.has(&weights) {
            snapshot.fetch(&weights, &there)?;
        } else if let Some(index) = indices.iter().find(|path| there.has(path)) {
            let index = snapshot.fetch(index, &there)?;
            let shards = weights::shards(&index, files.names)?;
            let shards: Vec<String> =
                shards.iter().filter_map(|path| Some(within(path.file_name()?.to_str()?))).collect();
            let there = snapshot.list(&shards)?;
            shards.iter().try_for_each(|shard| snapshot.fetch(shard, &there).map(drop))?;
        } else {
            return Err(Error::NoSafetensors { repository: self.repository.clone(), looked_for: weights });
        }
        Ok(folder)
    }
}

/// The paths of a tokenizer's settings, beside its own files.
fn settings_beside(set: &[String]) -> impl Iterator<Item = String> {
    let folder =
        set.first().and_then(|path| path.rsplit_once('/')).map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
    tokenizer::SETTINGS.into_iter().map(move |name| format!("{folder}{name}"))
}
