//! The frozen encoders, and captions as their tokens.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{self, Scope};
use ediffi_encoders::clip::{CHANNEL_MEAN, CHANNEL_STD, Clip, ClipTextNetwork, ClipVisionNetwork};
use ediffi_encoders::t5::{T5Config, T5Network};
use ediffi_encoders::tokenizer::{TextTokenizer, Tokens};
use tch::{Kind, Tensor};
use train_icons::dimensions::TOKENS;

use super::Result;
use super::batches::Captions;

/// Pictures in [-1, 1] as CLIP's image tower takes them.
pub fn clip_pixels(pictures: &Tensor) -> Result<Tensor> {
    let channel = |values: [f64; 3]| -> Result<Tensor> {
        Ok(Tensor::f_from_slice(&values.map(|value| value as f32))?
            .f_reshape([1, 3, 1, 1])?
            .f_to_device(pictures.device())?)
    };
    let unit = pictures.f_add_scalar(1.0)?.f_div_scalar(2.0)?;
    Ok(unit.f_sub(&channel(CHANNEL_MEAN)?)?.f_div(&channel(CHANNEL_STD)?)?)
}

/// The network that `build` makes of exported weights.
pub fn load<N>(
    path: &Path,
    Runtime { device, kind }: Runtime,
    build: impl Fn(Scope<'_>) -> ediffi_core::Result<N>,
) -> Result<N> {
    Ok(weights::load(path, |name| Some(name.to_owned()), device, kind, build)?)
}

/// T5, trained or under training, with its tokenizer.
pub struct T5 {
    /// The network.
    pub network: T5Network,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
}

impl T5 {
    /// Embeddings of tokens, zeros past the end, with their gradients.
    pub fn embed(&self, tokens: &Tokens) -> Result<Tensor> {
        let device = self.network.device();
        let mask = tokens.mask.f_to_device(device)?;
        let out = self.network.forward(&tokens.ids.f_to_device(device)?, &mask)?;
        Ok(out.f_mul(&mask.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?)?)
    }
}

/// Both encoders, frozen.
pub struct Encoders {
    clip_text: ClipTextNetwork,
    clip_vision: ClipVisionNetwork,
    clip_tokenizer: TextTokenizer,
    t5: T5,
}

impl Encoders {
    /// Opens the folders that the trainings of both exported.
    pub fn open(clip: &Path, t5: &Path, runtime: Runtime) -> Result<Self> {
        let config = Clip::read_config(clip)?;
        let vision = config.vision_config.clone().ok_or("the CLIP has no image tower")?;
        let (clip_text, clip_vision) = load(&clip.join("model.safetensors"), runtime, |mut scope| {
            let text =
                ClipTextNetwork::new(scope.again(), &config.text_config, Some(config.projection_dim), runtime.kind)?;
            Ok((text, ClipVisionNetwork::new(scope, &vision, Some(config.projection_dim), runtime.kind)?))
        })?;
        let vocabulary = config.text_config.vocab_size;
        let clip_tokenizer = TextTokenizer::clip(&clip.join("tokenizer.json"), vocabulary, TOKENS)?;
        let config = ediffi_encoders::T5::read_config(t5)?;
        let build = |scope: Scope<'_>| T5Network::new(scope, &config, runtime.kind);
        let network = load(&t5.join("model.safetensors"), runtime, build)?;
        let t5 = T5 { network, tokenizer: t5_tokenizer(t5, &config)? };
        Ok(Self { clip_text, clip_vision, clip_tokenizer, t5 })
    }

    /// The embeddings of a batch, zeros past the end of a caption. Rows without a reference have zeros for one.
    pub fn encode(&self, batch: &Captions) -> Result<Conditioning> {
        let _no_grad = tch::no_grad_guard();
        let texts: Vec<&str> = batch.captions.iter().map(String::as_str).collect();
        let device = self.clip_text.device();
        let tokens = self.clip_tokenizer.encode(&texts, TOKENS)?;
        let clip = self.clip_text.forward(&tokens.ids.f_to_device(device)?)?;
        let mask = tokens.mask.f_to_device(device)?.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?;
        let clip_image = match &batch.references {
            None => None,
            Some((rows, references)) => {
                let embedded = self.clip_vision.forward(&clip_pixels(&references.f_to_device(device)?)?)?;
                let rows = Tensor::f_from_slice(rows)?.f_to_device(device)?;
                let zeros = Tensor::f_zeros(clip.pooled.size(), (Kind::Float, device))?;
                Some(zeros.f_index_copy(0, &rows, &embedded)?)
            }
        };
        Ok(Conditioning {
            t5: Some(self.t5.embed(&self.t5.tokenizer.encode(&texts, TOKENS)?)?),
            clip_text: Some(clip.tokens.f_mul(&mask)?),
            clip_text_pooled: Some(clip.pooled),
            clip_image,
            ..Conditioning::default()
        })
    }
}

/// T5's tokenizer in `folder`.
pub fn t5_tokenizer(folder: &Path, config: &T5Config) -> Result<TextTokenizer> {
    let path = folder.join("tokenizer.json");
    Ok(TextTokenizer::t5(&path, config.eos_token_id, config.pad_token_id, config.vocab_size)?)
}
