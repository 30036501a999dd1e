//! The dimensions of a CLIP model, as its published `config.json` holds them.

use ediffi_core::nn::Activation;
use ediffi_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The dimensions of both halves: the keys of a published `config.json` that the networks need. Keys that the file leaves out have
/// the values of ViT-B/32, as published files expect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipConfig {
    /// The text half.
    pub text_config: ClipTextConfig,
    /// The picture half, if the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision_config: Option<ClipVisionConfig>,
    /// Width of the space that both halves project into.
    #[serde(default = "projection_dim")]
    pub projection_dim: i64,
}

impl ClipConfig {
    /// Checks that the dimensions make a model.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming the first field that does not fit.
    pub fn validate(&self) -> Result<()> {
        in_range("projection_dim", self.projection_dim)?;
        self.text_config.validate()?;
        self.vision_config.as_ref().map_or(Ok(()), ClipVisionConfig::validate)
    }
}

/// The dimensions of the text half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Rows of the embedding table.
    pub vocab_size: i64,
    /// Width of a token embedding.
    pub hidden_size: i64,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// The most tokens of a text.
    pub max_position_embeddings: i64,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// Id of the token that ends a text. OpenAI's files wrongly say 2; then the greatest id of a text ends it.
    pub eos_token_id: i64,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

/// The dimensions of the picture half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of a patch embedding.
    pub hidden_size: i64,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Side of the square picture in pixels.
    pub image_size: i64,
    /// Side of a patch in pixels.
    pub patch_size: i64,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

fn projection_dim() -> i64 {
    512
}

/// The dimensions of a half's transformer.
pub(super) struct Dimensions {
    pub(super) width: i64,
    pub(super) hidden: i64,
    pub(super) layers: usize,
    pub(super) heads: i64,
    pub(super) activation: Activation,
    pub(super) eps: f64,
}

impl ClipTextConfig {
    pub(super) fn dimensions(&self) -> Dimensions {
        Dimensions {
            width: self.hidden_size,
            hidden: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
        }
    }

    /// Checks that the dimensions make a network.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming the first field that does not fit.
    pub fn validate(&self) -> Result<()> {
        in_range("text_config.vocab_size", self.vocab_size)?;
        in_range("text_config.max_position_embeddings", self.max_position_embeddings)?;
        self.dimensions().validate("text_config.num_attention_heads", "text_config")
    }
}

impl ClipVisionConfig {
    pub(super) fn dimensions(&self) -> Dimensions {
        Dimensions {
            width: self.hidden_size,
            hidden: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
        }
    }

    /// Checks that the dimensions make a network.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming the first field that does not fit.
    pub fn validate(&self) -> Result<()> {
        in_range("vision_config.image_size", self.image_size)?;
        in_range("vision_config.patch_size", self.patch_size)?;
        if self.patch_size > self.image_size {
            let reason = format!("{} is larger than the picture, {}", self.patch_size, self.image_size);
            return Err(Error::NetworkConfig { field: "vision_config.patch_size", reason });
        }
        self.dimensions().validate("vision_config.num_attention_heads", "vision_config")
    }
}

impl Dimensions {
    fn validate(&self, heads: &'static str, half: &'static str) -> Result<()> {
        let wrong = |field, reason: String| Err(Error::NetworkConfig { field, reason });
        let layers = i64::try_from(self.layers).unwrap_or(i64::MAX);
        for (name, value, most) in [
            ("hidden_size", self.width, 1 << 20),
            ("intermediate_size", self.hidden, 1 << 20),
            ("num_attention_heads", self.heads, 1 << 20),
            ("num_hidden_layers", layers, 256),
        ] {
            if !(1..=most).contains(&value) {
                return wrong(half, format!("{name} {value} is not between 1 and {most}"));
            }
        }
        if self.width % self.heads != 0 {
            return wrong(heads, format!("{} does not divide hidden_size {}", self.heads, self.width));
        }
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return wrong(half, format!("layer_norm_eps {} is not positive", self.eps));
        }
        Ok(())
    }
}

/// Whether `value` can be a dimension.
pub(super) fn in_range(field: &'static str, value: i64) -> Result<()> {
    if (1..=1 << 20).contains(&value) {
        return Ok(());
    }
    Err(Error::NetworkConfig { field, reason: format!("{value} is not between 1 and 2^20") })
}
