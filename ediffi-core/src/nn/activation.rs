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

    /// As [`apply`](Self::apply) to a tensor that nobody else holds. It is written over, unless a gradient goes through it.
    ///
    /// # Errors
    /// An error of libtorch.
    pub(crate) fn apply_to(self, mut x: Tensor) -> Result<Tensor> {
        if x.requires_grad() {
            return self.apply(&x);
        }
        Ok(match self {
            Self::Silu => x.f_silu_()?,
            Self::Gelu => x.f_gelu_("none")?,
            Self::QuickGelu => self.apply(&x)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_names_are_the_published_ones() {
        // sigmoid(1), Phi(1) and sigmoid(1.702).
        for (name, at_one) in [("silu", 0.731_058_6), ("gelu", 0.841_344_7), ("quick_gelu", 0.845_795_8)] {
            let activation: Activation = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            let values = activation.apply(&Tensor::from_slice(&[0.0_f32, 1.0])).unwrap();
            assert_eq!(activation.apply_to(Tensor::from_slice(&[0.0_f32, 1.0])).unwrap(), values);
            assert_eq!(values.double_value(&[0]), 0.0);
            assert!((values.double_value(&[1]) - at_one).abs() < 1e-6, "{name}: {}", values.double_value(&[1]));
            assert_eq!(serde_json::to_string(&activation).unwrap(), format!("\"{name}\""));
        }
    }
}
