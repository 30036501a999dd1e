//! The dimensions of a prior, and reading them in diffusers' format.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::files::read_json;
use crate::nn::Activation;
use crate::published_keys::{Fixed, activation, check_left, wrong};
use crate::{Error, Result};

/// The dimensions of a prior.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriorConfig {
    /// Width of an image embedding, and of a token of the text.
    pub width: i64,
    /// Width of the pooled text.
    pub pooled: i64,
    /// Tokens that a text is padded to.
    pub tokens: i64,
    /// Heads of each attention.
    pub heads: i64,
    /// Channels of a head.
    pub head_channels: i64,
    /// Layers.
    pub layers: usize,
    /// The nonlinearity of the noise embedding.
    pub activation: Activation,
}

/// `PriorTransformer`; a field that a file leaves out has diffusers' default.
#[derive(Deserialize)]
#[serde(default)]
struct Published {
    num_attention_heads: i64,
    attention_head_dim: i64,
    num_layers: usize,
    embedding_dim: i64,
    num_embeddings: i64,
    time_embed_act_fn: String,
    time_embed_dim: Option<i64>,
    embedding_proj_dim: Option<i64>,
    clip_embed_dim: Option<i64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            num_attention_heads: 32,
            attention_head_dim: 64,
            num_layers: 20,
            embedding_dim: 768,
            num_embeddings: 77,
            time_embed_act_fn: "silu".to_owned(),
            time_embed_dim: None,
            embedding_proj_dim: None,
            clip_embed_dim: None,
            others: Map::new(),
        }
    }
}

/// What the priors of other models have otherwise: a field, its default, and the one value that this library computes.
fn fixed() -> [Fixed; 6] {
    [
        ("_class_name", json!("PriorTransformer"), json!("PriorTransformer")),
        // Pooled text, noise level, noisy embedding, and the token that becomes the answer.
        ("additional_embeddings", json!(4), json!(4)),
        ("added_emb_type", json!("prd"), json!("prd")),
        ("embedding_proj_norm_type", json!(null), json!(null)),
        ("encoder_hid_proj_type", json!("linear"), json!("linear")),
        ("norm_in_type", json!(null), json!(null)),
    ]
}

const WITHOUT_EFFECT: [&str; 3] = ["_diffusers_version", "_name_or_path", "dropout"];

impl PriorConfig {
    /// Reads `config.json` of a folder that diffusers saved a prior in.
    ///
    /// # Errors
    /// [`Error::ReadFile`] and [`Error::Json`] naming the file; [`Error::NetworkConfig`] naming the first field that asks for something this
    /// library does not compute.
    pub fn read_published(path: &Path) -> Result<Self> {
        let published: Published = read_json(path)?;
        check_left(&published.others, &fixed(), &WITHOUT_EFFECT)?;
        // As values of their own, nulls are other networks.
        for field in ["added_emb_type", "encoder_hid_proj_type"] {
            if published.others.get(field).is_some_and(Value::is_null) {
                return wrong(field, "null: a prior without this part is not supported");
            }
        }
        let config = Self {
            width: published.embedding_dim,
            pooled: published.embedding_proj_dim.unwrap_or(published.embedding_dim),
            tokens: published.num_embeddings,
            heads: published.num_attention_heads,
            head_channels: published.attention_head_dim,
            layers: published.num_layers,
            activation: activation("time_embed_act_fn", &published.time_embed_act_fn)?,
        };
        config.validate()?;
        for (field, found, supported) in [
            ("time_embed_dim", published.time_embed_dim, config.inner()),
            // What is drawn goes into the next step.
            ("clip_embed_dim", published.clip_embed_dim, config.width),
        ] {
            if let Some(found) = found.filter(|found| *found != supported) {
                return wrong(field, format!("{found} is not supported, only {supported} or null"));
            }
        }
        Ok(config)
    }

    /// Width of a token inside.
    #[must_use]
    pub fn inner(&self) -> i64 {
        self.heads.saturating_mul(self.head_channels)
    }

    /// Checks that the dimensions make a network.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming the first field that does not fit.
    pub fn validate(&self) -> Result<()> {
        let layers = i64::try_from(self.layers).unwrap_or(i64::MAX);
        for (field, value, most) in [
            ("embedding_dim", self.width, 1 << 20),
            ("embedding_proj_dim", self.pooled, 1 << 20),
            ("num_embeddings", self.tokens, 1 << 20),
            ("num_attention_heads", self.heads, 1 << 20),
            ("attention_head_dim", self.inner(), 1 << 20),
            ("num_layers", layers, 256),
        ] {
            if !(1..=most).contains(&value) {
                return wrong(field, format!("{value} is not between 1 and {most}"));
            }
        }
        if self.inner() % 2 != 0 {
            let reason = format!("{} channels are odd; the noise embedding has as many sines as cosines", self.inner());
            return Err(Error::NetworkConfig { field: "attention_head_dim", reason });
        }
        Ok(())
    }
}
