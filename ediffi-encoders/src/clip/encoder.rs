//! CLIP opened from a folder: texts and pictures to embeddings.

use std::path::{Path, PathBuf};

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{Names, WeightsFile};
use tch::Tensor;

use super::{ClipConfig, ClipTextNetwork, ClipVisionNetwork, Preprocess};
use crate::encoded::{EncodedClip, finite, masked, read_json};
use crate::tokenizer::TextTokenizer;
use crate::{Error, Result};

/// The name that [`ClipTextNetwork`] gives to a tensor of a published file; `None` for tensors it has no use for.
///
/// Files of the text half alone, written by newer versions of `transformers`, lack the prefix `text_model`.
#[must_use]
pub fn text_names(stored: &str) -> Option<String> {
    half(stored, "text_model.", "text_projection.", ["embeddings.", "encoder.", "final_layer_norm."])
}

/// The name that [`ClipVisionNetwork`] gives to a tensor of a published file; `None` for tensors it has no use for.
///
/// Files of the picture half alone, written by newer versions of `transformers`, lack the prefix `vision_model`.
#[must_use]
pub fn vision_names(stored: &str) -> Option<String> {
    let bare = half(stored, "vision_model.", "visual_projection.", ["embeddings.", "encoder.", "post_layernorm."]);
    bare.or_else(|| stored.starts_with("pre_layrnorm.").then(|| format!("vision_model.{stored}")))
}

fn half(stored: &str, prefix: &str, projection: &str, bare: [&str; 3]) -> Option<String> {
    // A buffer of older files: 0, 1, 2, ...
    if stored.ends_with(".position_ids") {
        return None;
    }
    if stored.starts_with(prefix) || stored.starts_with(projection) {
        return Some(stored.to_owned());
    }
    bare.iter().any(|start| stored.starts_with(start)).then(|| format!("{prefix}{stored}"))
}

/// Both halves of CLIP, the tokenizer and the preparation of pictures.
#[derive(Debug)]
pub struct Clip {
    folder: PathBuf,
    config: ClipConfig,
    tokenizer: TextTokenizer,
    text: ClipTextNetwork,
    vision: Option<(ClipVisionNetwork, Preprocess)>,
}

impl Clip {
    /// Opens a folder that holds `config.json`, `tokenizer.json`, `model.safetensors` or its shards and, if pictures are not
    /// prepared as OpenAI's models want them, `preprocessor_config.json`.
    ///
    /// # Errors
    /// A file that is missing or unreadable; weights, a tokenizer or a preparation of pictures that do not fit the
    /// configuration.
    pub fn open(folder: &Path, runtime: Runtime) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let config: ClipConfig = read_json(&folder.join("config.json"))?;
        config.validate()?;
        let text = &config.text_config;
        let path = folder.join("tokenizer.json");
        let tokenizer = TextTokenizer::clip(&path, text.vocab_size, text.max_position_embeddings)?;
        check_end(&path, &tokenizer, text.eos_token_id)?;
        tracing::debug!(folder = %folder.display(), ?runtime, "opening clip");
        let file = |names: Names| WeightsFile::open(folder, names);
        let (device, kind, width) = (runtime.device, runtime.kind, config.projection_dim);
        let text = file(text_names)?
            .build(device, kind, |scope| ClipTextNetwork::new(scope, &config.text_config, width, kind))?;
        let vision = match &config.vision_config {
            None => None,
            Some(vision) => {
                let preprocess = Preprocess::open(&folder.join("preprocessor_config.json"), vision.image_size)?;
                let network = file(vision_names)?
                    .build(device, kind, |scope| ClipVisionNetwork::new(scope, vision, width, kind))?;
                Some((network, preprocess))
            }
        };
        Ok(Self { folder: folder.to_owned(), config, tokenizer, text, vision })
    }

    /// The dimensions of both halves.
    #[must_use]
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The tokenizer, for token counts without embeddings.
    #[must_use]
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Whether pictures can be encoded.
    #[must_use]
    pub fn has_vision(&self) -> bool {
        self.vision.is_some()
    }

    /// Embeds texts, each cut or filled up to `tokens` tokens. Embeddings stay on the device of the network.
    ///
    /// # Errors
    /// As [`TextTokenizer::encode`]; an embedding that is not finite; an error of libtorch.
    pub fn encode_text(&self, texts: &[&str], tokens: i64) -> Result<EncodedClip> {
        let _guard = tch::no_grad_guard();
        let cut = self.tokenizer.encode(texts, tokens)?;
        let output = self.text.forward(&cut.ids.f_to_device(self.text.device())?)?;
        Ok(EncodedClip {
            tokens: masked(&output.tokens, &cut.mask, "the CLIP text embedding")?,
            pooled: finite(output.pooled, "the pooled CLIP text embedding")?,
            spans: cut.spans,
            truncated: cut.truncated,
        })
    }

    /// Embeds pictures of any size: the middle square of each is what the network sees. Embeddings stay on the device of the
    /// network and are not normalised.
    ///
    /// # Shapes
    /// each picture: [3, height, width] RGB, u8 or f32 in [0, 1] (see [`rgb8`](super::rgb8)) → [n, projection] f32
    ///
    /// # Errors
    /// A model without a picture half, no pictures, a tensor that is no picture, or an error of libtorch.
    pub fn encode_image(&self, pictures: &[Tensor]) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let Some((network, preprocess)) = &self.vision else {
            return Err(Error::NoVision { folder: self.folder.clone() });
        };
        if pictures.is_empty() {
            return Err(Error::EmptyBatch { what: "pictures" });
        }
        let prepared = pictures.iter().map(|picture| preprocess.apply(picture)).collect::<Result<Vec<_>>>()?;
        let pixels = Tensor::f_stack(&prepared, 0)?.f_to_device(network.device())?;
        Ok(finite(network.forward(&pixels)?, "the CLIP picture embedding")?)
    }
}

/// Whether the network looks for the end of a text where the tokenizer puts it.
fn check_end(path: &Path, tokenizer: &TextTokenizer, eos: i64) -> Result<()> {
    let reason = if eos == 2 {
        // The network takes the greatest id for the end.
        (tokenizer.end() != tokenizer.greatest())
            .then(|| format!("<|endoftext|> is {}, which is not its greatest id", tokenizer.end()))
    } else {
        (tokenizer.end() != eos).then(|| format!("<|endoftext|> is {}, eos_token_id is {eos}", tokenizer.end()))
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(Error::TokenizerMismatch { path: path.to_owned(), reason }),
    }
}
