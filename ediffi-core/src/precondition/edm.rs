//! EDM's preconditioning, and that of a network that predicts the image.

use serde::{Deserialize, Serialize};

use super::coefficients::Precondition;
use crate::{Error, Result};

/// The range of the standard deviation of data. Pixels in \[-1, 1\] have 0.5.
pub const SIGMA_DATA: std::ops::RangeInclusive<f64> = 1e-4..=1e4;

/// EDM's preconditioning for data of standard deviation `sigma_data`.
///
/// ```
/// use ediffi_core::precondition::{Edm, Precondition};
///
/// let edm = Edm::default();
/// // At sigma = sigma_data, image and noise are equally strong: D keeps half of x.
/// assert!((edm.c_skip(0.5) - 0.5).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parameters")]
pub struct Edm {
    sigma_data: f64,
}

/// What an [`Edm`] is in a file, before it is checked.
#[derive(Deserialize)]
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
    /// [`Error::InvalidPrecondition`] unless `sigma_data` is in [`SIGMA_DATA`].
    pub fn new(sigma_data: f64) -> Result<Self> {
        if SIGMA_DATA.contains(&sigma_data) {
            Ok(Self { sigma_data })
        } else {
            let reason = format!("sigma_data {sigma_data:?} has to be from 1e-4 to 1e4");
            Err(Error::InvalidPrecondition(reason))
        }
    }

    /// The standard deviation of the data.
    #[must_use]
    pub fn sigma_data(&self) -> f64 {
        self.sigma_data
    }

    fn sigma_star(&self, sigma: f64) -> f64 {
        sigma.hypot(self.sigma_data)
    }
}

impl Precondition for Edm {
    /// How much of the noisy image is kept: `sigma_data^2 / sigma*^2`.
    fn c_skip(&self, sigma: f64) -> f64 {
        (self.sigma_data / self.sigma_star(sigma)).powi(2)
    }

    /// The scale of the network's output: `sigma sigma_data / sigma*`.
    fn c_out(&self, sigma: f64) -> f64 {
        // Divided first: the product could overflow for a huge sigma.
        (sigma / self.sigma_star(sigma)) * self.sigma_data
    }

    /// The scale of the network's input, which gives it variance 1: `1 / sigma*`.
    fn c_in(&self, sigma: f64) -> f64 {
        self.sigma_star(sigma).recip()
    }

    /// The number by which the network is told the noise level: `ln(sigma) / 4`.
    fn c_noise(&self, sigma: f64) -> f64 {
        0.25 * sigma.ln()
    }

    /// The weight of the squared error of D in the loss: `lambda = 1 / c_out^2`, which cancels the output scale.
    fn loss_weight(&self, sigma: f64) -> f64 {
        self.c_out(sigma).powi(-2)
    }
}

/// The network predicts the clean image itself: `D(x; sigma) = sigma_data F(c_in x; c_noise)`.
///
/// At low noise, EDM's preconditioning asks the network for the noise. Noise fills all dimensions of a patch of pixels, while
/// pictures lie near a surface of few dimensions. A network on large patches that is not much wider than one patch has
/// values can predict the picture, but not the noise (Li & He 2025, "Back to Basics: Let Denoising Generative Models
/// Denoise"). Input scale and noise embedding are EDM's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sample(Edm);

/// As [`Edm`]'s default.
impl Default for Sample {
    fn default() -> Self {
        Self(Edm::default())
    }
}

impl Sample {
    /// The ratio of signal to noise, `sigma_data^2 / sigma^2`, above which the weight of the loss stays the same (Hang et al.
    /// 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", gamma = 5).
    pub const MAX_SNR: f64 = 5.0;

    /// The preconditioning for data of standard deviation `sigma_data`.
    ///
    /// # Errors
    /// [`Error::InvalidPrecondition`] unless `sigma_data` is positive and finite.
    pub fn new(sigma_data: f64) -> Result<Self> {
        Ok(Self(Edm::new(sigma_data)?))
    }

    /// The standard deviation of the data.
    #[must_use]
    pub fn sigma_data(&self) -> f64 {
        self.0.sigma_data
    }
}

impl Precondition for Sample {
    /// 0: nothing of the noisy image is kept.
    fn c_skip(&self, _sigma: f64) -> f64 {
        0.0
    }

    /// `sigma_data`: the network's target has variance 1.
    fn c_out(&self, _sigma: f64) -> f64 {
        self.0.sigma_data
    }

    /// As [`Edm`]'s.
    fn c_in(&self, sigma: f64) -> f64 {
        self.0.c_in(sigma)
    }

    /// As [`Edm`]'s.
    fn c_noise(&self, sigma: f64) -> f64 {
        self.0.c_noise(sigma)
    }

    /// `(1 + min(SNR, 5)) / sigma_data^2`: EDM's weight is the same without the limit.
    fn loss_weight(&self, sigma: f64) -> f64 {
        let snr = (self.0.sigma_data / sigma).powi(2);
        (1.0 + snr.min(Self::MAX_SNR)) / self.0.sigma_data.powi(2)
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

    #[test]
    fn sample_prediction_has_edm_s_weight_until_the_limit() {
        let (edm, sample) = (Edm::new(0.8).unwrap(), Sample::new(0.8).unwrap());
        // SNR = 5 at sigma = 0.8 / sqrt(5).
        let limit = 0.8 / 5.0_f64.sqrt();
        for sigma in [limit * 1.0001, 1.0, 30.0] {
            assert!((sample.loss_weight(sigma) / edm.loss_weight(sigma) - 1.0).abs() < 1e-12, "{sigma}");
        }
        assert!((sample.loss_weight(limit / 100.0) - 6.0 / 0.64).abs() < 1e-12);
        assert_eq!((sample.c_skip(0.3), sample.c_out(0.3)), (0.0, 0.8));
        assert_eq!((sample.c_in(0.3), sample.c_noise(0.3)), (edm.c_in(0.3), edm.c_noise(0.3)));
        assert_eq!(serde_json::from_str::<Sample>(r#"{"sigma_data": 0.5}"#).unwrap(), Sample::default());
        assert!(serde_json::from_str::<Sample>(r#"{"sigma_data": -1}"#).is_err());
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
