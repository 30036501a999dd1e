//! What tells one model from another.

use std::fmt;
use std::path::Path;

use ediffi_core::weights::WeightsFile;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// A model's name and a digest of its dimensions, its tokenizer and samples of all its weights (SHA-256).
///
/// It is made without loading the model, in a fraction of a second, and does not depend on where the model's folder lies, on
/// how its weights are cut into files, or on the precision it runs in. Of a large tensor 17 places are looked at: training
/// changes all of them, but a few rows that were edited in a table of words may lie between.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    name: String,
    digest: String,
}

impl Fingerprint {
    pub(crate) fn of(folder: &Path, config: &impl Serialize, tokenizer: &Path, weights: &WeightsFile) -> Result<Self> {
        let mut hash = Sha256::new();
        let path = folder.join("config.json");
        hash.update(serde_json::to_vec(config).map_err(|source| ediffi_core::Error::Json { path, source })?);
        let mut tokenizer_files = vec![tokenizer.to_owned()];
        if tokenizer.file_name().is_some_and(|name| name == "vocab.json") {
            tokenizer_files.push(tokenizer.with_file_name("merges.txt"));
        }
        for path in tokenizer_files {
            let bytes = std::fs::read(&path)
                .map_err(|source| Error::from(ediffi_core::Error::ReadFile { path: path.clone(), source }))?;
            hash.update(&bytes);
        }
        weights.sample(|bytes| hash.update(bytes))?;
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name, digest })
    }

    pub(crate) fn from_parts(name: String, digest: String) -> Self {
        Self { name, digest }
    }

    /// The name of the model's folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Fingerprints are equal if their digests are: a model is the same under another name.
impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Fingerprint {}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.name, self.digest.get(..12).unwrap_or(&self.digest))
    }
}
