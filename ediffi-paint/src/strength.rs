//! How strongly the paint acts at a noise level.

use ediffi_core::interval::SigmaInterval;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The default w′. The paper gives no value. Of six on the shipped model it has the most objects in their boxes (docs/paint-with-words.md,
/// "Measured"); the public re-implementation for Stable Diffusion uses it in its examples, too (cloneofsimo/paint-with-words-sd).
pub const DEFAULT_WEIGHT: f64 = 0.4;

/// Where sigma stops to count, the largest noise level of eDiff-I's own sampler. Cosine schedules reach sigmas in the
/// tens of thousands, where log(1 + σ) would be more than twice what the formula was made for.
pub const SIGMA_CAP: f64 = 80.0;

/// What of the scores decides how large the bias is. Both statistics make the same w′ fit networks of any scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// max(Q·Kᵀ): eDiff-I, the section on paint-with-words.
    #[default]
    Max,
    /// std(Q·Kᵀ): what users of the Stable Diffusion re-implementation prefer. Steadier than the maximum, which one
    /// outlier decides.
    Std,
    /// Nothing: the bias is the same number whatever the scores.
    One,
}

/// How the bias grows with the noise level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// log(1 + σ): eDiff-I.
    #[default]
    Log,
    /// log(1 + σ²): what users of the Stable Diffusion re-implementation prefer.
    LogSquared,
    /// Not at all.
    Constant,
}

/// How strongly a canvas acts. [`Canvas::with_strength`](crate::Canvas::with_strength) checks it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Strength {
    /// w′, at least 0. Where attention sees text and pixels in one softmax, the same value acts weaker than where it sees
    /// text alone: try 0.2 to 2.
    pub weight: f64,
    /// What of the scores decides how large the bias is.
    pub statistic: Statistic,
    /// How the bias grows with the noise level.
    pub growth: Growth,
    /// The noise levels at which the paint acts; at all others it is off.
    pub sigma: SigmaInterval,
}

impl Default for Strength {
    /// The paper's formula at every sigma, with w′ = [`DEFAULT_WEIGHT`].
    fn default() -> Self {
        let (statistic, growth) = (Statistic::default(), Growth::default());
        Self { weight: DEFAULT_WEIGHT, statistic, growth, sigma: SigmaInterval::ALL }
    }
}

impl Strength {
    /// The default with another w′.
    #[must_use]
    pub fn new(weight: f64) -> Self {
        Self { weight, ..Self::default() }
    }

    /// w = w′ · log(1 + σ²) · std(Q·Kᵀ), the formula that users of the Stable Diffusion re-implementation prefer.
    #[must_use]
    pub fn deviation(weight: f64) -> Self {
        Self { statistic: Statistic::Std, growth: Growth::LogSquared, ..Self::new(weight) }
    }

    /// Checks that the weight is finite and at least 0.
    ///
    /// # Errors
    /// [`Error::StrengthWeight`].
    pub fn check(&self) -> Result<()> {
        let weight = self.weight;
        if weight.is_finite() && weight >= 0.0 { Ok(()) } else { Err(Error::StrengthWeight { weight }) }
    }

    /// The part of w that the scores have no say in: w′ times the growth; 0 where the paint is off.
    #[must_use]
    pub fn factor(&self, sigma: f64) -> f64 {
        if !self.sigma.contains(sigma) {
            return 0.0;
        }
        let sigma = sigma.clamp(0.0, SIGMA_CAP);
        self.weight
            * match self.growth {
                Growth::Log => sigma.ln_1p(),
                Growth::LogSquared => (sigma * sigma).ln_1p(),
                Growth::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn factors_are_the_papers_logarithms() {
        let one = Strength::new(1.0);
        for (sigma, factor) in [(80.0, 4.394), (9.6, 2.361), (1.0, 0.693), (0.3, 0.262), (0.002, 0.002)] {
            assert!((one.factor(sigma) - factor).abs() < 1e-3, "{sigma}");
        }
        assert!((Strength::deviation(0.5).factor(14.6) - 0.5 * 214.16_f64.ln()).abs() < 1e-9);
        let constant = Strength { growth: Growth::Constant, ..Strength::new(0.5) };
        assert_eq!([0.1, 80.0].map(|sigma| constant.factor(sigma)), [0.5, 0.5]);
    }

    #[test]
    fn sigma_is_capped() {
        assert_eq!(Strength::new(1.0).factor(20_000.0), Strength::new(1.0).factor(SIGMA_CAP));
    }

    #[test]
    fn the_paint_is_off_outside_its_interval() {
        let window = Strength { sigma: SigmaInterval::new(0.5, 5.0).unwrap(), ..Strength::new(1.0) };
        let on: Vec<bool> = [0.49, 0.5, 4.99, 5.0].map(|sigma| window.factor(sigma) > 0.0).to_vec();
        assert_eq!(on, [false, true, true, false]);
    }

    #[test]
    fn bad_weights_are_errors() {
        for weight in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(Strength::new(weight).check(), Err(Error::StrengthWeight { .. })));
        }
    }

    #[test]
    fn the_default_is_sound_and_reads_from_nothing() {
        Strength::default().check().unwrap();
        assert_eq!(serde_json::from_str::<Strength>("{}").unwrap(), Strength::default());
        let window = serde_json::from_str::<Strength>(r#"{ "sigma": [1, null] }"#).unwrap().sigma;
        assert_eq!(window, SigmaInterval::new(1.0, f64::INFINITY).unwrap());
        assert!(serde_json::from_str::<Strength>(r#"{ "wight": 1 }"#).is_err());
    }

    proptest! {
        #[test]
        fn more_weight_and_more_noise_never_mean_less(a in 0.0_f64..100.0, b in 0.0_f64..100.0, w in 0.0_f64..4.0) {
            let (low, high) = (a.min(b), a.max(b));
            for growth in [Growth::Log, Growth::LogSquared, Growth::Constant] {
                let strength = Strength { growth, ..Strength::new(w) };
                let stronger = Strength { weight: w + 0.5, ..strength };
                prop_assert!(strength.factor(low) <= strength.factor(high));
                prop_assert!(strength.factor(high) <= stronger.factor(high));
            }
        }
    }
}
