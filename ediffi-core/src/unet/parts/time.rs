//! The embedding of a noise level.

use tch::{Kind, Tensor};

use crate::Result;
use crate::nn::{Activation, Linear};
use crate::weights::Scope;

/// Cosines and sines of a number at frequencies 10000^(−k / half), k = 0 … half − 1 (EDM's positional embedding).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sinusoids {
    /// How many cosines and sines there are together.
    pub width: i64,
    /// Whether k is multiplied by ln 10000 before it is divided by half, as diffusers does: the last bit of a frequency is
    /// 10⁻⁵ of an angle at timestep 999.
    pub multiply_first: bool,
}

impl Sinusoids {
    /// # Shapes
    /// `x`: `[n]` → [n, width] f32
    ///
    /// # Errors
    /// A tensor that is not one-dimensional.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        let half = self.width / 2;
        let (k, log) = (Tensor::f_arange(half, (Kind::Float, x.device()))?, -(10_000_f64.ln()));
        let exponent = if self.multiply_first {
            k.f_mul_scalar(log)?.f_div_scalar(half as f64)?
        } else {
            k.f_div_scalar(half as f64)?.f_mul_scalar(log)?
        };
        let angles = x.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&exponent.f_exp()?.f_unsqueeze(0)?)?;
        Ok(Tensor::f_cat(&[angles.f_cos()?, angles.f_sin()?], 1)?)
    }
}

/// Sinusoids and two linear maps with a nonlinearity between, all in f32.
#[derive(Debug)]
pub struct TimeEmbedding {
    sinusoids: Sinusoids,
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl TimeEmbedding {
    /// `names`: those of the two maps.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(
        mut scope: Scope<'_>,
        names: [&str; 2],
        sinusoids: Sinusoids,
        width: i64,
        activation: Activation,
    ) -> Result<Self> {
        let [first, second] = names;
        Ok(Self {
            sinusoids,
            first: Linear::precise(scope.at(first), sinusoids.width, width)?,
            second: Linear::precise(scope.at(second), width, width)?,
            activation,
        })
    }

    /// # Shapes
    /// `x`: `[n]` → [n, width] f32
    ///
    /// # Errors
    /// A tensor that is not one-dimensional.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.second.forward(&self.activation.apply(&self.first.forward(&self.sinusoids.forward(x)?)?)?)
    }
}
