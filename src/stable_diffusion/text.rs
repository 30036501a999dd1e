//! CLIP as Stable Diffusion reads it: of every text all 77 positions, those of the padding included.

use std::path::{Path, PathBuf};

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{self, Lora, LoraFile, LoraPart, Original, WeightsFile};
use ediffi_encoders::clip::text_names;
use ediffi_encoders::{ClipText, ClipTextConfig, EncodedClip, TextTokenizer};
use tch::Tensor;

use crate::published;
use crate::{Error, Result};

/// What to do where weights are missing.
pub(super) const ADVICE: &str = "Download";

/// Which layer of an encoder the networks see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// The last, after the final norm (Stable Diffusion 1 and 2; of the latter's encoder the file leaves the last layer out).
    Last,
    /// The last but one, without a norm (SDXL).
    Penultimate,
}

/// One text encoder of a published folder, looked at and not loaded.
#[derive(Debug, Clone)]
pub(crate) struct PublishedClip {
    folder: PathBuf,
    /// The name of the weights' variant, if it is one.
    variant: Option<&'static str>,
    /// The checkpoint that the weights are a part of, if it is one.
    checkpoint: Option<(PathBuf, Original)>,
    pub(crate) config: ClipTextConfig,
    /// Width of the space that the text is projected into, by files that project it.
    pub(crate) projection: i64,
    pub(crate) layer: Layer,
    /// The token that pads texts.
    padding: i64,
    /// What is merged into the weights.
    loras: Vec<(Lora, LoraPart)>,
}

/// What the files of an encoder say of texts, its weights aside.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    layer: Layer,
    config: ClipTextConfig,
    padding: i64,
}

impl PublishedClip {
    /// The encoder in the folder `part` of `folder`; of a checkpoint the weights are those of this embedder of its conditioner.
    pub(super) fn find(
        folder: &Path,
        (part, layer): (&str, Layer),
        half: bool,
        checkpoint: Option<(&Path, Option<usize>)>,
    ) -> Result<Self> {
        let encoder = folder.join(part);
        if !encoder.join("config.json").is_file() {
            return Err(published::unusable(
                folder,
                format!("it has no {part}/config.json: the text encoder is needed"),
            ));
        }
        let (config, projection) = ClipText::read_config(&encoder).map_err(Error::of_config)?;
        let checkpoint = checkpoint.map(|(file, embedder)| -> Result<_> {
            let part = Original::Text { embedder, layers: config.num_hidden_layers };
            ClipText::check_original(file, part, &encoder).map_err(Error::of_config)?;
            Ok((file.to_owned(), part))
        });
        let checkpoint = checkpoint.transpose()?;
        let variant = if checkpoint.is_some() {
            None
        } else {
            let file = published::weights::find(&encoder, "model", half, ADVICE)?;
            let half = published::weights::HALF;
            file.file_name().is_some_and(|name| name.to_string_lossy().contains(half)).then_some(half)
        };
        let padding = tokenizer(&encoder, &config)?.padding();
        Ok(Self { folder: encoder, variant, checkpoint, config, projection, layer, padding, loras: Vec::new() })
    }

    pub(crate) fn open_tokenizer(&self) -> ediffi_encoders::Result<TextTokenizer> {
        tokenizer(&self.folder, &self.config)
    }

    pub(crate) fn reading(&self) -> Reading {
        let Self { layer, config, padding, .. } = self;
        // Files of one encoder name its end in two ways, as `ClipTextConfig` says.
        let config = ClipTextConfig { eos_token_id: 0, ..config.clone() };
        Reading { layer: *layer, config, padding: *padding }
    }

    /// The file of the weights.
    pub(crate) fn weights(&self) -> Result<PathBuf> {
        match &self.checkpoint {
            Some((file, _)) => Ok(file.clone()),
            None => Ok(weights::find(&self.folder, self.variant)?),
        }
    }

    /// Merges LoRAs into the weights when they are loaded: of each what it has for `part`. Whether they fit is looked at now.
    pub(super) fn merge(&mut self, part: LoraPart, loras: Vec<Lora>) -> Result<()> {
        if loras.is_empty() {
            return Ok(());
        }
        let mut file = match &self.checkpoint {
            Some((file, part)) => WeightsFile::original(file, *part, text_names)?,
            None => WeightsFile::open(&self.weights()?, text_names)?,
        };
        for lora in loras {
            file.change(&LoraFile::open(&lora)?, part)?;
            self.loras.push((lora, part));
        }
        Ok(())
    }

    /// What is merged into the weights.
    pub(crate) fn loras(&self) -> impl Iterator<Item = &Lora> {
        self.loras.iter().map(|(lora, _)| lora)
    }

    pub(crate) fn load(&self, runtime: Runtime) -> ediffi_encoders::Result<ClipText> {
        match &self.checkpoint {
            Some((file, part)) => ClipText::open_original(file, *part, &self.folder, &self.loras, runtime),
            None => ClipText::open_padded_with(&self.folder, self.variant, &self.loras, runtime),
        }
    }

    /// What the networks see of a text.
    pub(crate) fn seen(&self, encoded: &EncodedClip) -> Tensor {
        match self.layer {
            Layer::Last => encoded.tokens.shallow_clone(),
            Layer::Penultimate => encoded.penultimate.shallow_clone(),
        }
    }
}

/// The tokenizer of the encoder in `folder`.
fn tokenizer(folder: &Path, config: &ClipTextConfig) -> ediffi_encoders::Result<TextTokenizer> {
    TextTokenizer::clip_padded(folder, config.vocab_size, config.max_position_embeddings)
}
