//! The frozen encoders, and captions as their tokens.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::files::read_json;
use ediffi_core::runtime::Runtime;
use ediffi_core::weights;
use ediffi_encoders::clip::{CHANNEL_MEAN, CHANNEL_STD, ClipConfig, ClipTextNetwork, ClipVisionNetwork};
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

/// CLIP after its training.
pub struct Clip {
    text: ClipTextNetwork,
    vision: ClipVisionNetwork,
    tokenizer: TextTokenizer,
}

impl Clip {
    /// Opens the folder that the training of CLIP exported.
    pub fn open(folder: &Path, runtime: Runtime) -> Result<Self> {
        let config: ClipConfig = read_json(&folder.join("config.json"))?;
        let vision = config.vision_config.clone().ok_or("the CLIP has no image tower")?;
        let path = folder.join("model.safetensors");
        let both = weights::load(
            &path,
            |n| Some(n.to_owned()),
            runtime.device,
            runtime.kind,
            |mut scope| {
                let text = ClipTextNetwork::new(
                    scope.again(),
                    &config.text_config,
                    Some(config.projection_dim),
                    runtime.kind,
                )?;
                let vision = ClipVisionNetwork::new(scope.again(), &vision, Some(config.projection_dim), runtime.kind)?;
                Ok((text, vision))
            },
        )?;
        let tokenizer = TextTokenizer::clip(&folder.join("tokenizer.json"), config.text_config.vocab_size, TOKENS)?;
        Ok(Self { text: both.0, vision: both.1, tokenizer })
    }

    /// Token embeddings (zeros past the end) and pooled embeddings of captions.
    pub fn encode(&self, captions: &[String]) -> Result<(Tensor, Tensor)> {
        let _no_grad = tch::no_grad_guard();
        let texts: Vec<&str> = captions.iter().map(String::as_str).collect();
        let tokens = self.tokenizer.encode(&texts, TOKENS)?;
        let device = self.text.device();
        let out = self.text.forward(&tokens.ids.f_to_device(device)?)?;
        let mask = tokens.mask.f_to_device(device)?.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?;
        Ok((out.tokens.f_mul(&mask)?, out.pooled))
    }

    /// Embeddings of pictures in [-1, 1].
    pub fn encode_pictures(&self, pictures: &Tensor) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        Ok(self.vision.forward(&clip_pixels(pictures)?)?)
    }
}

/// T5, trained or under training, with its tokenizer.
pub struct T5 {
    /// The network.
    pub network: T5Network,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
}

impl T5 {
    /// Opens the folder that the training exported.
    pub fn open(folder: &Path, runtime: Runtime) -> Result<Self> {
        let config: T5Config = read_json(&folder.join("config.json"))?;
        let path = folder.join("model.safetensors");
        let network = weights::load(
            &path,
            |n| Some(n.to_owned()),
            runtime.device,
            runtime.kind,
            |scope| T5Network::new(scope, &config, runtime.kind),
        )?;
        Ok(Self { network, tokenizer: t5_tokenizer(folder, &config)? })
    }

    /// Token embeddings of captions, zeros past the end.
    pub fn encode(&self, captions: &[String]) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let texts: Vec<&str> = captions.iter().map(String::as_str).collect();
        self.embed(&self.tokenizer.encode(&texts, TOKENS)?)
    }

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
    clip: Clip,
    t5: T5,
}

impl Encoders {
    /// Opens the folders that the trainings of both exported.
    pub fn open(clip: &Path, t5: &Path, runtime: Runtime) -> Result<Self> {
        Ok(Self { clip: Clip::open(clip, runtime)?, t5: T5::open(t5, runtime)? })
    }

    /// The embeddings of a batch. Rows without a reference have zeros for one.
    pub fn encode(&self, batch: &Captions) -> Result<Conditioning> {
        let (clip_text, pooled) = self.clip.encode(&batch.captions)?;
        let clip_image = match &batch.references {
            None => None,
            Some((rows, references)) => {
                let embedded = self.clip.encode_pictures(&references.f_to_device(pooled.device())?)?;
                let rows = Tensor::f_from_slice(rows)?.f_to_device(pooled.device())?;
                let zeros = Tensor::f_zeros(pooled.size(), (Kind::Float, pooled.device()))?;
                Some(zeros.f_index_copy(0, &rows, &embedded)?)
            }
        };
        Ok(Conditioning {
            t5: Some(self.t5.encode(&batch.captions)?),
            clip_text: Some(clip_text),
            clip_text_pooled: Some(pooled),
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
