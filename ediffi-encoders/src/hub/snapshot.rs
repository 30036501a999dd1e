//! One commit of a repository: its files in the cache, downloaded where they are missing.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use ediffi_core::files::write_with_folders;
use hf_hub::HFError;
use reqwest::StatusCode;
use reqwest::blocking::Client;
use reqwest::header::{CONTENT_RANGE, RANGE};
use sha2::{Digest, Sha256};

use super::client::{apart, broken, send};
use super::remote::{Listed, Remote, is_hexadecimal};
use super::watch::Fetched;
use crate::{Error, Result};

/// Bytes of a download that are in memory at once.
const BUFFER: usize = 1 << 20;

/// A commit of a repository. The cache of a commit never changes: what is there is right.
pub(super) struct Snapshot<'a> {
    remote: &'a Remote<'a>,
    commit: String,
    /// Whether the hub is asked for what the cache does not have.
    online: bool,
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

impl<'a> Snapshot<'a> {
    /// The commit that the revision stands for on the hub now.
    pub(super) fn newest(remote: &'a Remote<'a>) -> Result<Self> {
        let commit = remote.newest().map_err(|error| remote.error(error))?;
        Ok(Self { remote, commit, online: true })
    }

    /// The commit that it stood for when it was last downloaded: what the cache has, without a connection.
    pub(super) fn kept(remote: &'a Remote<'a>) -> Result<Self> {
        Ok(Self { remote, commit: remote.kept()?, online: false })
    }

    /// Notes in the cache that the revision stands for this commit.
    pub(super) fn remember(&self) -> Result<()> {
        self.remote.remember(&self.commit)
    }

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
            (_, found) => {
                let size = found.map_or(0, |found| found.len());
                // Of a large one its parts were told of.
                if large.is_none() {
                    self.told(path, size, size)?;
                }
                Ok(fetched)
            }
        }
    }

    /// Tells of what has arrived of a file.
    fn told(&self, file: &str, have: u64, size: u64) -> Result<()> {
        let fetched = Fetched { repository: self.remote.name, file, have, size };
        if self.remote.watcher.hears(&fetched).is_break() { Err(ediffi_core::Error::Cancelled.into()) } else { Ok(()) }
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
        Ok(write_with_folders(&note, b"")?)
    }

    /// Where the files of the commit are in the cache. It is named after the commit.
    pub(super) fn folder(&self) -> PathBuf {
        self.remote.cache.join("snapshots").join(&self.commit)
    }

    pub(super) fn error(&self, source: HFError) -> Error {
        self.remote.error(source)
    }

    /// The error of a file that was asked for by name and is not there.
    pub(super) fn missing(&self, path: &str) -> Error {
        let path = path.to_owned();
        self.error(if self.online {
            HFError::EntryNotFound { path, repo_id: self.remote.name.to_owned(), context: None }
        } else {
            HFError::LocalEntryNotFound { path }
        })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder().join(path)
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
            self.told(&file.path, have, file.size)?;
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

/// Whether `path` leads down from a folder of the cache, and not out of it.
pub(super) fn is_within(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
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
