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
        clip_text: Some(ClipText { tokens: 77, width: 768, pooled: Some(768) }),
        clip_image: Some(768),
    };

    /// The embeddings and their shapes.
    #[must_use]
    pub fn shapes(self) -> EmbeddingShapes {
        let Self { t5, clip_text, clip_image, .. } = self;
        EmbeddingShapes { t5, clip_text, clip_image, micro: None }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let text = self.clip_text.map_or([1, 1, 1], |c| [c.tokens, c.width, c.pooled.unwrap_or(1)]);
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
    /// Those of tokens, in the order of the columns.
    tokens: Vec<Projection>,
    /// Those of whole texts and pictures, whose sum is the pooled vector.
    pooled: Vec<Projection>,
    null: Tensor,
    norm: LayerNorm,
}

/// The projection of one embedding.
#[derive(Debug)]
struct Projection {
    layer: Linear,
    /// What the embedding is called in a [`Conditioning`].
    name: &'static str,
    /// Its shape but for the rows.
    shape: Vec<i64>,
}

impl EmbeddingProjections {
    /// Tokens of `config.width`, and pooled vectors of `embedding_width`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, config: ContextConfig, embedding_width: i64, eps: f64) -> Result<Self> {
        let ContextConfig { width, t5, clip_text, clip_image } = config;
        let mut project = |parameters: &str, name: &'static str, shape: &[i64], to: i64| -> Result<Projection> {
            let from = shape.last().copied().unwrap_or(0);
            Ok(Projection { layer: Linear::new(scope.at(parameters), from, to)?, name, shape: shape.to_vec() })
        };
        let (mut tokens, mut pooled) = (Vec::with_capacity(3), Vec::with_capacity(2));
        if let Some(t5) = t5 {
            tokens.push(project("t5", "t5", &[t5.tokens, t5.width], width)?);
        }
        if let Some(clip) = clip_text {
            tokens.push(project("clip_text", "clip_text", &[clip.tokens, clip.width], width)?);
            if let Some(width) = clip.pooled {
                pooled.push(project("clip_text_pooled", "clip_text_pooled", &[width], embedding_width)?);
            }
        }
        if let Some(image) = clip_image {
            tokens.push(project("clip_image", "clip_image", &[image], width)?);
            pooled.push(project("clip_image_pooled", "clip_image", &[image], embedding_width)?);
        }
        let null = scope.weight("null", &[1, 1, width], Init::Normal { std: 1.0 })?;
        Ok(Self { config, tokens, pooled, null, norm: LayerNorm::new(scope.at("norm"), width, eps)? })
    }

    /// The embedding that was given, or zeros, projected.
    fn project(&self, projection: &Projection, given: &Conditioning, rows: i64, kind: Kind) -> Result<Tensor> {
        let Projection { layer, name, shape } = projection;
        let (device, shape) = (self.null.device(), [&[rows], &shape[..]].concat());
        let given = given.named().find(|(given, _)| given == name).map(|(_, x)| x);
        layer.forward(&match EmbeddingShapes::checked(name, given, &shape)? {
            Some(x) => x.f_to_device(device)?.f_to_kind(kind)?,
            None => Tensor::f_zeros(shape, (kind, device))?,
        })
    }

    /// # Shapes
    /// → [rows, tokens, width]: T5 tokens, CLIP text tokens, CLIP image, learned null token
    fn tokens(&self, given: &Conditioning, rows: i64, kind: Kind) -> Result<Tensor> {
        let width = self.config.width;
        let token = |part: &Projection| Ok(self.project(part, given, rows, kind)?.f_reshape([rows, -1, width])?);
        let mut parts = self.tokens.iter().map(token).collect::<Result<Vec<_>>>()?;
        parts.push(self.null.f_to_kind(kind)?.f_expand([rows, 1, width], false)?);
        self.norm.forward(&Tensor::f_cat(&parts, 1)?)
    }

    /// # Shapes
    /// → [rows, embedding width]
    fn pooled(&self, given: &Conditioning, rows: i64, kind: Kind) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for part in &self.pooled {
            let projected = self.project(part, given, rows, kind)?;
            sum = Some(match sum {
                Some(sum) => sum.f_add(&projected)?,
                None => projected,
            });
        }
        Ok(sum)
    }
}

impl ContextSource for EmbeddingProjections {
    fn encode(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Encoded> {
        let ContextConfig { t5, clip_text, .. } = self.config;
        let text_columns = t5.map_or(0, |t| t.tokens) + clip_text.map_or(0, |c| c.tokens);
        let pooled = self.pooled(conditioning, rows, kind)?;
        Ok(Encoded { pooled, tokens: self.tokens(conditioning, rows, kind)?, text_columns, mask: None })
    }
}
