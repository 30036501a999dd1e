//! The dimensions of a T5 encoder, as its published `config.json` holds them.

use ediffi_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The dimensions of a T5 encoder: the keys of a published `config.json` that the encoder needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// Rows of the embedding table. There may be more than the tokenizer has tokens.
    pub vocab_size: i64,
    /// Width of a token embedding.
    pub d_model: i64,
    /// Width of one attention head. `num_heads` · `d_kv` need not be `d_model`.
    pub d_kv: i64,
    /// Inner width of the feed-forward layers.
    pub d_ff: i64,
    /// Blocks of the encoder.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: i64,
    /// Buckets of relative positions, for both directions together (default: 32).
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: i64,
    /// Distance from which all positions share a bucket (default: 128).
    #[serde(default = "max_distance")]
    pub relative_attention_max_distance: i64,
    /// Epsilon of the norms (default: 1e-6).
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f64,
    /// Kind of the feed-forward layers.
    #[serde(default)]
    pub feed_forward_proj: FeedForwardKind,
    /// Id of the token that pads a text (default: 0).
    #[serde(default)]
    pub pad_token_id: i64,
    /// Id of the token that ends a text (default: 1).
    #[serde(default = "eos")]
    pub eos_token_id: i64,
}

/// Kind of the feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FeedForwardKind {
    /// wo(relu(wi x)): the first T5, and the default.
    #[default]
    #[serde(rename = "relu")]
    Relu,
    /// wo(gelu(wi₀ x) · wi₁ x) with gelu by tanh (Shazeer 2020): T5 v1.1, Flan-T5.
    #[serde(rename = "gated-gelu")]
    GatedGelu,
}

fn buckets() -> i64 {
    32
}
fn max_distance() -> i64 {
    128
}
fn epsilon() -> f64 {
    1e-6
}
fn eos() -> i64 {
    1
}

/// Keys of T5's files that change no embedding: what training and the decoder see.
pub(super) const WITHOUT_EFFECT: [&str; 3] = ["classifier_dropout", "dropout_rate", "n_positions"];

/// Keys that say again, or in the words of other models, what the keys that are read say: each with the one value that fits.
pub(super) fn fixed(config: &T5Config) -> Vec<(&'static str, Value)> {
    let (activation, gated) = match config.feed_forward_proj {
        FeedForwardKind::Relu => ("relu", false),
        FeedForwardKind::GatedGelu => ("gelu_new", true),
    };
    vec![
        ("dense_act_fn", json!(activation)),
        ("is_gated_act", json!(gated)),
        ("hidden_size", json!(config.d_model)),
        ("head_dim", json!(config.d_kv)),
        ("num_attention_heads", json!(config.num_heads)),
        ("num_hidden_layers", json!(config.num_layers)),
    ]
}

impl T5Config {
    /// Checks that the dimensions make a network.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming the first field that does not fit.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &'static str, reason: String| Err(Error::NetworkConfig { field, reason });
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_heads", self.num_heads),
        ] {
            if !(1..=1 << 20).contains(&value) {
                return wrong(field, format!("{value} is not between 1 and 2^20"));
            }
        }
        if !(1..=256).contains(&self.num_layers) {
            return wrong("num_layers", format!("{} is not between 1 and 256", self.num_layers));
        }
        let buckets = self.relative_attention_num_buckets;
        if !(4..=1 << 16).contains(&buckets) || buckets % 4 != 0 {
            return wrong("relative_attention_num_buckets", format!("{buckets} is no multiple of 4 up to 2^16"));
        }
        let distance = self.relative_attention_max_distance;
        if distance <= buckets / 4 {
            return wrong("relative_attention_max_distance", format!("{distance} is not above {}", buckets / 4));
        }
        if !(self.layer_norm_epsilon > 0.0 && self.layer_norm_epsilon.is_finite()) {
            return wrong("layer_norm_epsilon", format!("{} is not positive", self.layer_norm_epsilon));
        }
        Ok(())
    }
}
