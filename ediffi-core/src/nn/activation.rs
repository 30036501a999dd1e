//! Nonlinearities.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::Result;

/// The nonlinearity of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Activation {
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x) with the exact normal distribution, not its approximation by tanh (Hendrycks and Gimpel 2016).
    Gelu,
    /// x · sigmoid(1.702 x), an approximation of GELU (Hendrycks and Gimpel 2016, section 2): OpenAI's CLIP.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
}

impl Activation {
    /// The nonlinearity, element by element.
    ///
    /// # Shapes
    /// `x`: any → the same
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Silu => x.f_silu()?,
            Self::Gelu => x.f_gelu("none")?,
            Self::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid()?)?,
        })
    }
}
