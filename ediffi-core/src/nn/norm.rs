//! Norms. Their statistics are f32 inside libtorch's kernels whatever the precision of the input.

use tch::{Kind, Tensor};

use crate::Result;
use crate::weights::{Init, Scope};

/// Group normalisation (Wu & He 2018).
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// `groups` has to divide `channels`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, channels: i64, groups: i64, eps: f64) -> Result<Self> {
        let weight = scope.norm("weight", &[channels], Init::Ones)?;
        Ok(Self { weight, bias: scope.norm("bias", &[channels], Init::Zeros)?, groups, eps })
    }

    /// # Shapes
    /// `x`: [n, channels, ...] → the same
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let kind = x.kind();
        let (weight, bias) = (self.weight.f_to_kind(kind)?, self.bias.f_to_kind(kind)?);
        Ok(x.f_group_norm(self.groups, Some(&weight), Some(&bias), self.eps, true)?)
    }
}

/// Layer normalisation over the last axis (Ba et al. 2016).
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    /// Over `width` features.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, width: i64, eps: f64) -> Result<Self> {
        let weight = scope.norm("weight", &[width], Init::Ones)?;
        Ok(Self { weight, bias: scope.norm("bias", &[width], Init::Zeros)?, width, eps })
    }

    /// # Shapes
    /// `x`: [..., width] → the same
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let kind = x.kind();
        let (weight, bias) = (self.weight.f_to_kind(kind)?, self.bias.f_to_kind(kind)?);
        Ok(x.f_layer_norm([self.width], Some(&weight), Some(&bias), self.eps, true)?)
    }
}

/// Root-mean-square normalisation (Zhang & Sennrich 2019), as T5 has it: no mean, no bias.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Over `width` features.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, width: i64, eps: f64) -> Result<Self> {
        Ok(Self { weight: scope.norm("weight", &[width], Init::Ones)?, eps })
    }

    /// # Shapes
    /// `x`: [..., width] → the same
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.f_to_kind(Kind::Float)?;
        let mean_square = wide.f_square()?.f_mean_dim(-1_i64, true, Kind::Float)?;
        let normed = wide.f_mul(&mean_square.f_add_scalar(self.eps)?.f_rsqrt()?)?;
        Ok(normed.f_to_kind(x.kind())?.f_mul(&self.weight.f_to_kind(x.kind())?)?)
    }
}
