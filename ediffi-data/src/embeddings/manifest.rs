//! What kept embeddings are of.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ediffi_core::files::{read_json, write_json};
use serde::{Deserialize, Serialize};

use crate::error::expect_setting;
use crate::{Error, Result};

/// The format of a folder of embeddings.
pub(super) const FORMAT: &str = "ediffi-rows/1";

/// What embeddings are kept of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// [`Dataset::fingerprint`](ediffi_train::dataset::Dataset::fingerprint) of the data.
    pub data: String,
    /// What tells the encoders, and what they were told, from others: fingerprints of their weights, numbers of tokens.
    pub encoder: String,
    /// How many samples the data have.
    pub samples: usize,
    /// Samples in one shard: as many as a killed program may lose.
    pub rows: usize,
}

/// The file of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: String,
    data: String,
    encoder: String,
    samples: usize,
    rows: usize,
}

/// Where the manifest of a folder is.
pub(super) fn manifest(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

impl Kept {
    /// Reads that of a folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = manifest(folder);
        let Manifest { format, data, encoder, samples, rows } = read_json(&path)?;
        if format != FORMAT {
            return Err(Error::OtherEmbeddings {
                path,
                fact: "the format",
                found: format,
                expected: FORMAT.to_owned(),
            });
        }
        if rows == 0 {
            return Err(Error::Embeddings { path, reason: "it has shards of no rows".to_owned() });
        }
        Ok(Self { data, encoder, samples, rows })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let Self { data, encoder, samples, rows } = self.clone();
        let written = Manifest { format: FORMAT.to_owned(), data, encoder, samples, rows };
        Ok(write_json(&manifest(folder), &written)?)
    }

    /// # Errors
    /// [`Error::Setting`] for shards of no rows.
    pub(super) fn check(&self) -> Result<()> {
        expect_setting(self.rows > 0, "rows", || "a shard has at least one row".to_owned())
    }

    /// Refuses embeddings of other data or of another encoder, by name.
    pub(super) fn expect(&self, path: &Path, data: &str, encoder: &str) -> Result<()> {
        for (fact, found, expected) in [("the data", &self.data, data), ("the encoder", &self.encoder, encoder)] {
            if found != expected {
                let (path, found, expected) = (path.to_owned(), found.clone(), expected.to_owned());
                return Err(Error::OtherEmbeddings { path, fact, found, expected });
            }
        }
        Ok(())
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.samples.div_ceil(self.rows)
    }

    /// The samples of a shard.
    pub(super) fn samples_of(&self, shard: usize) -> Range<usize> {
        let first = shard.saturating_mul(self.rows).min(self.samples);
        first..first.saturating_add(self.rows).min(self.samples)
    }
}

/// Where a shard is.
pub(super) fn shard(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("rows-{number:06}.safetensors"))
}
