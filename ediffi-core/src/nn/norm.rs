//! Norms. Their statistics are f32 inside libtorch's kernels whatever the precision of the input.

use serde::{Deserialize, Serialize};
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

/// Which norm the blocks of a network have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Group norms of this many groups (ADM): their statistics are of the whole feature map.
    Group(i64),
    /// Layer norms over the channels of each position. What a position becomes then depends on its surroundings alone, not
    /// on the size of the picture: right for a network that learns on crops, and what makes tiles exact.
    Position,
}

/// The norm of a feature map that a [`Norm`] asks for.
#[derive(Debug)]
pub enum MapNorm {
    /// Over groups of channels of the whole map.
    Group(GroupNorm),
    /// Over the channels of each position.
    Position(LayerNorm),
}

impl MapNorm {
    /// Over `channels` channels.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(scope: Scope<'_>, norm: Norm, channels: i64, eps: f64) -> Result<Self> {
        Ok(match norm {
            Norm::Group(groups) => Self::Group(GroupNorm::new(scope, channels, groups, eps)?),
            Norm::Position => Self::Position(LayerNorm::new(scope, channels, eps)?),
        })
    }

    /// # Shapes
    /// `x`: [n, channels, h, w] → the same
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Group(norm) => norm.forward(x),
            // A channels-last map has its channels innermost: both turns are free.
            Self::Position(norm) => Ok(norm.forward(&x.f_permute([0, 2, 3, 1])?)?.f_permute([0, 3, 1, 2])?),
        }
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
