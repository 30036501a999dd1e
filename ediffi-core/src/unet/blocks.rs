//! The blocks of the U-Net.

use tch::Tensor;

use super::deepfloyd::Activation;
use super::network::Painted;
use crate::Result;
use crate::nn::{Conv2d, Linear, MapNorm, Norm, attend, attend_biased, channels_last, merge_heads, split_heads};
use crate::weights::Scope;

/// ADM's and EDM's epsilon of norms.
pub(super) const EPS: f64 = 1e-5;

/// Change of resolution inside a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resample {
    Keep,
    Halve,
    Double,
}

impl Resample {
    pub(super) fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Keep => x.shallow_clone(),
            Self::Halve => x.f_avg_pool2d([2], [2], [0], false, true, None)?,
            Self::Double => {
                let (_, _, h, w) = x.size4()?;
                x.f_upsample_nearest2d([2 * h, 2 * w], None, None)?
            }
        })
    }
}

/// What differs between the residual blocks of the layouts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) activation: Activation,
    pub(super) eps: f64,
    /// What the sum at the end is divided by.
    pub(super) scale: f64,
    /// Names of the projection of the noise embedding and of the convolution that widens the input.
    pub(super) names: [&'static str; 2],
}

impl Style {
    /// eDiff-I's blocks.
    pub(super) const EDIFFI: Self =
        Self { activation: Activation::Silu, eps: EPS, scale: 1.0, names: ["embedding", "skip"] };
}

/// ADM's residual block: the noise embedding scales and shifts the second norm.
#[derive(Debug)]
pub(super) struct ResBlock {
    norm1: MapNorm,
    conv1: Conv2d,
    embedding: Linear,
    norm2: MapNorm,
    conv2: Conv2d,
    skip: Option<Conv2d>,
    resample: Resample,
    style: Style,
}

impl ResBlock {
    pub(super) fn new(
        mut scope: Scope<'_>,
        (inputs, outputs): (i64, i64),
        embedding_width: i64,
        norm: Norm,
        resample: Resample,
        style: Style,
    ) -> Result<Self> {
        let [embedding, skip] = style.names;
        Ok(Self {
            norm1: MapNorm::new(scope.at("norm1"), norm, inputs, style.eps)?,
            conv1: Conv2d::new(scope.at("conv1"), inputs, outputs, 3)?,
            embedding: Linear::new(scope.at(embedding), embedding_width, 2 * outputs)?,
            norm2: MapNorm::new(scope.at("norm2"), norm, outputs, style.eps)?,
            conv2: Conv2d::zeroed(scope.at("conv2"), outputs, outputs, 3)?,
            skip: (inputs != outputs).then(|| Conv2d::new(scope.at(skip), inputs, outputs, 1)).transpose()?,
            resample,
            style,
        })
    }

    /// # Shapes
    /// `x`: [n, inputs, h, w], `embedding` (after its activation): [n, embedding width] → [n, outputs, h', w']
    pub(super) fn forward(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let activation = self.style.activation;
        let h = self.resample.apply(&activation.apply(&self.norm1.forward(x)?)?)?;
        let h = self.conv1.forward(&h)?;
        let scale_shift = self.embedding.forward(embedding)?.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        let mut halves = scale_shift.f_chunk(2, 1)?.into_iter();
        let h = self.norm2.forward(&h)?;
        let h = match (halves.next(), halves.next()) {
            (Some(scale), Some(shift)) => shift.f_addcmul(&h, &scale.f_add_scalar(1.0)?)?,
            _ => h,
        };
        let h = self.conv2.forward(&activation.apply(&h)?)?;
        let x = self.resample.apply(x)?;
        let sum = match &self.skip {
            Some(skip) => skip.forward(&x)?.f_add(&h)?,
            None => x.f_add(&h)?,
        };
        // A division that changes nothing would still take its time.
        if self.style.scale == 1.0 { Ok(sum) } else { Ok(sum.f_div_scalar(self.style.scale)?) }
    }
}

/// Pixels attend to each other.
#[derive(Debug)]
pub(super) struct SelfAttention {
    norm: MapNorm,
    qkv: Linear,
    out: Linear,
    heads: i64,
}

impl SelfAttention {
    pub(super) fn new(mut scope: Scope<'_>, width: i64, head_channels: i64, norm: Norm) -> Result<Self> {
        Ok(Self {
            norm: MapNorm::new(scope.at("norm"), norm, width, EPS)?,
            qkv: Linear::new(scope.at("qkv"), width, 3 * width)?,
            out: Linear::zeroed(scope.at("out"), width, width)?,
            heads: width / head_channels,
        })
    }

    /// # Shapes
    /// `x`: [n, width, h, w] → the same
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let qkv = self.qkv.forward(&as_tokens(&self.norm.forward(x)?)?)?;
        let parts = qkv.f_chunk(3, -1)?;
        let [q, k, v] = parts.as_slice() else {
            return Ok(x.shallow_clone());
        };
        let attended =
            attend(&split_heads(q, self.heads)?, &split_heads(k, self.heads)?, &split_heads(v, self.heads)?)?;
        Ok(x.f_add(&as_map(&self.out.forward(&merge_heads(&attended)?)?, x)?)?)
    }
}

/// Pixels attend to the conditioning tokens.
#[derive(Debug)]
pub(super) struct CrossAttention {
    norm: MapNorm,
    q: Linear,
    kv: Linear,
    out: Linear,
    heads: i64,
}

impl CrossAttention {
    pub(super) fn new(
        mut scope: Scope<'_>,
        width: i64,
        context_width: i64,
        head_channels: i64,
        norm: Norm,
    ) -> Result<Self> {
        Ok(Self {
            norm: MapNorm::new(scope.at("norm"), norm, width, EPS)?,
            q: Linear::new(scope.at("q"), width, width)?,
            kv: Linear::new(scope.at("kv"), context_width, 2 * width)?,
            out: Linear::zeroed(scope.at("out"), width, width)?,
            heads: width / head_channels,
        })
    }

    /// Keys and values of the conditioning tokens.
    ///
    /// # Shapes
    /// `tokens`: [rows, tokens, context width] → two of [rows, heads, tokens, d]
    pub(super) fn keys_values(&self, tokens: &Tensor) -> Result<(Tensor, Tensor)> {
        let kv = self.kv.forward(tokens)?;
        let half = kv.size().last().copied().unwrap_or(0) / 2;
        let k = split_heads(&kv.f_narrow(-1, 0, half)?, self.heads)?;
        let v = split_heads(&kv.f_narrow(-1, half, half)?, self.heads)?;
        Ok((k.f_contiguous()?, v.f_contiguous()?))
    }

    /// # Shapes
    /// `x`: [n, width, h, w] → the same
    pub(super) fn forward(
        &self,
        x: &Tensor,
        (k, v): &(Tensor, Tensor),
        text_columns: i64,
        painted: Option<Painted<'_>>,
    ) -> Result<Tensor> {
        let (_, _, height, width) = x.size4()?;
        let q = split_heads(&self.q.forward(&as_tokens(&self.norm.forward(x)?)?)?, self.heads)?;
        let attended = match painted {
            Some(p) if text_columns > 0 && p.conditional > 0 => {
                attend_biased(&q, k, v, (height, width), text_columns, p.conditional, p.sigma, p.hook)?
            }
            _ => attend(&q, k, v)?,
        };
        Ok(x.f_add(&as_map(&self.out.forward(&merge_heads(&attended)?)?, x)?)?)
    }
}

/// [n, c, h, w] → [n, h·w, c]; free for a channels-last map.
pub(super) fn as_tokens(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.size4()?;
    Ok(x.f_permute([0, 2, 3, 1])?.f_reshape([n, h * w, c])?)
}

/// [n, h·w, c] → the shape of `like`, channels-last.
pub(super) fn as_map(tokens: &Tensor, like: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = like.size4()?;
    Ok(tokens.f_reshape([n, h, w, c])?.f_permute([0, 3, 1, 2])?)
}

/// Enlargement by pixel repetition followed by a convolution (Efficient U-Net).
#[derive(Debug)]
pub(super) struct Upsample(pub(super) Conv2d);

impl Upsample {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(&channels_last(&Resample::Double.apply(x)?)?)
    }
}
