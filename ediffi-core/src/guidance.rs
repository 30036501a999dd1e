//! Guidance: it moves the estimate away from a worse one.
//!
//! `D = D_w + scale (D_c - D_w)`. In classifier-free guidance `D_w` is the unconditional estimate (Ho and Salimans 2022; eDiff-I,
//! section 3), in autoguidance that of a weaker network under the same prompt (Karras et al. 2024, "Guiding a Diffusion Model with
//! a Bad Version of Itself", equation 2). **A scale of 1 is no guidance**, 0 gives `D_w`. Guidance may be limited to an interval of noise levels (Kynkaanniemi et al. 2024). Outside of it only the
//! conditional estimate is made, which is less work.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::denoiser::{Branch, BranchDenoiser, Denoiser, Estimate, check_shape};
use crate::interval::SigmaInterval;
pub use crate::thresholding::{MAX_CAP, Thresholding};
use crate::{Error, Result};

/// The highest scale of guidance. A higher number is taken for a mistake: guidance is seldom above 20.
pub const MAX_SCALE: f64 = 1000.0;

/// How strongly, and where, to guide.
///
/// In JSON: `{"scale": 5.0, "against": "weaker", "interval": [0.28, 2.9], "thresholding": {"dynamic": {"percentile": 0.995}}}`;
/// all but the scale may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guidance {
    /// The scale: 1 is no guidance, 0 gives the estimate that guidance moves away from.
    pub scale: f64,
    /// What guidance moves away from.
    #[serde(default, skip_serializing_if = "Against::is_default")]
    pub against: Against,
    /// The noise levels at which to guide; all if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<SigmaInterval>,
    /// How to keep the estimate in the range of pixels.
    #[serde(default)]
    pub thresholding: Thresholding,
}

/// No guidance.
impl Default for Guidance {
    fn default() -> Self {
        Self::new(1.0)
    }
}

impl Guidance {
    /// Guidance at every noise level, without thresholding.
    #[must_use]
    pub fn new(scale: f64) -> Self {
        Self { scale, against: Against::Unconditional, interval: None, thresholding: Thresholding::None }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::InvalidGuidance`] unless the scale is from 0 to [`MAX_SCALE`], the percentile is in (0, 1] and the cap is from 1 to
    /// [`MAX_CAP`].
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=MAX_SCALE).contains(&self.scale) {
            let reason = format!("scale {:?} has to be from 0 to {MAX_SCALE}", self.scale);
            return Err(Error::InvalidGuidance(reason));
        }
        self.thresholding.validate()
    }

    /// The evaluations that the noise level `sigma` needs: one, or the conditional one and the one to move away from.
    #[must_use]
    pub fn branches(&self, sigma: f64) -> (Branch, Option<Branch>) {
        let inside = self.interval.is_none_or(|interval| interval.contains(sigma));
        let worse = match self.against {
            Against::Unconditional => Branch::Unconditional,
            Against::Weaker => Branch::Weaker,
        };
        match self.scale {
            1.0 => (Branch::Conditional, None),
            _ if !inside => (Branch::Conditional, None),
            0.0 => (worse, None),
            _ => (Branch::Conditional, Some(worse)),
        }
    }
}

/// What guidance moves the estimate away from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// The unconditional estimate, or that of the negative prompt: classifier-free guidance.
    #[default]
    Unconditional,
    /// The estimate of the stage's weaker network under the same prompt: autoguidance.
    Weaker,
}

impl Against {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether the conditional and the unconditional evaluation are made together. A weaker network makes its own by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rows {
    /// In one batch of twice the rows: faster.
    #[default]
    Batched,
    /// One after the other: half the memory.
    Sequential,
}

/// A guided denoiser.
#[derive(Debug)]
pub struct Guided<B> {
    denoiser: B,
    guidance: Guidance,
    rows: Rows,
}

impl<B: BranchDenoiser> Guided<B> {
    /// Guides `denoiser`.
    ///
    /// # Errors
    /// As [`Guidance::validate`].
    pub fn new(denoiser: B, guidance: Guidance, rows: Rows) -> Result<Self> {
        guidance.validate()?;
        Ok(Self { denoiser, guidance, rows })
    }

    /// Guides otherwise from now on: the experts of one ensemble may be guided in different ways.
    ///
    /// # Errors
    /// As [`Guidance::validate`].
    pub fn guide(&mut self, guidance: Guidance) -> Result<()> {
        guidance.validate()?;
        self.guidance = guidance;
        Ok(())
    }

    /// Returns the inner denoiser.
    pub fn into_inner(self) -> B {
        self.denoiser
    }

    /// The denoiser.
    pub fn inner_mut(&mut self) -> &mut B {
        &mut self.denoiser
    }

    /// The conditional estimate, and the image of the `worse` one.
    fn both(&mut self, x: &Tensor, sigma: f64, worse: Branch) -> Result<(Estimate, Tensor)> {
        if worse == Branch::Unconditional && self.rows == Rows::Batched {
            let twice = Tensor::f_cat(&[x, x], 0)?;
            let Estimate { denoised, variance } = self.denoiser.estimate_branch(&twice, sigma, Branch::Both)?;
            check_shape(&twice, &denoised, sigma)?;
            let n = x.size().first().copied().unwrap_or(0);
            let variance = variance.map(|variance| variance.f_narrow(0, 0, n)).transpose()?;
            return Ok((Estimate { denoised: denoised.f_narrow(0, 0, n)?, variance }, denoised.f_narrow(0, n, n)?));
        }
        let conditional = self.denoiser.estimate_branch(x, sigma, Branch::Conditional)?;
        check_shape(x, &conditional.denoised, sigma)?;
        let worse = self.denoiser.estimate_branch(x, sigma, worse)?.denoised;
        check_shape(x, &worse, sigma)?;
        Ok((conditional, worse))
    }
}

impl<B: BranchDenoiser> Denoiser for Guided<B> {
    /// The variance is not guided: it is that of the conditional estimate, if there is one.
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate> {
        let Estimate { denoised, variance } = match self.guidance.branches(sigma) {
            (_, Some(worse)) => {
                let (conditional, worse) = self.both(x, sigma, worse)?;
                let denoised = worse.f_lerp(&conditional.denoised, self.guidance.scale)?;
                Estimate { denoised, ..conditional }
            }
            (one, None) => self.denoiser.estimate_branch(x, sigma, one)?,
        };
        Ok(Estimate { denoised: self.guidance.thresholding.apply(denoised)?, variance })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// The conditional estimate is 3 x, the unconditional one 2 x, that of the weaker network 2.5 x; counts the rows it computes.
    #[derive(Default)]
    struct Counting {
        rows: i64,
    }

    impl BranchDenoiser for Counting {
        fn estimate_branch(&mut self, x: &Tensor, _sigma: f64, branch: Branch) -> Result<Estimate> {
            self.rows += x.size()[0];
            let scaled = |x: &Tensor, by: f64| x.f_mul_scalar(by);
            let denoised = match branch {
                Branch::Conditional => scaled(x, 3.0)?,
                Branch::Unconditional => scaled(x, 2.0)?,
                Branch::Weaker => scaled(x, 2.5)?,
                Branch::Both => {
                    let halves = x.f_chunk(2, 0)?;
                    Tensor::f_cat(&[scaled(&halves[0], 3.0)?, scaled(&halves[1], 2.0)?], 0)?
                }
            };
            Ok(Estimate { variance: Some(denoised.f_mul_scalar(0.1)?), denoised })
        }
    }

    fn x() -> Tensor {
        Tensor::arange(24, (Kind::Float, Device::Cpu)).reshape([2, 3, 2, 2])
    }

    fn run(guidance: Guidance, rows: Rows, sigma: f64) -> (Tensor, i64) {
        let mut guided = Guided::new(Counting::default(), guidance, rows).unwrap();
        let denoised = guided.denoise(&x(), sigma).unwrap();
        (denoised, guided.into_inner().rows)
    }

    fn close(a: &Tensor, b: &Tensor) -> bool {
        a.size() == b.size() && f64::try_from((a - b).abs().max()).unwrap() < 1e-4
    }

    #[test]
    fn batched_and_sequential_rows_agree() {
        for rows in [Rows::Batched, Rows::Sequential] {
            // 2 + 5 (3 - 2) = 7.
            let (denoised, work) = run(Guidance::new(5.0), rows, 1.0);
            assert!(close(&denoised, &(x() * 7.0)), "{rows:?}");
            assert_eq!(work, 4);
            // The variance is that of the conditional estimate.
            let mut guided = Guided::new(Counting::default(), Guidance::new(5.0), rows).unwrap();
            assert!(close(&guided.estimate(&x(), 1.0).unwrap().variance.unwrap(), &(x() * 0.3)), "{rows:?}");
        }
    }

    #[test]
    fn no_guidance_is_half_the_work() {
        let interval = Some(SigmaInterval::new(0.28, 2.9).unwrap());
        let limited = Guidance { interval, ..Guidance::new(5.0) };
        for (guidance, sigma, factor, rows) in [
            (Guidance::new(1.0), 1.0, 3.0, 2),
            (Guidance::new(0.0), 1.0, 2.0, 2),
            (limited.clone(), 2.9, 3.0, 2),
            (limited.clone(), 0.2, 3.0, 2),
            (limited, 0.28, 7.0, 4),
        ] {
            let (denoised, work) = run(guidance, Rows::Batched, sigma);
            assert!(close(&denoised, &(x() * factor)));
            assert_eq!(work, rows);
        }
    }

    /// 2.5 + 3 (3 - 2.5) = 4; a scale of 0 is the weaker network, and 1 does not ask it.
    #[test]
    fn autoguidance_moves_away_from_the_weaker_network() {
        for (scale, factor, rows) in [(3.0, 4.0, 4), (0.0, 2.5, 2), (1.0, 3.0, 2)] {
            let guidance = Guidance { against: Against::Weaker, ..Guidance::new(scale) };
            for order in [Rows::Batched, Rows::Sequential] {
                let (denoised, work) = run(guidance.clone(), order, 1.0);
                assert!(close(&denoised, &(x() * factor)), "scale {scale}");
                assert_eq!(work, rows, "scale {scale}");
            }
        }
    }

    #[test]
    fn bad_settings_are_refused() {
        let dynamic = |percentile, cap| Guidance {
            thresholding: Thresholding::Dynamic { percentile, cap },
            ..Guidance::new(2.0)
        };
        for guidance in [
            Guidance::new(f64::NAN),
            Guidance::new(-1.0),
            dynamic(0.0, None),
            dynamic(99.5, None),
            dynamic(0.9, Some(0.5)),
            dynamic(0.9, Some(f64::INFINITY)),
        ] {
            let result = Guided::new(Counting::default(), guidance.clone(), Rows::Batched).err();
            assert!(matches!(result, Some(Error::InvalidGuidance { .. })), "{guidance:?}");
        }
    }

    #[test]
    fn a_denoiser_of_another_shape_is_refused() {
        struct OneRow;
        impl BranchDenoiser for OneRow {
            fn estimate_branch(&mut self, x: &Tensor, _sigma: f64, _branch: Branch) -> Result<Estimate> {
                Ok(x.f_narrow(0, 0, 1)?.into())
            }
        }
        for rows in [Rows::Batched, Rows::Sequential] {
            let result = Guided::new(OneRow, Guidance::new(2.0), rows).unwrap().denoise(&x(), 1.0);
            assert!(matches!(result, Err(Error::DenoisedShape { .. })), "{rows:?}");
        }
    }

    #[test]
    fn json_leaves_out_what_is_not_used() {
        let guidance: Guidance = serde_json::from_str(r#"{"scale": 5.0}"#).unwrap();
        assert_eq!(guidance, Guidance::new(5.0));
        let full = r#"{"scale":2.0,"against":"weaker","interval":[0.28,2.9],"thresholding":{"dynamic":{"percentile":0.995,"cap":1.5}}}"#;
        let guidance: Guidance = serde_json::from_str(full).unwrap();
        assert_eq!(serde_json::to_string(&guidance).unwrap(), full);
        let error = serde_json::from_str::<Guidance>(r#"{"scale": 5.0, "rescale": 1}"#).unwrap_err();
        assert!(error.to_string().contains("rescale"), "{error}");
    }
}
