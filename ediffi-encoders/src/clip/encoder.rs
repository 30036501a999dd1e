//! Both halves of CLIP opened from one folder.

use std::path::{Path, PathBuf};

use ediffi_core::runtime::Runtime;
use tch::Tensor;

use super::config::ClipConfig;
use super::file;
use super::halves::{ClipText, ClipVision};
use crate::encoded::EncodedClip;
use crate::fingerprint::Fingerprint;
use crate::tokenizer::TextTokenizer;
use crate::{Error, Result};

/// Both halves of CLIP, with the tokenizer and the preprocessing of pictures.
#[derive(Debug)]
pub struct Clip {
    folder: PathBuf,
    config: ClipConfig,
    text: ClipText,
    vision: Option<ClipVision>,
}

impl Clip {
    /// Opens a folder with `config.json`, `model.safetensors` or its shards, and `tokenizer.json` or `vocab.json` with
    /// `merges.txt` (here or in a folder `tokenizer` beside it). A `processor_config.json` or `preprocessor_config.json` says how
    /// pictures are prepared; without them, they are prepared as for OpenAI's models.
    ///
    /// [`ClipText`] and [`ClipVision`] open folders of one half alone.
    ///
    /// # Errors
    /// A file is missing or unreadable; weights, tokenizer or preprocessing do not fit the configuration.
    pub fn open(folder: &Path, runtime: Runtime) -> Result<Self> {
        Self::open_variant(folder, None, runtime)
    }

    /// As [`open`](Self::open), but reads the weights of a `variant`, such as `fp16` for `model.fp16.safetensors`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_variant(folder: &Path, variant: Option<&str>, runtime: Runtime) -> Result<Self> {
        let config = Self::read_config(folder)?;
        let text = ClipText::open_variant(folder, variant, runtime)?;
        let open = || ClipVision::open_variant(folder, variant, runtime);
        let vision = config.vision_config.as_ref().map(|_| open()).transpose()?;
        Ok(Self { folder: folder.to_owned(), config, text, vision })
    }

    /// Reads the `config.json` of a folder. Each of its keys is read, or known to be without effect on embeddings.
    ///
    /// # Errors
    /// A file that is missing, unreadable or of another architecture; [`Error::Setting`] for a key that would change embeddings and is
    /// not followed; dimensions that make no network.
    pub fn read_config(folder: &Path) -> Result<ClipConfig> {
        file::both(folder)
    }

    /// The fingerprint of the text half in a folder, without loading it.
    ///
    /// # Errors
    /// A file is missing or unreadable.
    pub fn fingerprint(folder: &Path, variant: Option<&str>) -> Result<Fingerprint> {
        ClipText::fingerprint(folder, variant)
    }

    /// The fingerprint of the text half: see [`ClipText::model`].
    ///
    /// # Errors
    /// As [`ClipText::model`].
    pub fn model(&self) -> Result<&Fingerprint> {
        self.text.model()
    }

    /// The dimensions of both halves.
    #[must_use]
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The tokenizer, for example to count tokens.
    #[must_use]
    pub fn tokenizer(&self) -> &TextTokenizer {
        self.text.tokenizer()
    }

    /// Embeds texts: see [`ClipText::encode`].
    ///
    /// # Shapes
    /// → `EncodedClip::tokens` [texts, tokens, width], `EncodedClip::pooled` [texts, projection]
    ///
    /// # Errors
    /// As [`ClipText::encode`].
    pub fn encode_text(&self, texts: &[&str], tokens: i64) -> Result<EncodedClip> {
        self.text.encode(texts, tokens)
    }

    /// Embeds pictures of any size: see [`ClipVision::encode`].
    ///
    /// # Shapes
    /// each picture: [3, height, width] RGB, u8 or f32 in [0, 1] (see [`picture`](super::picture) and
    /// [`rgb8`](super::rgb8)) → [n, projection] f32
    ///
    /// # Errors
    /// [`Error::NoVision`] for a model without a picture half, or as [`ClipVision::encode`].
    pub fn encode_image(&self, pictures: &[Tensor]) -> Result<Tensor> {
        let vision = self.vision.as_ref().ok_or_else(|| Error::NoVision(self.folder.clone()))?;
        vision.encode(pictures)
    }
}
