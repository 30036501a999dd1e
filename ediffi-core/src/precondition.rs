//! EDM's preconditioning: how a raw network becomes a denoiser.
//!
//! `D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)` (EDM, equation 7 and table 1; eDiff-I, section 3, writes
//! `sigma* = sqrt(sigma^2 + sigma_data^2)`). The loss weight stands beside the coefficients, so that training and
//! sampling share one set of constants. [`crate::denoiser::edm_denoise`] applies them to tensors.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// EDM's preconditioning for data of standard deviation `sigma_data`.
///
/// ```
/// use ediffi_core::precondition::Edm;
///
/// let edm = Edm::default();
/// // At sigma = sigma_data, image and noise are equally strong: D keeps half of x.
/// assert!((edm.c_skip(0.5) - 0.5).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parameters", into = "Parameters")]
pub struct Edm {
    sigma_data: f64,
}

/// What an [`Edm`] is in a file, before it is checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    sigma_data: f64,
}

impl TryFrom<Parameters> for Edm {
    type Error = Error;

    fn try_from(parameters: Parameters) -> Result<Self> {
        Self::new(parameters.sigma_data)
    }
}

impl From<Edm> for Parameters {
    fn from(edm: Edm) -> Self {
        Self { sigma_data: edm.sigma_data }
    }
}

/// `sigma_data = 0.5`, for pixels in \[-1, 1\] (EDM, table 1; eDiff-I, section 3).
impl Default for Edm {
    fn default() -> Self {
        Self { sigma_data: 0.5 }
    }
}

impl Edm {
    /// The preconditioning for data of standard deviation `sigma_data`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPrecondition`] unless `sigma_data` is positive and finite.
    pub fn new(sigma_data: f64) -> Result<Self> {
        if sigma_data > 0.0 && sigma_data.is_finite() {
            Ok(Self { sigma_data })
        } else {
            let reason = format!("sigma_data {sigma_data} has to be positive and finite");
            Err(Error::InvalidPrecondition { reason })
        }
    }

    /// The standard deviation of the data.
    #[must_use]
    pub fn sigma_data(&self) -> f64 {
        self.sigma_data
    }

    /// How much of the noisy image is kept: `sigma_data^2 / sigma*^2`.
    #[must_use]
    pub fn c_skip(&self, sigma: f64) -> f64 {
        (self.sigma_data / self.sigma_star(sigma)).powi(2)
    }

    /// The scale of the network's output: `sigma sigma_data / sigma*`.
    #[must_use]
    pub fn c_out(&self, sigma: f64) -> f64 {
        // Divided first: the product could overflow for a huge sigma.
        (sigma / self.sigma_star(sigma)) * self.sigma_data
    }

    /// The scale of the network's input, which gives it variance 1: `1 / sigma*`.
    #[must_use]
    pub fn c_in(&self, sigma: f64) -> f64 {
        self.sigma_star(sigma).recip()
    }

    /// What the network is told of the noise level: `ln(sigma) / 4`.
    #[must_use]
    pub fn c_noise(&self, sigma: f64) -> f64 {
        0.25 * sigma.ln()
    }

    /// The weight of the squared error of D in the loss: `lambda = 1 / c_out^2`, which cancels the output scale.
    #[must_use]
    pub fn loss_weight(&self, sigma: f64) -> f64 {
        self.c_out(sigma).powi(-2)
    }

    fn sigma_star(&self, sigma: f64) -> f64 {
        sigma.hypot(self.sigma_data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn coefficients_at_a_known_point() {
        // sigma_data = 3, sigma = 4: sigma* = 5.
        let edm = Edm::new(3.0).unwrap();
        let got = [edm.c_skip(4.0), edm.c_out(4.0), edm.c_in(4.0), edm.c_noise(4.0), edm.loss_weight(4.0)];
        let expected = [9.0 / 25.0, 12.0 / 5.0, 1.0 / 5.0, 4.0_f64.ln() / 4.0, 25.0 / 144.0];
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-14, "{got} {expected}");
        }
    }

    #[test]
    fn bad_sigma_data_is_refused() {
        for sigma_data in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(Edm::new(sigma_data), Err(Error::InvalidPrecondition { .. })));
        }
        assert!(serde_json::from_str::<Edm>(r#"{"sigma_data": 0}"#).is_err());
        assert_eq!(serde_json::from_str::<Edm>(r#"{"sigma_data": 0.5}"#).unwrap(), Edm::default());
    }

    proptest! {
        /// EDM, appendix B.6: input and training target have unit variance for data of variance sigma_data^2.
        #[test]
        fn input_and_target_have_unit_variance(ln_sigma in -8.0..6.0_f64, sigma_data in 0.1..2.0_f64) {
            let (edm, sigma) = (Edm::new(sigma_data).unwrap(), ln_sigma.exp());
            let input = edm.c_in(sigma).powi(2) * (sigma_data.powi(2) + sigma.powi(2));
            // The target of F is (y - c_skip (y + n)) / c_out.
            let target = ((1.0 - edm.c_skip(sigma)) * sigma_data).powi(2) + (edm.c_skip(sigma) * sigma).powi(2);
            prop_assert!((input - 1.0).abs() < 1e-9);
            prop_assert!((target / edm.c_out(sigma).powi(2) - 1.0).abs() < 1e-6);
        }
    }
}
