//! DeepFloyd IF's layout: what its networks do differently from eDiff-I's, as numbers and switches.
//!
//! The blocks are those of ADM. In the place of two kinds of attention stands one, in which pixels attend to the text and
//! to each other at once; the text also enters through the noise embedding, pooled by attention. Parameters carry the
//! names of diffusers' `UNet2DConditionModel`, so that published files load as they are.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::config::UNetConfig;
use crate::nn::Norm;
use crate::{Error, Result};

/// Groups of the norm over the text in front of keys and values (diffusers' `Attention`: its
/// `cross_attention_norm_num_groups` is 32 and no configuration sets another).
pub(super) const TEXT_NORM_GROUPS: i64 = 32;

/// Tokens that DeepFloyd IF pads every text to. Its networks see all of them: the group norm over the text has statistics
/// over the padding too, so another length gives other pictures.
pub const TEXT_TOKENS: i64 = 77;

/// The nonlinearity of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Activation {
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x) with the exact normal distribution, not its approximation by tanh.
    Gelu,
}

impl Activation {
    pub(super) fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Silu => x.f_silu()?,
            Self::Gelu => x.f_gelu("none")?,
        })
    }
}

/// The switches of DeepFloyd IF's layout. A level's `cross_attention` says whether it has attention at all, its
/// `self_attention` whether the pixels are among what that attention sees; the context is T5 alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeepFloyd {
    /// Whether the output has three more channels, which say where between its bounds the variance of a DDPM step lies.
    pub variance: bool,
    /// Whether the network is told how noisy the smaller picture has been made.
    pub noise_level: bool,
    /// The nonlinearity of the blocks and of the first linear map of an embedding.
    pub activation: Activation,
    /// The nonlinearity of the finished noise embedding.
    pub embedding_activation: Activation,
    /// Epsilon of the norms of residual blocks and of the last one; that of attention is always 1e-5.
    pub norm_eps: f64,
    /// What the sum at the end of a residual block is divided by.
    pub residual_scale: f64,
    /// The same for the two blocks of the middle.
    pub middle_scale: f64,
    /// Whether the attention of the middle sees the pixels.
    pub middle_self_attention: bool,
    /// Heads of the attention that pools the text.
    pub text_heads: i64,
}

impl DeepFloyd {
    /// Checks what these switches ask of the other dimensions.
    pub(super) fn validate(&self, config: &UNetConfig) -> Result<()> {
        let wrong = |field: &'static str, reason: &str| Err(Error::NetworkConfig { field, reason: reason.to_owned() });
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(self.norm_eps) || !positive(self.residual_scale) || !positive(self.middle_scale) {
            return wrong("layout", "norm_eps, residual_scale and middle_scale have to be positive and finite");
        }
        if config.patch != 1 {
            return wrong("patch", "this layout has no patches");
        }
        if !matches!(config.norm, Norm::Group(_)) {
            return wrong("norm", "this layout has group norms");
        }
        if self.noise_level && !config.low_res {
            return wrong("low_res", "a network that is told the noise level of a smaller picture needs one");
        }
        if config.levels.iter().any(|level| level.self_attention && !level.cross_attention) {
            return wrong("levels", "attention of this layout always sees the text");
        }
        if config.width(config.levels.len() - 1) % config.head_channels != 0 {
            return wrong(
                "head_channels",
                "it does not divide the channels of the last level, whose middle has attention",
            );
        }
        let Some(context) = config.context else { return wrong("context", "this layout takes T5") };
        let Some(t5) = context.t5.filter(|_| context.clip_text.is_none() && context.clip_image.is_none()) else {
            return wrong("context", "this layout takes T5 and nothing else");
        };
        if context.width % TEXT_NORM_GROUPS != 0 {
            return wrong("context", "32 groups have to divide its width");
        }
        if self.text_heads < 1 || t5.width % self.text_heads != 0 {
            return wrong("layout", "text_heads has to divide the width of T5");
        }
        Ok(())
    }
}
