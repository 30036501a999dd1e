//! A repository of the hub, and the folder of the shared cache that keeps it.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use ediffi_core::files::write_with_folders;
use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync};
use reqwest::Url;
use reqwest::blocking::Client;
use serde::Deserialize;

use super::client::{apart, broken, send};
use super::watch::Watcher;
use crate::{Error, Result};

/// As long as the description of a model's files may be, in bytes: it takes some hundred a file, and a model has at most some
/// hundred files.
const ANSWER: u64 = 4 << 20;

/// A repository under one of its names, and its place in the cache.
pub(super) struct Remote<'a> {
    pub(super) name: &'a str,
    revision: &'a str,
    endpoint: String,
    pub(super) repository: HFRepositorySync<RepoTypeModel>,
    /// Of this repository.
    pub(super) cache: PathBuf,
    pub(super) locks: PathBuf,
    /// Who hears of what arrives.
    pub(super) watcher: &'a Watcher,
}

/// A file as the hub lists it.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) path: String,
    pub(super) size: u64,
    /// Of a file that is kept outside git, as all large ones are.
    #[serde(default)]
    pub(super) lfs: Option<Large>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Large {
    /// The SHA-256 of its content, by which the cache names it too.
    pub(super) oid: String,
}

impl<'a> Remote<'a> {
    pub(super) fn new(name: &'a str, revision: &'a str, watcher: &'a Watcher) -> Result<Self> {
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
            watcher,
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

    /// The commit that the revision stands for on the hub now. One that names a commit stands for that.
    pub(super) fn newest(&self) -> std::result::Result<String, HFError> {
        if is_commit(self.revision) {
            return Ok(self.revision.to_owned());
        }
        let info = self.repository.info().revision(self.revision.to_owned()).send()?;
        let commit = info.sha.filter(|commit| is_hexadecimal(commit, 40));
        commit.ok_or_else(|| HFError::Other(format!("it does not say which commit `{}` is", self.revision)))
    }

    /// The commit that it stood for when it was last downloaded.
    pub(super) fn kept(&self) -> Result<String> {
        let kept = || Some(fs::read_to_string(self.reference()).ok()?.trim().to_owned());
        let commit = if is_commit(self.revision) { Some(self.revision.to_owned()) } else { kept() };
        let missing = || self.error(HFError::LocalEntryNotFound { path: self.reference().display().to_string() });
        commit.filter(|commit| is_hexadecimal(commit, 40)).ok_or_else(missing)
    }

    /// Notes in the cache that the revision stands for `commit`.
    pub(super) fn remember(&self, commit: &str) -> Result<()> {
        if is_commit(self.revision) {
            return Ok(());
        }
        let path = self.reference();
        Ok(write_with_folders(&path, commit.as_bytes())?)
    }

    fn reference(&self) -> PathBuf {
        self.cache.join("refs").join(self.revision)
    }

    /// Asks the hub about files. `hf-hub` asks the same, but leaves out of the answer what a file outside git is named by.
    pub(super) fn ask(&self, commit: &str, paths: &[String]) -> std::result::Result<Vec<Listed>, HFError> {
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
    pub(super) fn url(&self, commit: &str, path: &str) -> std::result::Result<Url, HFError> {
        let mut url = Url::parse(&format!("{}/{}/resolve/{commit}", self.endpoint, self.name))?;
        match url.path_segments_mut() {
            Ok(mut segments) => drop(segments.extend(path.split('/'))),
            Err(()) => return Err(HFError::InvalidParameter(format!("{} is no address of a hub", self.endpoint))),
        }
        Ok(url)
    }
}

/// Whether a revision is the name of a commit.
pub(super) fn is_commit(revision: &str) -> bool {
    is_hexadecimal(revision, 40)
}

pub(super) fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
