//! How strongly the paint acts at each noise level.

use ediffi_core::interval::SigmaInterval;
use serde::{Deserialize, Serialize};

use crate::{Error, LayoutGuidance, MAX_LAYOUT, MAX_WEIGHT, Result};

/// The default w′. The paper gives no value. The examples of the re-implementation for Stable Diffusion
/// (cloneofsimo/paint-with-words-sd) use this one. `docs/results/paint-with-words.md` compares six values on the shipped
/// model.
pub const DEFAULT_WEIGHT: f64 = 0.4;

/// Larger sigmas count as this one: the first noise level of eDiff-I's own sampler. Cosine schedules start at tens of
/// thousands, where log(1 + σ) would be more than twice the largest value of the paper.
pub const SIGMA_CAP: f64 = 80.0;

/// The number that is taken from the attention scores and that multiplies the bias. [`Max`](Self::Max) and
/// [`Std`](Self::Std) grow with the scores, so the same w′ fits networks of any scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// max(Q·Kᵀ), as in eDiff-I (section "Paint-with-words").
    #[default]
    Max,
    /// std(Q·Kᵀ), as the README of cloneofsimo/paint-with-words-sd recommends for Stable Diffusion. A single large score
    /// changes it less than the maximum.
    Std,
    /// 1: the bias does not depend on the scores.
    One,
}

/// How the bias grows with the noise level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// log(1 + σ), as in eDiff-I (section "Paint-with-words").
    #[default]
    Log,
    /// log(1 + σ²), as the README of cloneofsimo/paint-with-words-sd recommends for Stable Diffusion.
    LogSquared,
    /// 1: the bias is the same at every noise level.
    Constant,
}

/// How strongly a canvas acts: w = w′ · growth(σ) · statistic(Q·Kᵀ). The default is the paper's
/// w = w′ · log(1 + σ) · max(Q·Kᵀ). [`Canvas::with_strength`](crate::Canvas::with_strength) checks it.
///
/// The statistic is taken where the network looks: over the positions and text tokens of one picture and head. If a picture
/// is cut into tiles, each tile is a picture to the network and has a statistic of its own. So a region that lies in two
/// tiles acts with two strengths, which differ as the largest scores of the tiles do. One for the whole picture would take a
/// second pass: the scores of a layer depend on what the layers before it made of the tile. [`Statistic::One`] is the same
/// everywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Strength {
    /// w′, from 0 to [`MAX_WEIGHT`]. Try 0.2 to 2. The same value acts less where one softmax holds text and pixels (DeepFloyd IF) than
    /// where it holds text only.
    pub weight: f64,
    /// The number that is taken from the scores.
    pub statistic: Statistic,
    /// How the bias grows with the noise level.
    pub growth: Growth,
    /// The noise levels at which the paint acts (default: all). Outside them the network runs as if unpainted.
    pub sigma: SigmaInterval,
    /// Pulls the picture itself to where its phrases belong, if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<LayoutGuidance>,
}

impl Default for Strength {
    /// The paper's formula at every noise level, with w′ = [`DEFAULT_WEIGHT`].
    fn default() -> Self {
        let (statistic, growth) = (Statistic::default(), Growth::default());
        Self { weight: DEFAULT_WEIGHT, statistic, growth, sigma: SigmaInterval::ALL, layout: None }
    }
}

impl Strength {
    /// The default with another w′.
    #[must_use]
    pub fn new(weight: f64) -> Self {
        Self { weight, ..Self::default() }
    }

    /// w = w′ · log(1 + σ²) · std(Q·Kᵀ): the formula that the README of cloneofsimo/paint-with-words-sd recommends.
    #[must_use]
    pub fn deviation(weight: f64) -> Self {
        Self { statistic: Statistic::Std, growth: Growth::LogSquared, ..Self::new(weight) }
    }

    /// Sets layout guidance.
    #[must_use]
    pub fn with_layout(self, layout: LayoutGuidance) -> Self {
        Self { layout: Some(layout), ..self }
    }

    /// Checks that the weight is from 0 to [`MAX_WEIGHT`], and the scale of layout guidance from 0 to [`MAX_LAYOUT`].
    ///
    /// # Errors
    /// [`Error::StrengthWeight`], [`Error::LayoutScale`].
    pub fn check(&self) -> Result<()> {
        let weight = self.weight;
        if !(0.0..=MAX_WEIGHT).contains(&weight) {
            return Err(Error::StrengthWeight(weight));
        }
        match self.layout {
            Some(LayoutGuidance { scale, .. }) if !(0.0..=MAX_LAYOUT).contains(&scale) => {
                Err(Error::LayoutScale(scale))
            }
            _ => Ok(()),
        }
    }

    /// The part of w that does not depend on the scores: w′ · growth(σ), with σ capped at [`SIGMA_CAP`]. It is 0 outside
    /// the interval in which the paint acts.
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
    fn the_scale_of_layout_guidance_is_checked() {
        for scale in [-1.0, f64::NAN, f64::INFINITY, 2.0 * MAX_LAYOUT] {
            let wrong = Strength::default().with_layout(LayoutGuidance::new(scale));
            assert!(matches!(wrong.check(), Err(Error::LayoutScale(_))), "{scale}");
        }
        let text = r#"{ "layout": { "scale": 5 } }"#;
        let read: Strength = serde_json::from_str(text).unwrap();
        assert_eq!(read, Strength::default().with_layout(LayoutGuidance::new(5.0)));
        assert!(read.check().is_ok());
        assert!(serde_json::from_str::<Strength>(r#"{ "layout": { "scale": 5, "size": 1 } }"#).is_err());
    }

    #[test]
    fn the_paint_is_off_outside_its_interval() {
        let window = Strength { sigma: SigmaInterval::new(0.5, 5.0).unwrap(), ..Strength::new(1.0) };
        let on: Vec<bool> = [0.49, 0.5, 4.99, 5.0].map(|sigma| window.factor(sigma) > 0.0).to_vec();
        assert_eq!(on, [false, true, true, false]);
    }

    #[test]
    fn bad_weights_are_errors() {
        for weight in [-1.0, f64::NAN, f64::INFINITY, 1e308] {
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
