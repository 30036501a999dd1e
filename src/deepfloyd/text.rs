//! T5 as DeepFloyd IF reads it: of every text all 77 positions, those of the padding included.

use std::path::{Path, PathBuf};

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::find;
use ediffi_encoders::{T5, T5Config, T5Weights, TextTokenizer};

use super::advice::ADVICE;
use crate::published::{unusable, weights};
use crate::{Error, Result};

/// The encoder of a published folder, looked at and not loaded.
#[derive(Debug, Clone)]
pub(crate) struct PublishedText {
    pub(crate) config: T5Config,
    encoder: PathBuf,
    /// The name of the weights' variant, if it is one.
    variant: Option<&'static str>,
    /// The file of the tokenizer.
    tokenizer: PathBuf,
}

impl PublishedText {
    /// The first encoder among `folders` that can be used: all of a family have the same. If none can, what is wrong with the
    /// first that there is. One that is passed over for another is in the log.
    pub(crate) fn first<'a>(folders: impl Iterator<Item = &'a Path>, half: bool) -> Result<Option<Self>> {
        let mut wrong = None;
        for folder in folders {
            match Self::find(folder, half) {
                Ok(None) => {}
                Ok(found) => {
                    if let Some(error) = &wrong {
                        let error: &(dyn std::error::Error + 'static) = error;
                        tracing::warn!(error, used = %folder.display(), "a text encoder that cannot be used is passed over");
                    }
                    return Ok(found);
                }
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        wrong.map_or(Ok(None), Err)
    }

    /// The encoder of `folder`, if it has one.
    fn find(folder: &Path, half: bool) -> Result<Option<Self>> {
        let encoder = folder.join("text_encoder");
        if !encoder.join("config.json").is_file() {
            return Ok(None);
        }
        let config = T5::read_config(&encoder).map_err(Error::of_config)?;
        // What it says where there are no weights is worth more than what the encoder would say.
        let file = weights::find(&encoder, "model", half, ADVICE)?;
        let halved = file.file_name().is_some_and(|name| name.to_string_lossy().contains(weights::HALF));
        let names = ["tokenizer/tokenizer.json", "tokenizer/spiece.model"];
        let Some(tokenizer) = names.iter().map(|name| folder.join(name)).find(|path| path.is_file()) else {
            return Err(unusable(folder, "it has neither tokenizer/tokenizer.json nor tokenizer/spiece.model"));
        };
        Ok(Some(Self { config, encoder, variant: halved.then_some(weights::HALF), tokenizer }))
    }

    pub(crate) fn open_tokenizer(&self) -> ediffi_encoders::Result<TextTokenizer> {
        let T5Config { eos_token_id, pad_token_id, vocab_size, .. } = self.config;
        TextTokenizer::t5(&self.tokenizer, eos_token_id, pad_token_id, vocab_size)
    }

    /// The file of the weights.
    pub(crate) fn weights(&self) -> Result<PathBuf> {
        Ok(find(&self.encoder, self.variant)?)
    }

    pub(crate) fn load(&self, weights: T5Weights, runtime: Runtime) -> Result<T5> {
        Ok(T5::open_with(&self.encoder, self.variant, weights, runtime)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::warnings::with_warnings;

    /// An encoder that is passed over for another is named, with what is wrong with it.
    #[test]
    fn an_encoder_that_is_passed_over_is_in_the_log() {
        let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("ediffi-core/tests/fixtures/deepfloyd/stage-1");
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("IF-I-XL");
        std::fs::create_dir_all(broken.join("text_encoder")).unwrap();
        std::fs::copy(whole.join("text_encoder/config.json"), broken.join("text_encoder/config.json")).unwrap();
        let first = |folders: [&Path; 2]| with_warnings(|| PublishedText::first(folders.into_iter(), false));
        let (found, warnings) = first([&broken, &whole]);
        assert!(found.unwrap().unwrap().encoder.starts_with(&whole));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(["IF-I-XL", "licence", "stage-1"].iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
        // Nothing is passed over where the first can be used, nor where none can: that is an error.
        let (found, warnings) = first([&whole, &broken]);
        assert!(found.is_ok() && warnings.is_empty(), "{warnings:?}");
        let (found, warnings) = first([&broken, &broken]);
        assert!(found.is_err() && warnings.is_empty(), "{warnings:?}");
    }
}
