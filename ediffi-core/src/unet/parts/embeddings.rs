//! From embeddings to the tokens of cross-attention and the pooled vector (eDiff-I §4.2).

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::conditioning::Conditioning;
use crate::nn::{LayerNorm, Linear};
use crate::unet::context::{ContextSource, Encoded};
use crate::unet::io::{ClipText, EmbeddingShapes, Tokens};
use crate::weights::{Init, Scope};
use crate::{Error, Result};

/// What a network is conditioned on (eDiff-I §4.2). The network takes no encoder that is absent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextConfig {
    /// Common width that every embedding is projected to.
    pub width: i64,
    /// T5 tokens.
    #[serde(default)]
    pub t5: Option<Tokens>,
    /// CLIP text tokens and pooled embedding.
    #[serde(default)]
    pub clip_text: Option<ClipText>,
    /// Width of CLIP's projected image embedding: one token, and added to the noise embedding.
    #[serde(default)]
    pub clip_image: Option<i64>,
}

impl ContextConfig {
    /// T5-XXL (113 tokens), CLIP L/14 text (77) and image (1): eDiff-I §4.2 and its published encoders' widths. The common
    /// width of 1024 is not in the paper.
    pub const EDIFFI: Self = Self {
        width: 1024,
        t5: Some(Tokens { tokens: 113, width: 4096 }),
        clip_text: Some(ClipText { tokens: 77, width: 768, pooled: 768 }),
        clip_image: Some(768),
    };

    /// The embeddings and their shapes.
    #[must_use]
    pub fn shapes(self) -> EmbeddingShapes {
        let Self { t5, clip_text, clip_image, .. } = self;
        EmbeddingShapes { t5, clip_text, clip_image }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let text = self.clip_text.map_or([1, 1, 1], |c| [c.tokens, c.width, c.pooled]);
        let t5 = self.t5.map_or([1, 1], |t| [t.tokens, t.width]);
        let mut all = text.into_iter().chain(t5).chain([self.width, self.clip_image.unwrap_or(1)]);
        if all.any(|v| !(1..=1 << 20).contains(&v)) {
            let reason = "every width and number of tokens has to be between 1 and 2^20".to_owned();
            return Err(Error::NetworkConfig { field: "context", reason });
        }
        Ok(())
    }
}

/// Projects every embedding to the widths of the network. An absent embedding enters as zeros.
#[derive(Debug)]
pub struct EmbeddingProjections {
    config: ContextConfig,
    t5: Option<Linear>,
    clip_text: Option<Linear>,
    clip_text_pooled: Option<Linear>,
    clip_image: Option<Linear>,
    clip_image_pooled: Option<Linear>,
    null: Tensor,
    norm: LayerNorm,
}

impl EmbeddingProjections {
    /// Tokens of `config.width`, and pooled vectors of `embedding_width`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, config: ContextConfig, embedding_width: i64, eps: f64) -> Result<Self> {
        let width = config.width;
        let mut project = |name: &str, from: Option<i64>, to: i64| -> Result<Option<Linear>> {
            from.map(|from| Linear::new(scope.at(name), from, to)).transpose()
        };
        Ok(Self {
            config,
            t5: project("t5", config.t5.map(|t| t.width), width)?,
            clip_text: project("clip_text", config.clip_text.map(|c| c.width), width)?,
            clip_text_pooled: project("clip_text_pooled", config.clip_text.map(|c| c.pooled), embedding_width)?,
            clip_image: project("clip_image", config.clip_image, width)?,
            clip_image_pooled: project("clip_image_pooled", config.clip_image, embedding_width)?,
            null: scope.weight("null", &[1, 1, width], Init::Normal { std: 1.0 })?,
            norm: LayerNorm::new(scope.at("norm"), width, eps)?,
        })
    }

    /// The embedding that was given, or zeros, projected.
    fn project(
        &self,
        layer: &Linear,
        name: &'static str,
        given: &Option<Tensor>,
        shape: &[i64],
        kind: Kind,
    ) -> Result<Tensor> {
        let device = self.null.device();
        layer.forward(&match EmbeddingShapes::checked(name, given, shape)? {
            Some(x) => x.f_to_device(device)?.f_to_kind(kind)?,
            None => Tensor::f_zeros(shape, (kind, device))?,
        })
    }

    /// # Shapes
    /// → [rows, tokens, width]: T5 tokens, CLIP text tokens, CLIP image, learned null token
    fn tokens(&self, given: &Conditioning, rows: i64, kind: Kind) -> Result<Tensor> {
        let ContextConfig { width, t5, clip_text, clip_image } = self.config;
        let mut parts = Vec::with_capacity(4);
        if let (Some(layer), Some(t5)) = (&self.t5, t5) {
            parts.push(self.project(layer, "t5", &given.t5, &[rows, t5.tokens, t5.width], kind)?);
        }
        if let (Some(layer), Some(clip)) = (&self.clip_text, clip_text) {
            let shape = [rows, clip.tokens, clip.width];
            parts.push(self.project(layer, "clip_text", &given.clip_text, &shape, kind)?);
        }
        if let (Some(layer), Some(image)) = (&self.clip_image, clip_image) {
            let token = self.project(layer, "clip_image", &given.clip_image, &[rows, image], kind)?;
            parts.push(token.f_unsqueeze(1)?);
        }
        parts.push(self.null.f_to_kind(kind)?.f_expand([rows, 1, width], false)?);
        self.norm.forward(&Tensor::f_cat(&parts, 1)?)
    }

    /// # Shapes
    /// → [rows, embedding width]
    fn pooled(&self, given: &Conditioning, rows: i64, kind: Kind) -> Result<Option<Tensor>> {
        let ContextConfig { clip_text, clip_image, .. } = self.config;
        let text = match (&self.clip_text_pooled, clip_text) {
            (Some(layer), Some(clip)) => {
                let shape = [rows, clip.pooled];
                Some(self.project(layer, "clip_text_pooled", &given.clip_text_pooled, &shape, kind)?)
            }
            _ => None,
        };
        let image = match (&self.clip_image_pooled, clip_image) {
            (Some(layer), Some(width)) => {
                Some(self.project(layer, "clip_image", &given.clip_image, &[rows, width], kind)?)
            }
            _ => None,
        };
        Ok(match (text, image) {
            (Some(text), Some(image)) => Some(text.f_add(&image)?),
            (text, image) => text.or(image),
        })
    }
}

impl ContextSource for EmbeddingProjections {
    fn encode(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Encoded> {
        let ContextConfig { t5, clip_text, .. } = self.config;
        let text_columns = t5.map_or(0, |t| t.tokens) + clip_text.map_or(0, |c| c.tokens);
        let pooled = self.pooled(conditioning, rows, kind)?;
        Ok(Encoded { pooled, tokens: self.tokens(conditioning, rows, kind)?, text_columns })
    }
}
