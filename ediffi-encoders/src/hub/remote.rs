//! One commit of a repository of the hub, and the folder of the shared cache that keeps it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use ediffi_core::files::write_atomic;
use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync};
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Bytes of a download that are in memory at once.
const BUFFER: usize = 1 << 20;

/// As long as the description of a model's files may be, in bytes: it takes some hundred a file, and a model has at most some
/// hundred files.
const ANSWER: u64 = 4 << 20;

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
        make_folder_of(&path)?;
        Ok(write_atomic(&path, snapshot.commit.as_bytes())?)
    }

    fn reference(&self) -> PathBuf {
        self.cache.join("refs").join(self.revision)
    }

    /// Asks the hub about files. `hf-hub` asks the same, but leaves out of the answer what a file outside git is named by.
    fn ask(&self, commit: &str, paths: &[String]) -> std::result::Result<Vec<Listed>, HFError> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        enum Entry {
            File(Listed),
            #[serde(other)]
            Other,
        }
        let url = format!("{}/api/models/{}/paths-info/{commit}", self.endpoint, self.name);
        let answer = apart(|| {
            let request = Client::builder().build()?.post(&url).json(&serde_json::json!({ "paths": paths }));
            let mut answer = Vec::new();
            send(request)?.take(ANSWER + 1).read_to_end(&mut answer).map_err(broken)?;
            Ok::<_, HFError>(answer)
        })?;
        if answer.len() as u64 > ANSWER {
            return Err(HFError::Other(format!("the answer of {url} is longer than {ANSWER} bytes")));
        }
        let entries: Vec<Entry> = serde_json::from_slice(&answer)?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| if let Entry::File(file) = entry { Some(file) } else { None })
            .collect())
    }

    /// Where the hub has the file `path` of `commit`.
    fn url(&self, commit: &str, path: &str) -> std::result::Result<Url, HFError> {
        let mut url = Url::parse(&format!("{}/{}/resolve/{commit}", self.endpoint, self.name))?;
        match url.path_segments_mut() {
            Ok(mut segments) => drop(segments.extend(path.split('/'))),
            Err(()) => return Err(HFError::InvalidParameter(format!("{} is no address of a hub", self.endpoint))),
        }
        Ok(url)
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
        let listed = self.remote.ask(&self.commit, paths).map_err(|error| self.remote.error(error))?;
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
        // Looked at once: another program may be bringing the file, and what it has brought is not damaged.
        let found = kept.metadata().ok();
        let damaged = found.as_ref().is_some_and(fs::Metadata::is_file);
        if found.is_some_and(same) {
            return Ok(kept);
        }
        if !self.online {
            return Err(self.remote.error(HFError::LocalEntryNotFound { path: path.to_owned() }));
        }
        // A file of another size is a damaged one, which the client would take for the right one.
        if damaged {
            match fs::remove_file(&kept) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ediffi_core::Error::WriteFile { path: kept, source }.into());
                }
                // Gone: another program has found the same.
                _ => {}
            }
        }
        let large = listed.and_then(|listed| Some((listed, listed.lfs.as_ref()?)));
        if let Some((listed, large)) = large {
            self.complete(listed, &large.oid)?;
            // The client would take a link away to make it again, which another program may just be opening.
            if kept.metadata().is_ok_and(|found| found.is_file() && found.len() == listed.size) {
                return Ok(kept);
            }
        }
        let download = self.remote.repository.download_file().filename(path.to_owned()).revision(self.commit.clone());
        // What was completed above is right.
        let download = download.force_download(damaged && large.is_none());
        let fetched = download.send().map_err(|error| self.remote.error(error))?;
        match (listed, fetched.metadata()) {
            (Some(listed), Ok(found)) if found.len() != listed.size => {
                Err(self.damaged(listed, format!("the hub lists {} bytes, {} came", listed.size, found.len())))
            }
            _ => Ok(fetched),
        }
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
        make_folder_of(&note)?;
        Ok(write_atomic(&note, b"")?)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.remote.cache.join("snapshots").join(&self.commit).join(path)
    }

    /// Brings a large file into the cache, going on where an earlier download broke off, and checks it; the client itself
    /// would begin anew, and check nothing.
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
        let target = OpenOptions::new().create(true).append(true).open(&part).map_err(io)?;
        let mut have = target.metadata().map_err(io)?.len();
        if have > file.size {
            target.set_len(0).map_err(io)?;
            have = 0;
        }
        if have < file.size {
            apart(|| self.append(file, have, &target, &part))?;
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

    /// Appends to `target`, the file `part`, what is missing of `file` after `have` bytes: as it arrives, and never more than
    /// the file's size.
    fn append(&self, file: &Listed, have: u64, mut target: &File, part: &Path) -> Result<()> {
        let failed = |error| self.remote.error(error);
        let io = |source| Error::from(ediffi_core::Error::WriteFile { path: part.to_owned(), source });
        let url = self.remote.url(&self.commit, &file.path).map_err(failed)?;
        tracing::debug!(file = file.path, have, size = file.size, "downloading");
        let request = || Ok(Client::builder().build()?.get(url).header(RANGE, format!("bytes={have}-")));
        let answer = request().and_then(send).map_err(failed)?;
        let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let expected = format!("bytes {have}-{}/{}", file.size - 1, file.size);
        let mut have = have;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if range == Some(expected.as_str()) => {}
            // The whole file, from a server that knows no ranges.
            StatusCode::OK if answer.content_length().is_none_or(|length| length == file.size) => {
                target.set_len(0).map_err(io)?;
                have = 0;
            }
            status => {
                let (range, length) = (range.unwrap_or("no range"), answer.content_length());
                let came = format!("{status} came with {range} and the length {length:?}");
                return Err(self.damaged(file, format!("{expected} was asked for, {came}")));
            }
        }
        let mut body = answer.take(file.size - have);
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = body.read(&mut buffer).map_err(|error| failed(broken(error)))?;
            if read == 0 {
                break;
            }
            target.write_all(buffer.get(..read).unwrap_or_default()).map_err(io)?;
            have += read as u64;
        }
        if have == file.size {
            Ok(())
        } else {
            Err(self.damaged(file, format!("the hub lists {} bytes, {have} came", file.size)))
        }
    }

    fn damaged(&self, file: &Listed, reason: String) -> Error {
        Error::Download { repository: self.remote.name.to_owned(), file: file.path.clone(), reason }
    }
}

/// Makes the folder that `path` lies in.
fn make_folder_of(path: &Path) -> Result<()> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.map_err(|source| ediffi_core::Error::WriteFile { path: path.to_owned(), source }.into())
}

/// Whether `path` leads down from a folder of the cache, and not out of it.
pub(super) fn is_within(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether the hub gave no answer, so that what the cache has is the best there is.
pub(super) fn no_answer(error: &Error) -> bool {
    let Error::Hub { source, .. } = error else { return false };
    match source.as_ref() {
        HFError::Request { source, .. } => {
            source.is_connect() || source.is_timeout() || source.status().is_some_and(is_busy)
        }
        HFError::Http { context } => is_busy(context.status),
        HFError::RateLimited { .. } => true,
        _ => false,
    }
}

fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// Runs `work` on a thread of its own: the blocking client must not be used on one that runs asynchronous tasks.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The answer to `request` under the user's token; an answer that says no is an error.
fn send(request: RequestBuilder) -> std::result::Result<Response, HFError> {
    let request = match token() {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    Ok(request.send()?.error_for_status()?)
}

/// Why an answer ended too early.
fn broken(error: io::Error) -> HFError {
    error.downcast::<reqwest::Error>().map_or_else(HFError::Io, HFError::from)
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
