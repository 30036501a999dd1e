//! T5 opened from a folder: texts to embeddings.

use std::path::Path;

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::Scope;
use serde_json::{Map, Value};
use tch::{Device, Tensor};

use super::config::{WITHOUT_EFFECT, fixed};
use super::{T5Config, T5Network, T5Weights};
use crate::batch;
use crate::encoded::{self, Encoded, Padding, finite};
use crate::fingerprint::{Fingerprint, Identity};
use crate::tokenizer::TextTokenizer;
use crate::{Error, Result, settings};

/// Maps the name of a tensor in a published file to the name in [`T5Network`]; `None` for tensors of the decoder.
#[must_use]
pub fn names(stored: &str) -> Option<String> {
    if stored.starts_with("decoder.") || stored.starts_with("lm_head.") {
        return None;
    }
    // The table of words has two names; a file has either or both.
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
    /// Opens a folder with `config.json`, `model.safetensors` or its shards, and `tokenizer.json` or `spiece.model` (here or
    /// in a folder `tokenizer` beside it). A decoder in the file is not read.
    ///
    /// Each tensor is copied once, straight to the device and precision of `runtime`, whatever precision the file has.
    ///
    /// # Errors
    /// A file is missing or unreadable; weights or tokenizer do not fit the configuration.
    pub fn open(folder: &Path, runtime: Runtime) -> Result<Self> {
        Self::open_with(folder, None, T5Weights::Full, runtime)
    }

    /// As [`open`](Self::open), but reads the weights of a `variant`, such as `fp16` for `model.fp16.safetensors`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_variant(folder: &Path, variant: Option<&str>, runtime: Runtime) -> Result<Self> {
        Self::open_with(folder, variant, T5Weights::Full, runtime)
    }

    /// As [`open_variant`](Self::open_variant), but holds the weights as `weights` says.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Int8Device`] for weights of eight bits on another device than the CPU.
    pub fn open_with(folder: &Path, variant: Option<&str>, weights: T5Weights, runtime: Runtime) -> Result<Self> {
        if weights == T5Weights::Int8 && runtime.device != Device::Cpu {
            return Err(Error::Int8Device(runtime.device));
        }
        let _guard = tch::no_grad_guard();
        let config = Self::read_config(folder)?;
        let tokenizer = tokenizer(folder, &config)?;
        let identity = Identity::open(folder, variant, names, &config, &tokenizer)?;
        tracing::debug!(folder = %folder.display(), ?runtime, "opening t5");
        let kind = weights.computes_in(runtime.kind);
        let build = |scope: Scope<'_>| T5Network::with_weights(scope, &config, kind, weights);
        let network = identity.weights().build(runtime.device, kind, build)?;
        Ok(Self { network, tokenizer, identity })
    }

    /// Reads the `config.json` of a folder. Each of its keys is read, or known to be without effect on embeddings.
    ///
    /// # Errors
    /// A file that is missing, unreadable or of another architecture; [`Error::Setting`] for a key that would change embeddings and is
    /// not followed; dimensions that make no network.
    pub fn read_config(folder: &Path) -> Result<T5Config> {
        let path = folder.join("config.json");
        // mT5 is T5 v1.1 with another vocabulary, and another kind of feed-forward layers where its file names none.
        let mut json = encoded::read_config(&path, &["t5", "mt5"], "t5 or mt5")?;
        let of_mt5 = |keys: &&mut Map<String, Value>| keys.get("model_type").is_some_and(|kind| kind == "mt5");
        if let Some(keys) = json.as_object_mut().filter(of_mt5) {
            keys.entry("feed_forward_proj").or_insert_with(|| "gated-gelu".into());
        }
        let config: T5Config = settings::parse(&path, json, &WITHOUT_EFFECT, fixed)?;
        config.validate()?;
        Ok(config)
    }

    /// The fingerprint of the model in a folder, without loading it.
    ///
    /// # Errors
    /// A file is missing or unreadable.
    pub fn fingerprint(folder: &Path, variant: Option<&str>) -> Result<Fingerprint> {
        let config = Self::read_config(folder)?;
        let tokenizer = tokenizer(folder, &config)?;
        Identity::open(folder, variant, names, &config, &tokenizer)?.fingerprint().cloned()
    }

    /// The fingerprint of this model. [`Encoded::save`] stores it with embeddings.
    ///
    /// The first call takes about as long as reading the table of words.
    ///
    /// # Errors
    /// [`Error::WeightsChanged`] if a file of the weights was written to in place since the model was opened. A file that
    /// was replaced, by a program that writes a new file and renames it, does no harm.
    pub fn model(&self) -> Result<&Fingerprint> {
        self.identity.fingerprint()
    }

    /// The dimensions of the network.
    #[must_use]
    pub fn config(&self) -> &T5Config {
        self.network.config()
    }

    /// The tokenizer, for example to count tokens.
    #[must_use]
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Embeds texts, each truncated or padded to `tokens` tokens. The embeddings stay on the device of the network; those of
    /// the padding are zero.
    ///
    /// Texts of similar length are computed together, without most of the padding. So the embedding of a text does not depend
    /// on the other texts, except for rounding, and a short text is cheap.
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
        let (tokens, padding) = (finite(tokens, WHAT)?, Padding::Zeros);
        Ok(Encoded { tokens, padding, mask, spans: cut.spans, truncated: cut.truncated })
    }

    /// As [`encode`](Self::encode), but with the network's own embeddings of the padding instead of zeros. Networks that were
    /// trained on all columns without a mask, such as those of DeepFloyd IF, need these.
    ///
    /// # Shapes
    /// → `Encoded::tokens` [texts, tokens, d_model]
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_with_padding(&self, texts: &[&str], tokens: i64) -> Result<Encoded> {
        let _guard = tch::no_grad_guard();
        let cut = self.tokenizer.encode(texts, tokens)?;
        let device = self.network.device();
        let mask = cut.mask.f_to_device(device)?;
        let ids = cut.ids.f_to_device(device)?;
        // One by one, so that a row does not depend on its neighbours even where libtorch picks another kernel for more.
        let rows = (0..texts.len() as i64)
            .map(|row| Ok(self.network.forward(&ids.f_narrow(0, row, 1)?, &mask.f_narrow(0, row, 1)?)?))
            .collect::<Result<Vec<Tensor>>>()?;
        let (tokens, padding) = (finite(Tensor::f_cat(&rows, 0)?, WHAT)?, Padding::Embedded);
        Ok(Encoded { tokens, padding, mask, spans: cut.spans, truncated: cut.truncated })
    }
}

/// The name of the embedding in errors.
const WHAT: &str = "the T5 embedding (f16 can overflow: use bf16 or f32)";

fn tokenizer(folder: &Path, config: &T5Config) -> Result<TextTokenizer> {
    TextTokenizer::t5(folder, config.eos_token_id, config.pad_token_id, config.vocab_size)
}
