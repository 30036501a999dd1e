//! T5 as DeepFloyd IF reads it: of every text all 77 positions, those of the padding included.

use std::path::{Path, PathBuf};

use ediffi_core::denoiser::is_finite;
use ediffi_core::runtime::Runtime;
use ediffi_core::weights as core_weights;
use ediffi_encoders::{T5Config, T5Network, TextTokenizer, t5};
use tch::{Device, Kind, Tensor};

use super::{unusable, weights};
use crate::embeddings::EncodedTokens;
use crate::{Error, Result, files};

/// The encoder of a published folder, looked at and not loaded.
#[derive(Debug, Clone)]
pub(crate) struct PublishedText {
    pub(crate) config: T5Config,
    /// The file of the tokenizer.
    pub(crate) tokenizer: PathBuf,
    weights: PathBuf,
}

impl PublishedText {
    /// The encoder of `folder`, if it has one.
    pub(crate) fn find(folder: &Path, half: bool) -> Result<Option<Self>> {
        let encoder = folder.join("text_encoder");
        let path = encoder.join("config.json");
        if !path.is_file() {
            return Ok(None);
        }
        let config: T5Config = serde_json::from_str(&files::read_text(&path)?)
            .map_err(|source| Error::Json { path: path.clone(), source })?;
        let weights = weights::find(&encoder, "model", half)?;
        let names = ["tokenizer/tokenizer.json", "tokenizer/spiece.model"];
        let Some(tokenizer) = names.iter().map(|name| folder.join(name)).find(|path| path.is_file()) else {
            return Err(unusable(folder, "it has neither tokenizer/tokenizer.json nor tokenizer/spiece.model"));
        };
        Ok(Some(Self { config, tokenizer, weights }))
    }

    pub(crate) fn open_tokenizer(&self) -> ediffi_encoders::Result<TextTokenizer> {
        let T5Config { eos_token_id, pad_token_id, vocab_size, .. } = self.config;
        TextTokenizer::t5(&self.tokenizer, eos_token_id, pad_token_id, vocab_size)
    }

    pub(crate) fn load(&self, runtime: Runtime) -> Result<FilledT5> {
        let Runtime { device, kind } = runtime;
        let network = core_weights::load(&self.weights, t5::names, device, kind, |scope| {
            T5Network::new(scope, &self.config, kind)
        })?;
        Ok(FilledT5 { network, tokenizer: self.open_tokenizer()?, device })
    }
}

/// T5 in memory.
#[derive(Debug)]
pub(crate) struct FilledT5 {
    network: T5Network,
    tokenizer: TextTokenizer,
    device: Device,
}

impl FilledT5 {
    /// The embeddings of all positions. Texts do not attend to the padding, but the padding to the text.
    ///
    /// `aligned`: whether characters of `text` are those of the prompt, so that tokens can be found by words.
    pub(crate) fn encode(&self, text: &str, tokens: i64, aligned: bool) -> Result<EncodedTokens> {
        let mut cut = self.tokenizer.encode(&[text], tokens)?;
        let ids = cut.ids.f_to_device(self.device)?;
        let embedded = self.network.forward(&ids, &cut.mask)?;
        let embedded = embedded.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        finite(&embedded)?;
        let mut spans = cut.spans.pop().unwrap_or_default();
        if !aligned {
            spans.fill(None);
        }
        Ok(EncodedTokens { tokens: embedded, spans })
    }
}

fn finite(embedded: &Tensor) -> Result<()> {
    if is_finite(embedded)? {
        return Ok(());
    }
    let what = "the T5 embedding (f16 overflows: use bf16 or f32, or a file that was not converted to f16)".to_owned();
    Err(ediffi_core::Error::NotFinite { what }.into())
}
