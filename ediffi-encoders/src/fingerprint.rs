//! What tells one model from another.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ediffi_core::files::read_bytes;
use ediffi_core::weights::{self, Lora, LoraFile, LoraPart, Names, Original, WeightsFile};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Result;
use crate::tokenizer::TextTokenizer;
use crate::watched::Watched;

/// A model's name and variant, and a digest of its dimensions, its tokenizer and its weights (SHA-256).
///
/// The digest does not depend on where the folder lies, on how the weights are spread over files, or on the precision that
/// the model runs in. The same weights stored in another precision are another model.
///
/// Embedding tables go into the digest completely, because training may change a few rows of them, and so do small tensors.
/// A large matrix is sampled: its first and last bytes and 15 places between, because training changes all of it. So the
/// digest takes about as long as reading the tables. It can miss a few numbers of a large matrix that were edited by hand.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    name: String,
    variant: Option<String>,
    digest: String,
}

/// The files of an opened text encoder, from which its fingerprint is made when somebody asks for it.
///
/// Their file stays open, so the fingerprint is that of the weights that were loaded, even if another file has taken their
/// name since. A file that was written to in place is an error. Its length and time of modification tell; a file that has
/// both again after it was written to is not noticed.
#[derive(Debug)]
pub(crate) struct Identity {
    name: String,
    variant: Option<String>,
    /// The hash of everything but the weights.
    hash: Sha256,
    weights: WeightsFile,
    /// The files of the weights.
    files: Vec<Watched>,
    found: OnceLock<Fingerprint>,
}

impl Identity {
    /// Opens the weights in `folder`, of which `config` and `tokenizer` are open already.
    pub(crate) fn open(
        folder: &Path,
        variant: Option<&str>,
        names: Names,
        config: &impl Serialize,
        tokenizer: &TextTokenizer,
    ) -> Result<Self> {
        let path = weights::find(folder, variant)?;
        let is_index = path.extension().is_some_and(|extension| extension == "json");
        let paths = if is_index { weights::shards(&path, names)? } else { vec![path.clone()] };
        let open = || WeightsFile::open(&path, names);
        Self::of((name_of(folder), variant), &paths, open, &folder.join("config.json"), config, tokenizer)
    }

    /// Opens the weights that are a part of a checkpoint in the original layout. Of `config` and `tokenizer`, which are open already, the first
    /// is the file at `path`.
    pub(crate) fn original(
        (checkpoint, part): (&Path, Original),
        names: Names,
        path: &Path,
        config: &impl Serialize,
        tokenizer: &TextTokenizer,
    ) -> Result<Self> {
        let open = || WeightsFile::original(checkpoint, part, names);
        Self::of((name_of(checkpoint), None), &[checkpoint.to_owned()], open, path, config, tokenizer)
    }

    fn of(
        (name, variant): (String, Option<&str>),
        paths: &[PathBuf],
        open: impl FnOnce() -> ediffi_core::Result<WeightsFile>,
        path: &Path,
        config: &impl Serialize,
        tokenizer: &TextTokenizer,
    ) -> Result<Self> {
        let files = paths.iter().map(|path| Watched::open(path)).collect::<Result<Vec<_>>>()?;
        let weights = open()?;
        // Those that were opened are those that are watched.
        files.iter().try_for_each(Watched::check_name)?;
        let mut hash = Sha256::new();
        let path = path.to_owned();
        hash.update(serde_json::to_vec(config).map_err(|source| ediffi_core::Error::Json { path, source })?);
        let tokenizer = tokenizer.path();
        let mut tokenizer_files = vec![tokenizer.to_owned()];
        if tokenizer.file_name().is_some_and(|name| name == "vocab.json") {
            tokenizer_files.push(tokenizer.with_file_name("merges.txt"));
        }
        for path in tokenizer_files {
            hash.update(read_bytes(&path)?);
        }
        let variant = variant.map(str::to_owned);
        Ok(Self { name, variant, hash, weights, files, found: OnceLock::new() })
    }

    /// Merges LoRAs into the weights: of each what it has for this part of a model. The fingerprint is another one then.
    pub(crate) fn change(&mut self, loras: &[(Lora, LoraPart)]) -> Result<()> {
        for (lora, part) in loras {
            let file = LoraFile::open(lora)?;
            self.weights.change(&file, *part)?;
            self.hash.update(format!("{part:?} "));
            file.sample(|bytes| self.hash.update(bytes))?;
        }
        Ok(())
    }

    pub(crate) fn weights(&self) -> &WeightsFile {
        &self.weights
    }

    pub(crate) fn fingerprint(&self) -> Result<&Fingerprint> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let mut hash = self.hash.clone();
        // Before, since a map of a file that was cut short must not be read; after, since it may be written to meanwhile.
        self.files.iter().try_for_each(Watched::check)?;
        self.weights.sample(is_table, |bytes| hash.update(bytes))?;
        self.files.iter().try_for_each(Watched::check)?;
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let (name, variant) = (self.name.clone(), self.variant.clone());
        Ok(self.found.get_or_init(|| Fingerprint { name, variant, digest }))
    }
}

/// Whether the tensor `name` is a table whose rows are looked up: T5's words, CLIP's words and positions.
fn is_table(name: &str) -> bool {
    name == "shared.weight" || name.contains("embedding")
}

/// The name of a folder. In the cache of the Hugging Face hub, where folders have the names of commits, it is the name of the
/// repository and of the folder in it.
fn name_of(folder: &Path) -> String {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let parts: Vec<_> = folder.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let cached = parts.windows(3).enumerate().find_map(|(index, part)| match part {
        [repository, snapshots, _commit] if *snapshots == "snapshots" => {
            let repository = repository.strip_prefix("models--")?.replace("--", "/");
            let within = parts.iter().skip(index + 3).map(AsRef::as_ref);
            Some(std::iter::once(repository.as_str()).chain(within).collect::<Vec<&str>>().join("/"))
        }
        _ => None,
    });
    cached.unwrap_or_else(|| parts.last().map(|name| name.clone().into_owned()).unwrap_or_default())
}

impl Fingerprint {
    pub(crate) fn from_parts(name: String, variant: Option<String>, digest: String) -> Self {
        Self { name, variant, digest }
    }

    /// The name of the model's folder; of a model in the cache of the Hugging Face hub, that of its repository.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The variant that was asked for, such as `fp16`.
    #[must_use]
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Fingerprints are equal if their digests are, whatever the names.
impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Fingerprint {}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.get(..12).unwrap_or(&self.digest);
        match &self.variant {
            Some(variant) => write!(f, "`{}` (variant {variant}, {digest})", self.name),
            None => write!(f, "`{}` ({digest})", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_the_name_of_its_folder_or_of_its_repository() {
        for (folder, name) in [
            ("/models/t5-v1_1-xxl", "t5-v1_1-xxl"),
            ("/hub/models--google--t5-v1_1-xxl/snapshots/3db67ab1af984cf1", "google/t5-v1_1-xxl"),
            ("/hub/models--org--pipe/snapshots/3db67ab1/text_encoder", "org/pipe/text_encoder"),
            ("/models--org--pipe/other/text_encoder", "text_encoder"),
        ] {
            assert_eq!(name_of(Path::new(folder)), name);
        }
    }
}
