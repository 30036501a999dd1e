//! Transformers over the positions of a map (diffusers' `Transformer2DModel`): a map into them, blocks, and a map out of them.
//!
//! The three are blocks of the network of their own, so that each attention to the text has its keys and values.

use tch::{Kind, Tensor};

use super::attention::Heads;
use super::pixels::Pixels;
use crate::nn::{
    Activation, Conv2d, LayerNorm, Linear, MapNorm, Norm, add_to, attend, attend_biased_masked, attend_masked, chunks,
    map_to_tokens, merge_heads, split_heads, tokens_to_map,
};
use crate::unet::pass::{Block, KeysValues, Pass};
use crate::weights::{Init, Scope};
use crate::{Error, Result};

/// Epsilon of the norm before a transformer. That of residual blocks is another one.
const MAP_EPS: f64 = 1e-6;

/// Epsilon of the norms inside.
const TOKEN_EPS: f64 = 1e-5;

/// How many times as wide as a token the hidden layer is.
const EXPANSION: i64 = 4;

/// The dimensions and choices of a transformer.
#[derive(Debug, Clone, Copy)]
pub struct TransformerConfig {
    /// Channels of the map.
    pub width: i64,
    /// Width of the conditioning tokens.
    pub context_width: i64,
    /// Heads of both attentions.
    pub heads: i64,
    /// Whether a network in f16 attends in f32. (Its scores overflow in f16; bf16 has the range of f32.)
    pub upcast: bool,
}

/// What leads into a transformer or out of it: files hold it as a linear map or as a 1×1 convolution.
#[derive(Debug)]
enum Projection {
    Linear(Linear),
    Conv(Conv2d),
}

impl Projection {
    fn new(scope: Scope<'_>, width: i64, linear: bool) -> Result<Self> {
        Ok(match linear {
            true => Self::Linear(Linear::new(scope, width, width)?),
            false => Self::Conv(Conv2d::new(scope, width, width, 1)?),
        })
    }

    fn forward(&self, h: &Tensor) -> Result<Tensor> {
        match self {
            Self::Linear(map) => tokens_to_map(&map.forward(&map_to_tokens(h)?)?, h),
            Self::Conv(conv) => conv.forward(h),
        }
    }
}

/// Keeps the map for the residual, norms and maps it.
#[derive(Debug)]
pub struct TransformerIn {
    norm: MapNorm,
    projection: Projection,
}

impl TransformerIn {
    /// Over maps of `width` channels; `linear`: as [`TransformerOut::new`].
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, width: i64, norm: Norm, linear: bool) -> Result<Self> {
        let norm = MapNorm::new(scope.at("norm"), norm, width, MAP_EPS)?;
        Ok(Self { norm, projection: Projection::new(scope.at("proj_in"), width, linear)? })
    }
}

impl Block for TransformerIn {
    fn forward(&self, h: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        pass.push(&h);
        self.projection.forward(&self.norm.forward(&h)?)
    }
}

/// Maps what the blocks give and adds it to the map that [`TransformerIn`] kept.
#[derive(Debug)]
pub struct TransformerOut(Projection);

impl TransformerOut {
    /// Over maps of `width` channels; `linear`: whether the file holds a linear map, and not a 1×1 convolution.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(scope: Scope<'_>, width: i64, linear: bool) -> Result<Self> {
        Ok(Self(Projection::new(scope, width, linear)?))
    }
}

impl Block for TransformerOut {
    fn forward(&self, h: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        add_to(self.0.forward(&h)?, &pass.pop()?)
    }
}

/// Positions attend to each other, then to the conditioning tokens, then each goes through a gated layer, GEGLU (Shazeer 2020, "GLU
/// Variants Improve Transformer"); a layer norm before each, and the input added after it (diffusers' `BasicTransformerBlock`).
#[derive(Debug)]
pub struct TransformerBlock {
    norm1: LayerNorm,
    pixels: Pixels,
    out1: Linear,
    norm2: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out2: Linear,
    norm3: LayerNorm,
    expand: Linear,
    contract: Linear,
    heads: i64,
    upcast: bool,
}

impl TransformerBlock {
    /// Builds the block.
    ///
    /// # Errors
    /// Parameters that cannot be had, heads that do not divide the channels.
    pub fn new(mut scope: Scope<'_>, config: TransformerConfig) -> Result<Self> {
        let TransformerConfig { width, context_width, heads, upcast } = config;
        let map = |scope: Scope<'_>, from: i64, to: i64| Linear::without_bias(scope, from, to, Init::fan_in(from));
        Ok(Self {
            norm1: LayerNorm::new(scope.at("norm1"), width, TOKEN_EPS)?,
            pixels: Pixels::new(scope.at("attn1"), width, true, map)?,
            out1: Linear::zeroed(scope.at("attn1.to_out.0"), width, width)?,
            norm2: LayerNorm::new(scope.at("norm2"), width, TOKEN_EPS)?,
            q: map(scope.at("attn2.to_q"), width, width)?,
            k: map(scope.at("attn2.to_k"), context_width, width)?,
            v: map(scope.at("attn2.to_v"), context_width, width)?,
            out2: Linear::zeroed(scope.at("attn2.to_out.0"), width, width)?,
            norm3: LayerNorm::new(scope.at("norm3"), width, TOKEN_EPS)?,
            expand: Linear::new(scope.at("ff.net.0.proj"), width, 2 * EXPANSION * width)?,
            contract: Linear::zeroed(scope.at("ff.net.2"), EXPANSION * width, width)?,
            heads: Heads::Count(heads).count(width)?,
            upcast,
        })
    }

    /// Queries, keys or values by heads, in the precision of the attention.
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        let x = if self.upcast && x.kind() == Kind::Half { &x.f_to_kind(Kind::Float)? } else { x };
        split_heads(x, self.heads)
    }

    /// The attention of the positions to each other, before it is added.
    fn to_pixels(&self, x: &Tensor) -> Result<Tensor> {
        let (q, own) = self.pixels.forward(&self.norm1.forward(x)?)?;
        let [k, v] = own.ok_or(Error::Internal("a transformer does not see the pixels"))?;
        let attended = attend(&self.split(&q)?, &self.split(&k)?, &self.split(&v)?)?;
        self.out1.forward(&merge_heads(&attended)?.f_to_kind(x.kind())?)
    }

    /// The attention to the tokens of the conditioning, before it is added.
    fn to_text(&self, x: &Tensor, size: (i64, i64), pass: &Pass<'_>) -> Result<Tensor> {
        let KeysValues { keys, values } = pass.keys_values()?;
        let q = self.split(&self.q.forward(&self.norm2.forward(x)?)?)?;
        let attended = match pass.painted {
            Some(painted) => attend_biased_masked(&q, keys, values, size, pass.text_columns, pass.mask, painted)?,
            None => attend_masked(&q, keys, values, pass.mask)?,
        };
        self.out2.forward(&merge_heads(&attended)?.f_to_kind(x.kind())?)
    }
}

impl Block for TransformerBlock {
    fn prepare(&self, tokens: &Tensor) -> Result<Option<KeysValues>> {
        let split = |layer: &Linear| -> Result<Tensor> { Ok(self.split(&layer.forward(tokens)?)?.f_contiguous()?) };
        Ok(Some(KeysValues { keys: split(&self.k)?, values: split(&self.v)? }))
    }

    fn forward(&self, h: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let (_, _, height, width) = h.size4()?;
        let x = map_to_tokens(&h)?;
        let x = add_to(self.to_pixels(&x)?, &x)?;
        let x = add_to(self.to_text(&x, (height, width), pass)?, &x)?;
        let [value, gate] = chunks(&self.expand.forward(&self.norm3.forward(&x)?)?, -1)?;
        let gated = value.f_mul(&Activation::Gelu.apply(&gate)?)?;
        tokens_to_map(&add_to(self.contract.forward(&gated)?, &x)?, &h)
    }
}
