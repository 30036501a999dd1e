//! One commit of a repository of the hub, and the folder of the shared cache that keeps it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Bytes asked for at once. What has arrived of a file is kept in such parts when a download breaks off.
const PART: u64 = 16 << 20;

/// A repository under one of its names, and its place in the cache.
pub(super) struct Remote<'a> {
    name: &'a str,
    revision: &'a str,
    endpoint: String,
    repository: HFRepositorySync<RepoTypeModel>,
    /// Of this repository.
    cache: PathBuf,
    locks: PathBuf,
}

/// A commit of it. The cache of a commit never changes: what is there is right.
pub(super) struct Snapshot<'a> {
    remote: &'a Remote<'a>,
    commit: String,
    /// Whether the hub is asked for what the cache does not have.
    online: bool,
}

/// A file as the hub lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    path: String,
    size: u64,
    /// Of a file that is kept outside git, as all large ones are.
    #[serde(default)]
    lfs: Option<Large>,
}

#[derive(Debug, Deserialize)]
struct Large {
    /// The SHA-256 of its content, by which the cache names it too.
    oid: String,
}

/// Those files of a commit that were asked for and are there.
#[derive(Debug)]
pub(super) struct Listing(Vec<Listed>);

impl Listing {
    pub(super) fn has(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    fn get(&self, path: &str) -> Option<&Listed> {
        self.0.iter().find(|file| file.path == path)
    }
}

impl<'a> Remote<'a> {
    pub(super) fn new(name: &'a str, revision: &'a str) -> Result<Self> {
        let failed = |source| Error::Hub { repository: name.to_owned(), source: Box::new(source) };
        let client = HFClient::new().map_err(failed)?;
        let (owner, short) = hf_hub::split_id(name);
        let (endpoint, root) = (client.endpoint().to_owned(), client.cache_dir().to_owned());
        let repository = HFClientSync::from_inner(client).map_err(failed)?.model(owner, short);
        let folder = format!("models--{}", name.replace('/', "--"));
        Ok(Self {
            name,
            revision,
            endpoint,
            repository,
            cache: root.join(&folder),
            locks: root.join(".locks").join(folder),
        })
    }

    pub(super) fn error(&self, source: HFError) -> Error {
        Error::Hub { repository: self.name.to_owned(), source: Box::new(source) }
    }

    /// Whether the user wants no connection.
    pub(super) fn offline(&self) -> bool {
        std::env::var("HF_HUB_OFFLINE")
            .is_ok_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()))
    }

    /// The commit that the revision stands for on the hub now.
    pub(super) fn newest(&'a self) -> std::result::Result<Snapshot<'a>, HFError> {
        let info = self.repository.info().revision(self.revision.to_owned()).send()?;
        match info.sha.filter(|commit| is_hexadecimal(commit, 40)) {
            Some(commit) => Ok(Snapshot { remote: self, commit, online: true }),
            None => Err(HFError::Other(format!("it does not say which commit `{}` is", self.revision))),
        }
    }

    /// The commit that it stood for when it was last downloaded.
    pub(super) fn kept(&'a self) -> Result<Snapshot<'a>> {
        let kept = || Some(fs::read_to_string(self.reference()).ok()?.trim().to_owned());
        let commit = if is_hexadecimal(self.revision, 40) { Some(self.revision.to_owned()) } else { kept() };
        match commit.filter(|commit| is_hexadecimal(commit, 40)) {
            Some(commit) => Ok(Snapshot { remote: self, commit, online: false }),
            None => Err(self.error(HFError::LocalEntryNotFound { path: self.reference().display().to_string() })),
        }
    }

    /// Notes in the cache that the revision stands for the commit of `snapshot`.
    pub(super) fn remember(&self, snapshot: &Snapshot<'_>) -> Result<()> {
        if is_hexadecimal(self.revision, 40) {
            return Ok(());
        }
        let path = self.reference();
        let temporary = path.with_extension(format!("{}-{:?}.tmp", std::process::id(), std::thread::current().id()));
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&temporary, &snapshot.commit))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| ediffi_core::Error::WriteFile { path, source }.into())
    }

    fn reference(&self) -> PathBuf {
        self.cache.join("refs").join(self.revision)
    }

    /// Asks the hub about files. `hf-hub` asks the same, but leaves out of the answer what a file outside git is named by.
    fn ask(&self, commit: &str, paths: &[String]) -> std::result::Result<Vec<Listed>, reqwest::Error> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        enum Entry {
            File(Listed),
            #[serde(other)]
            Other,
        }
        let url = format!("{}/api/models/{}/paths-info/{commit}", self.endpoint, self.name);
        let ask = || {
            let request =
                reqwest::blocking::Client::builder().build()?.post(url).json(&serde_json::json!({ "paths": paths }));
            let request = match token() {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            request.send()?.error_for_status()?.json::<Vec<Entry>>()
        };
        // On a thread of its own: the blocking client must not be used on one that runs asynchronous tasks.
        let answer = std::thread::scope(|scope| scope.spawn(ask).join());
        let entries = answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| if let Entry::File(file) = entry { Some(file) } else { None })
            .collect())
    }
}

impl Snapshot<'_> {
    /// Those of `paths` that the commit has; without a connection those that the cache has of it.
    pub(super) fn list(&self, paths: &[String]) -> Result<Listing> {
        if !self.online {
            let size =
                |path: &String| self.path(path).metadata().ok().filter(fs::Metadata::is_file).map(|kept| kept.len());
            let kept = |path: &String| Some(Listed { path: path.clone(), size: size(path)?, lfs: None });
            return Ok(Listing(paths.iter().filter_map(kept).collect()));
        }
        let listed = self.remote.ask(&self.commit, paths).map_err(|error| self.remote.error(error.into()))?;
        // The name becomes one of a file.
        let wrong = |file: &&Listed| file.lfs.as_ref().is_some_and(|large| !is_hexadecimal(&large.oid, 64));
        match listed.iter().find(wrong) {
            None => Ok(Listing(listed)),
            Some(file) => Err(self.damaged(file, "the hub names it by something else than a SHA-256".to_owned())),
        }
    }

    /// The file `path` in the cache, downloaded if it is not there.
    pub(super) fn fetch(&self, path: &str, listing: &Listing) -> Result<PathBuf> {
        let listed = listing.get(path);
        let kept = self.path(path);
        let same = |found: fs::Metadata| found.is_file() && listed.is_none_or(|listed| listed.size == found.len());
        if kept.metadata().is_ok_and(same) {
            return Ok(kept);
        }
        if !self.online {
            return Err(self.remote.error(HFError::LocalEntryNotFound { path: path.to_owned() }));
        }
        if let Some((listed, large)) = listed.and_then(|listed| Some((listed, listed.lfs.as_ref()?))) {
            self.complete(listed, &large.oid)?;
        }
        let download = self.remote.repository.download_file().filename(path.to_owned()).revision(self.commit.clone());
        // A file of another size is a damaged one, which the client would take for the right one; what was completed above
        // is right.
        let damaged = kept.is_file() && listed.is_some_and(|listed| listed.lfs.is_none());
        download.force_download(damaged).send().map_err(|error| self.remote.error(error))
    }

    /// Notes that the commit has no file `path`, as other programs do that share the cache. Without a connection that is
    /// how an opening knows that nothing is missing.
    pub(super) fn note_absent(&self, path: &str) -> Result<()> {
        let note = self.remote.cache.join(".no_exist").join(&self.commit).join(path);
        if note.is_file() {
            return Ok(());
        }
        if !self.online {
            tracing::warn!(repository = self.remote.name, path, "not in the cache, and perhaps not in the repository");
            return Ok(());
        }
        let written = note.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&note, ""));
        written.map_err(|source| ediffi_core::Error::WriteFile { path: note, source }.into())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.remote.cache.join("snapshots").join(&self.commit).join(path)
    }

    /// Brings a large file into the cache part by part, going on where an earlier download broke off, and checks it; the
    /// client itself would begin anew, and check nothing.
    fn complete(&self, file: &Listed, sha256: &str) -> Result<()> {
        let blobs = self.remote.cache.join("blobs");
        let (blob, part) = (blobs.join(sha256), blobs.join(format!("{sha256}.incomplete")));
        let there = || blob.metadata().is_ok_and(|kept| kept.len() == file.size);
        // Another commit may have the same file.
        if there() {
            return Ok(());
        }
        let io = |source| Error::from(ediffi_core::Error::WriteFile { path: part.clone(), source });
        fs::create_dir_all(&blobs).and_then(|()| fs::create_dir_all(&self.remote.locks)).map_err(io)?;
        // The lock that the client takes for the same file, so that two programs do not write it at once.
        let lock = File::create(self.remote.locks.join(format!("{sha256}.lock"))).map_err(io)?;
        lock.lock().map_err(io)?;
        // Another program may have brought it while this one waited for the lock.
        if there() {
            return Ok(());
        }
        let mut target = OpenOptions::new().create(true).append(true).open(&part).map_err(io)?;
        let mut have = target.metadata().map_err(io)?.len();
        if have > file.size {
            target.set_len(0).map_err(io)?;
            have = 0;
        }
        while have < file.size {
            let range = have..(have + PART).min(file.size);
            tracing::debug!(file = file.path, have, size = file.size, "downloading");
            let request = self.remote.repository.download_file_to_bytes().filename(file.path.clone());
            let request = request.revision(self.commit.clone()).range(range.clone());
            let bytes = request.send().map_err(|error| self.remote.error(error))?;
            if bytes.len() as u64 != range.end - range.start {
                let (expected, got) = (range.end - range.start, bytes.len());
                return Err(self.damaged(file, format!("{expected} bytes were asked for, {got} came")));
            }
            target.write_all(&bytes).map_err(io)?;
            have = range.end;
        }
        target.sync_all().map_err(io)?;
        let found = hash(&part).map_err(io)?;
        if found != sha256 {
            // Not to go on from it another time.
            fs::remove_file(&part).map_err(io)?;
            return Err(self.damaged(file, format!("its SHA-256 is {found}, the hub names {sha256}")));
        }
        fs::rename(&part, blob).map_err(io)
    }

    fn damaged(&self, file: &Listed, reason: String) -> Error {
        Error::Download { repository: self.remote.name.to_owned(), file: file.path.clone(), reason }
    }
}

/// Whether `path` leads down from a folder of the cache, and not out of it.
pub(super) fn is_within(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether the hub gave no answer, so that what the cache has is the best there is.
pub(super) fn no_answer(error: &HFError) -> bool {
    match error {
        HFError::Request { source, .. } => source.is_connect() || source.is_timeout(),
        HFError::Http { context } => context.status.is_server_error(),
        _ => false,
    }
}

/// The user's token, from where `hf-hub` takes it too.
fn token() -> Option<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if set("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
        return None;
    }
    let read = |path: PathBuf| Some(fs::read_to_string(path).ok()?.trim().to_owned()).filter(|token| !token.is_empty());
    set("HF_TOKEN").or_else(|| read(set("HF_TOKEN_PATH")?.into())).or_else(|| read(hf_hub::hf_home().join("token")))
}

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
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
