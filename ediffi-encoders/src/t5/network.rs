//! The T5 encoder: token ids to one embedding per token.

use ediffi_core::Result;
use ediffi_core::nn::{Embedding, RmsNorm, merge_heads, split_heads};
use ediffi_core::weights::{Init, Role, Scope};
use tch::{Device, Kind, Tensor};

use super::bucket;
use super::config::{FeedForwardKind, T5Config};
use super::product::{Product, T5Weights};

/// The encoder of T5. Parameters are named as in published files: `shared.weight`, `encoder.block.0...`.
///
/// The residual stream stays in f32, whatever the precision of the network: in the large models it leaves the range of f16,
/// and `transformers` clamps it. Results in f16 are clamped to its range here, too.
#[derive(Debug)]
pub struct T5Network {
    config: T5Config,
    kind: Kind,
    embedding: Embedding,
    relative_bias: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
}

#[derive(Debug)]
struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl T5Network {
    /// Builds the network from its parameters. It computes in the precision `kind`.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`](ediffi_core::Error::NetworkConfig) for dimensions that make no network, or the errors of
    /// `scope`.
    pub fn new(scope: Scope<'_>, config: &T5Config, kind: Kind) -> Result<Self> {
        Self::with_weights(scope, config, kind, T5Weights::Full)
    }

    /// As [`new`](Self::new), with the weights held as `weights` says. With those of eight bits it computes in bf16.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_weights(mut scope: Scope<'_>, config: &T5Config, kind: Kind, weights: T5Weights) -> Result<Self> {
        config.validate()?;
        let kind = weights.computes_in(kind);
        let (width, eps) = (config.d_model, config.layer_norm_epsilon);
        // Start values: Raffel et al. as in the Mesh TensorFlow code; embeddings have standard deviation 1.
        let embedding = Embedding::new(scope.at("shared"), config.vocab_size, width, 1.0)?;
        let mut encoder = scope.at("encoder");
        // The bias stands in the first block of the file; all blocks use it.
        let relative_bias = Embedding::new(
            encoder.at("block.0.layer.0.SelfAttention.relative_attention_bias"),
            config.relative_attention_num_buckets,
            config.num_heads,
            (width as f64).powf(-0.5),
        )?;
        let mut blocks = Vec::with_capacity(config.num_layers);
        for index in 0..config.num_layers {
            let mut block = encoder.at(&format!("block.{index}"));
            blocks.push(Block {
                attention: Attention::new(block.at("layer.0.SelfAttention"), config, weights)?,
                attention_norm: RmsNorm::new(block.at("layer.0.layer_norm"), width, eps)?,
                feed_forward: FeedForward::new(block.at("layer.1.DenseReluDense"), config, kind, weights)?,
                feed_forward_norm: RmsNorm::new(block.at("layer.1.layer_norm"), width, eps)?,
            });
        }
        let norm = RmsNorm::new(encoder.at("final_layer_norm"), width, eps)?;
        Ok(Self { config: config.clone(), kind, embedding, relative_bias, blocks, norm })
    }

    /// The dimensions it was built from.
    #[must_use]
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// The device of the network.
    #[must_use]
    pub fn device(&self) -> Device {
        self.embedding.weight().device()
    }

    /// Embeds texts. No token attends to the positions that `mask` leaves out; their own embeddings mean nothing.
    ///
    /// # Shapes
    /// `ids`: [n, tokens] i64, `mask`: [n, tokens] bool, or numbers, 0 for positions to leave out
    /// → [n, tokens, d_model] f32
    ///
    /// # Errors
    /// An id outside the table, or shapes that do not fit.
    pub fn forward(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        self.run(ids, mask, |_| {})
    }

    /// The residual stream before the first block and after each block, without the final norm.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward) → `num_layers` + 1 times [n, tokens, d_model] f32
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn hidden_states(&self, ids: &Tensor, mask: &Tensor) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.blocks.len() + 1);
        let _ = self.run(ids, mask, |state| states.push(state.shallow_clone()))?;
        Ok(states)
    }

    fn run(&self, ids: &Tensor, mask: &Tensor, mut seen: impl FnMut(&Tensor)) -> Result<Tensor> {
        let (_, tokens) = ids.size2()?;
        let bias = self.bias(tokens, mask)?;
        let mut h = self.embedding.forward(ids)?.f_to_kind(Kind::Float)?;
        seen(&h);
        for block in &self.blocks {
            let x = block.attention_norm.forward(&h)?.f_to_kind(self.kind)?;
            h = h.f_add(&block.attention.forward(&x, &bias)?.f_to_kind(Kind::Float)?)?;
            let x = block.feed_forward_norm.forward(&h)?.f_to_kind(self.kind)?;
            h = h.f_add(&block.feed_forward.forward(&x)?.f_to_kind(Kind::Float)?)?;
            seen(&h);
        }
        self.norm.forward(&h)
    }

    /// What is added to the attention scores of every block: the bias of relative positions, and the mask.
    ///
    /// # Shapes
    /// `mask`: [n, tokens] → [n, heads, tokens, tokens]
    fn bias(&self, tokens: i64, mask: &Tensor) -> Result<Tensor> {
        let config = &self.config;
        let (buckets, distance) = (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        let table = bucket::table(tokens, buckets, distance, self.device())?;
        let bias = self.relative_bias.forward(&table)?.f_permute([2, 0, 1])?.f_unsqueeze(0)?;
        // The lowest finite number and not minus infinity: a row that attends to nothing must not become NaN.
        let lowest = match self.kind {
            Kind::Half => -GREATEST_F16,
            _ => f64::from(f32::MIN) / 2.0,
        };
        let left_out = mask.f_to_device(self.device())?.f_eq(0)?.f_unsqueeze(1)?.f_unsqueeze(1)?;
        Ok(bias.f_to_kind(Kind::Float)?.f_masked_fill(&left_out, lowest)?.f_to_kind(self.kind)?)
    }
}

/// Attention of all tokens to each other. Scores are not divided by √d: the start values of q make up for it.
#[derive(Debug)]
struct Attention {
    q: Product,
    k: Product,
    v: Product,
    o: Product,
    heads: i64,
}

impl Attention {
    fn new(mut scope: Scope<'_>, config: &T5Config, weights: T5Weights) -> Result<Self> {
        let (width, inner) = (config.d_model, config.num_heads * config.d_kv);
        let mut product = |name: &str, sides: (i64, i64), fan_in: i64| {
            Product::new(scope.at(name), sides, Init::fan_in(fan_in), weights, Role::Weight)
        };
        Ok(Self {
            q: product("q", (width, inner), width * config.d_kv)?,
            k: product("k", (width, inner), width)?,
            v: product("v", (width, inner), width)?,
            o: product("o", (inner, width), inner)?,
            heads: config.num_heads,
        })
    }

    /// # Shapes
    /// `x`: [n, tokens, d_model], `bias`: [n, heads, tokens, tokens] → as `x`
    fn forward(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let q = split_heads(&self.q.forward(x)?, self.heads)?;
        let k = split_heads(&self.k.forward(x)?, self.heads)?;
        let v = split_heads(&self.v.forward(x)?, self.heads)?;
        let attended = Tensor::f_scaled_dot_product_attention(&q, &k, &v, Some(bias), 0.0, false, Some(1.0), false)?;
        in_range(self.o.forward(&merge_heads(&attended)?)?)
    }
}

/// Clamps `x` to the range of f16 if it is in f16, as `transformers` does (its issue 4586).
fn in_range(x: Tensor) -> Result<Tensor> {
    Ok(if x.kind() == Kind::Half { x.f_clamp(-GREATEST_F16, GREATEST_F16)? } else { x })
}

const GREATEST_F16: f64 = 65504.0;

#[derive(Debug)]
struct FeedForward {
    inner: Inner,
    /// In f32 if the network is in f16: its products leave the range of f16 (transformers, pull request 20287).
    out: Product,
}

#[derive(Debug)]
enum Inner {
    Relu(Product),
    GatedGelu(Product, Product),
}

impl FeedForward {
    fn new(mut scope: Scope<'_>, config: &T5Config, kind: Kind, weights: T5Weights) -> Result<Self> {
        let (width, hidden) = (config.d_model, config.d_ff);
        let mut product = |name: &str, sides: (i64, i64), role: Role| {
            Product::new(scope.at(name), sides, Init::fan_in(sides.0), weights, role)
        };
        let inner = match config.feed_forward_proj {
            FeedForwardKind::Relu => Inner::Relu(product("wi", (width, hidden), Role::Weight)?),
            FeedForwardKind::GatedGelu => Inner::GatedGelu(
                product("wi_0", (width, hidden), Role::Weight)?,
                product("wi_1", (width, hidden), Role::Weight)?,
            ),
        };
        let role = if kind == Kind::Half { Role::F32 } else { Role::Weight };
        Ok(Self { inner, out: product("wo", (hidden, width), role)? })
    }

    /// # Shapes
    /// `x`: [n, tokens, d_model] → the same, in f32 if `x` is in f16
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let kind = if x.kind() == Kind::Half { Kind::Float } else { x.kind() };
        let hidden = match &self.inner {
            Inner::Relu(wi) => in_range(wi.forward(x)?)?.f_relu()?.f_to_kind(kind)?,
            Inner::GatedGelu(gate, value) => {
                let gate = in_range(gate.forward(x)?)?.f_gelu("tanh")?.f_to_kind(kind)?;
                gate.f_mul(&in_range(value.forward(x)?)?.f_to_kind(kind)?)?
            }
        };
        self.out.forward(&hidden)
    }
}
