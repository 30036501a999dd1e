//! T5 opened from a folder: texts to embeddings.

use std::path::Path;

use ediffi_core::runtime::Runtime;
use ediffi_core::weights;

use super::{T5Config, T5Network};
use crate::Result;
use crate::encoded::{Encoded, masked, read_json};
use crate::tokenizer::TextTokenizer;

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
}

impl T5 {
    /// Opens a folder that holds `config.json`, `tokenizer.json` and `model.safetensors` or its shards. The decoder, if the
    /// file has one, is not read.
    ///
    /// # Errors
    /// A file that is missing or unreadable; weights or a tokenizer that do not fit the configuration.
    pub fn open(folder: &Path, runtime: Runtime) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let config: T5Config = read_json(&folder.join("config.json"))?;
        config.validate()?;
        let path = folder.join("tokenizer.json");
        let tokenizer = TextTokenizer::t5(&path, config.eos_token_id, config.pad_token_id, config.vocab_size)?;
        tracing::debug!(folder = %folder.display(), ?runtime, "opening t5");
        let network = weights::load(folder, names, runtime.device, runtime.kind, |scope| {
            T5Network::new(scope, &config, runtime.kind)
        })?;
        Ok(Self { network, tokenizer })
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
    /// # Errors
    /// As [`TextTokenizer::encode`]; an embedding that is not finite (f16 can overflow); an error of libtorch.
    pub fn encode(&self, texts: &[&str], tokens: i64) -> Result<Encoded> {
        let _guard = tch::no_grad_guard();
        let cut = self.tokenizer.encode(texts, tokens)?;
        let ids = cut.ids.f_to_device(self.network.device())?;
        let embedded = self.network.forward(&ids, &cut.mask)?;
        let tokens = masked(&embedded, &cut.mask, "the T5 embedding")?;
        Ok(Encoded { tokens, spans: cut.spans, truncated: cut.truncated })
    }
}
