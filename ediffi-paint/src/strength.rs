//! How strongly the paint acts at a noise level.

use ediffi_core::interval::SigmaInterval;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The default w′. The paper gives no value; the public re-implementation for Stable Diffusion uses 0.4 in its examples
/// (cloneofsimo/paint-with-words-sd).
pub const DEFAULT_WEIGHT: f64 = 0.4;

/// Where sigma stops to count, the largest noise level of eDiff-I's own sampler. Cosine schedules reach sigmas in the
/// tens of thousands, where log(1 + σ) would be more than twice what the formula was made for.
pub const SIGMA_CAP: f64 = 80.0;

/// The formula of w, the factor in front of the masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// w = w′ · log(1 + σ) · max(Q·Kᵀ): eDiff-I, the section on paint-with-words.
    #[default]
    Max,
    /// w = w′ · log(1 + σ²) · std(Q·Kᵀ): what users of the Stable Diffusion re-implementation prefer. Steadier than the
    /// maximum, which one outlier decides.
    Std,
}

/// How strongly a canvas acts. [`Canvas::with_strength`](crate::Canvas::with_strength) checks it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Strength {
    /// w′, at least 0. Where attention sees text and pixels in one softmax, the same value acts weaker than where it sees
    /// text alone: try 0.2 to 2.
    pub weight: f64,
    /// The formula of w.
    pub rule: Rule,
    /// The noise levels at which the paint acts; at all others it is off.
    pub sigma: SigmaInterval,
}

impl Default for Strength {
    /// The paper's formula at every sigma, with w′ = [`DEFAULT_WEIGHT`].
    fn default() -> Self {
        Self { weight: DEFAULT_WEIGHT, rule: Rule::Max, sigma: SigmaInterval::ALL }
    }
}

impl Strength {
    /// The default with another w′.
    #[must_use]
    pub fn new(weight: f64) -> Self {
        Self { weight, ..Self::default() }
    }

    /// Checks that the weight is finite and at least 0.
    ///
    /// # Errors
    /// [`Error::StrengthWeight`].
    pub fn check(&self) -> Result<()> {
        let weight = self.weight;
        if weight.is_finite() && weight >= 0.0 { Ok(()) } else { Err(Error::StrengthWeight { weight }) }
    }

    /// The part of w that the scores have no say in: w′ times the logarithm; 0 where the paint is off.
    #[must_use]
    pub fn factor(&self, sigma: f64) -> f64 {
        if !self.sigma.contains(sigma) {
            return 0.0;
        }
        let sigma = sigma.clamp(0.0, SIGMA_CAP);
        self.weight
            * match self.rule {
                Rule::Max => sigma.ln_1p(),
                Rule::Std => (sigma * sigma).ln_1p(),
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
        let std = Strength { rule: Rule::Std, ..Strength::new(0.5) };
        assert!((std.factor(14.6) - 0.5 * 214.16_f64.ln()).abs() < 1e-9);
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
            for rule in [Rule::Max, Rule::Std] {
                let strength = Strength { rule, ..Strength::new(w) };
                let stronger = Strength { weight: w + 0.5, ..strength };
                prop_assert!(strength.factor(low) <= strength.factor(high));
                prop_assert!(strength.factor(high) <= stronger.factor(high));
            }
        }
    }
}
