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
    /// x · Φ(x) with the exact normal distribution, not its approximation by tanh.
    Gelu,
}

impl Activation {
    /// # Shapes
    /// `x`: any → the same
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Silu => x.f_silu()?,
            Self::Gelu => x.f_gelu("none")?,
        })
    }
}
