//! T5 opened from a folder: texts to embeddings.

use std::path::Path;

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::Scope;
use tch::Tensor;

use super::{T5Config, T5Network};
use crate::batch;
use crate::encoded::{self, Encoded, Filling, finite, parse_config};
use crate::fingerprint::{Fingerprint, Identity};
use crate::tokenizer::TextTokenizer;
use crate::{Error, Result};

/// The name that [`T5Network`] gives to a tensor of a published file; `None` for the decoder's.
#[must_use]
pub fn names(stored: &str) -> Option<String> {
    if stored.starts_with("decoder.") || stored.starts_with("lm_head.") {
        return None;
    }
    // The same table under the other of its two names; a file has either or both.
    Some(if stored == "encoder.embed_tokens.weight" { "shared.weight".to_owned() } else { stored.to_owned() })
}

/// The T5 encoder and its tokenizer.
#[derive(Debug)]
pub struct T5 {
    network: T5Network,
    tokenizer: TextTokenizer,
    identity: Identity,
}

impl T5 {
    /// Opens a folder that holds `config.json`, `model.safetensors` or its shards, and `tokenizer.json` or `spiece.model`
    /// (here or in a folder `tokenizer` beside it). The decoder, if the file has one, is not read.
    ///
    /// Device and precision are those of `runtime`, whatever the file is stored in: each tensor is copied once, straight to
    /// both.
    ///
    /// # Errors
    /// A file that is missing or unreadable; weights or a tokenizer that do not fit the configuration.
    pub fn open(folder: &Path, runtime: Runtime) -> Result<Self> {
        Self::open_variant(folder, None, runtime)
    }

    /// As [`open`](Self::open), from the weights that a folder holds under the name of a `variant`, such as `fp16` for
    /// `model.fp16.safetensors`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_variant(folder: &Path, variant: Option<&str>, runtime: Runtime) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let config = read_config(folder)?;
        let tokenizer = tokenizer(folder, &config)?;
        let identity = Identity::open(folder, variant, names, &config, &tokenizer)?;
        tracing::debug!(folder = %folder.display(), ?runtime, "opening t5");
        let build = |scope: Scope<'_>| T5Network::new(scope, &config, runtime.kind);
        let network = identity.weights().build(runtime.device, runtime.kind, build)?;
        Ok(Self { network, tokenizer, identity })
    }

    /// What tells the model in a folder from others, without loading it: see [`Fingerprint`].
    ///
    /// # Errors
    /// A file that is missing or unreadable.
    pub fn fingerprint(folder: &Path, variant: Option<&str>) -> Result<Fingerprint> {
        let config = read_config(folder)?;
        let tokenizer = tokenizer(folder, &config)?;
        Identity::open(folder, variant, names, &config, &tokenizer)?.fingerprint().cloned()
    }

    /// What tells this model from others: [`Encoded::save`] keeps embeddings under it.
    ///
    /// It is found when it is first asked for, which takes about as long as reading the table of words.
    ///
    /// # Errors
    /// [`Error::WeightsChanged`](crate::Error::WeightsChanged): a file of the weights was written to in its place since the model was opened. One that was
    /// replaced by another, as programs do that write a new file and rename it, does no harm.
    pub fn model(&self) -> Result<&Fingerprint> {
        self.identity.fingerprint()
    }

    /// The dimensions of the network.
    #[must_use]
    pub fn config(&self) -> &T5Config {
        self.network.config()
    }

    /// The tokenizer, for token counts without embeddings.
    #[must_use]
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Embeds texts, each cut or filled up to `tokens` tokens. Embeddings stay on the device of the network.
    ///
    /// Texts of similar length are computed together, without the filling: a text's embedding does not depend on its
    /// neighbours (but for rounding), and a short text costs what its own tokens cost.
    ///
    /// # Shapes
    /// → `Encoded::tokens` [texts, tokens, d_model]
    ///
    /// # Errors
    /// As [`TextTokenizer::encode`]; an embedding that is not finite (f16 can overflow); an error of libtorch.
    pub fn encode(&self, texts: &[&str], tokens: i64) -> Result<Encoded> {
        let _guard = tch::no_grad_guard();
        let cut = self.tokenizer.encode(texts, tokens)?;
        let device = self.network.device();
        let [tokens] = batch::run(&cut, device, |ids, mask| Ok([self.network.forward(ids, mask)?]))?;
        let mask = cut.mask.f_to_device(device)?;
        let (tokens, filling) = (finite(tokens, WHAT)?, Filling::Zeros);
        Ok(Encoded { tokens, filling, mask, spans: cut.spans, truncated: cut.truncated })
    }

    /// As [`encode`](Self::encode), but with the embeddings that the network itself gives to the filling, where `encode`
    /// has zeros. Networks trained on all columns without a mask, such as DeepFloyd IF's, want these.
    ///
    /// # Shapes
    /// → `Encoded::tokens` [texts, tokens, d_model]
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_filled(&self, texts: &[&str], tokens: i64) -> Result<Encoded> {
        let _guard = tch::no_grad_guard();
        let cut = self.tokenizer.encode(texts, tokens)?;
        let device = self.network.device();
        let mask = cut.mask.f_to_device(device)?;
        let ids = cut.ids.f_to_device(device)?;
        // One by one, so that a row does not depend on its neighbours even where libtorch picks another kernel for more.
        let rows = (0..texts.len() as i64)
            .map(|row| Ok(self.network.forward(&ids.f_narrow(0, row, 1)?, &mask.f_narrow(0, row, 1)?)?))
            .collect::<Result<Vec<Tensor>>>()?;
        let (tokens, filling) = (finite(Tensor::f_cat(&rows, 0)?, WHAT)?, Filling::Embedded);
        Ok(Encoded { tokens, filling, mask, spans: cut.spans, truncated: cut.truncated })
    }
}

/// What the errors call it.
const WHAT: &str = "the T5 embedding (f16 can overflow: use bf16 or f32)";

/// The configuration in a folder.
pub(crate) fn read_config(folder: &Path) -> Result<T5Config> {
    let path = folder.join("config.json");
    // mT5 is T5 v1.1 with another vocabulary.
    let json = encoded::read_config(&path, &["t5", "mt5"], "t5 or mt5")?;
    let config: T5Config = parse_config(&path, json)?;
    config.validate().map_err(Error::from)?;
    Ok(config)
}

fn tokenizer(folder: &Path, config: &T5Config) -> Result<TextTokenizer> {
    TextTokenizer::t5(folder, config.eos_token_id, config.pad_token_id, config.vocab_size)
}
