//! Classifier-free guidance: it moves the estimate away from the unconditional one.
//!
//! `D = D_u + scale (D_c - D_u)` (Ho and Salimans 2022; eDiff-I, section 3). **A scale of 1 is no guidance**, 0 ignores
//! the prompt. Guidance may be limited to an interval of noise levels (Kynkaanniemi et al. 2024). Outside of it only the
//! conditional estimate is made, which is half the work.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::denoiser::{Branch, BranchDenoiser, Denoiser, Estimate, check_shape};
use crate::interval::SigmaInterval;
use crate::{Error, Result};

/// The highest scale of guidance, and the highest cap of thresholding. A higher number is taken for a mistake: guidance is seldom
/// above 20.
pub const MAX_SCALE: f64 = 1000.0;

/// How strongly, and where, to guide.
///
/// In JSON: `{"scale": 5.0, "interval": [0.28, 2.9], "thresholding": {"dynamic": {"percentile": 0.995}}}`; all but the
/// scale may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guidance {
    /// The scale: 1 is no guidance, 0 ignores the prompt.
    pub scale: f64,
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
        Self { scale, interval: None, thresholding: Thresholding::None }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::InvalidGuidance`] unless the scale is from 0 to [`MAX_SCALE`], the percentile is in (0, 1] and the cap is from 1 to
    /// [`MAX_SCALE`].
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=MAX_SCALE).contains(&self.scale) {
            let reason = format!("scale {:?} has to be from 0 to {MAX_SCALE}", self.scale);
            return Err(Error::InvalidGuidance(reason));
        }
        self.thresholding.validate()
    }

    /// The evaluations that the noise level `sigma` needs.
    #[must_use]
    pub fn branch(&self, sigma: f64) -> Branch {
        let inside = self.interval.is_none_or(|interval| interval.contains(sigma));
        match self.scale {
            1.0 => Branch::Conditional,
            _ if !inside => Branch::Conditional,
            0.0 => Branch::Unconditional,
            _ => Branch::Both,
        }
    }
}

/// How the estimate of the clean image is kept in the range of pixels, \[-1, 1\].
///
/// It applies to every estimate, guided or not.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Thresholding {
    /// It is left as it is.
    #[default]
    None,
    /// It is clipped to \[-1, 1\].
    Static,
    /// Imagen's dynamic thresholding (Saharia et al. 2022, section 2.3): each image is clipped to \[-s, s\] and divided
    /// by s, where s is a percentile of its absolute values, at least 1.
    Dynamic {
        /// The percentile as a fraction; Imagen uses 0.995.
        percentile: f64,
        /// The highest s; no limit if `None`. DeepFloyd IF uses 1.5.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cap: Option<f64>,
    },
}

impl Thresholding {
    fn validate(&self) -> Result<()> {
        let Self::Dynamic { percentile, cap } = *self else { return Ok(()) };
        let reason = if !(percentile > 0.0 && percentile <= 1.0) {
            format!("percentile {percentile:?} has to be above 0 and at most 1")
        } else if let Some(cap) = cap.filter(|cap| !(1.0..=MAX_SCALE).contains(cap)) {
            format!("cap {cap:?} has to be from 1 to {MAX_SCALE}")
        } else {
            return Ok(());
        };
        Err(Error::InvalidGuidance(reason))
    }

    /// Applies the rule to an estimate of clean images, to each image by itself. An infinity becomes a NaN: clipped, it would
    /// look like a pixel.
    ///
    /// # Shapes
    /// `denoised`: `[n, ..]`; the result has the same shape.
    ///
    /// # Errors
    /// [`Error::InvalidGuidance`] for a percentile or a cap that [`Guidance::validate`] refuses; [`Error::Torch`] if
    /// libtorch fails.
    pub fn apply(&self, denoised: Tensor) -> Result<Tensor> {
        self.validate()?;
        match *self {
            Self::None => Ok(denoised),
            Self::Static => Ok(denoised.f_clamp(-1.0, 1.0)?.f_add_(&nothing_or_nan(&denoised)?)?),
            Self::Dynamic { percentile, cap } => {
                let s = quantile(&denoised.f_abs()?.f_flatten(1, -1)?, percentile)?;
                let s = s.f_clamp(1.0, cap.unwrap_or(f64::INFINITY))?;
                // One s per image, against all other dimensions: [n, 1, ..].
                let mut shape = vec![1; denoised.dim()];
                if let Some(images) = shape.first_mut() {
                    *images = -1;
                }
                let s = s.f_reshape(shape)?;
                let clipped = denoised.f_clamp_tensor(Some(&s.f_neg()?), Some(&s))?;
                Ok(clipped.f_div(&s)?.f_add_(&nothing_or_nan(&denoised)?)?)
            }
        }
    }
}

/// 0 for a number, NaN for an infinity or a NaN. Nothing is read back from the device.
fn nothing_or_nan(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_sub(x)?)
}

/// The `q`-quantile of each row, with linear interpolation, like `torch.quantile` but for rows of any length
/// (libtorch's refuses more than 2^24 elements, a picture of 2400 pixels square).
///
/// `rows`: `[n, length]`; the result: `[n]`.
fn quantile(rows: &Tensor, q: f64) -> Result<Tensor> {
    let (_, length) = rows.size2()?;
    let rank = q * (length - 1) as f64;
    let value_at = |rank: f64| -> Result<Tensor> { Ok(rows.f_kthvalue(rank as i64 + 1, 1, false)?.0) };
    Ok(value_at(rank.floor())?.f_lerp(&value_at(rank.ceil())?, rank.fract())?)
}

/// Whether the conditional and the unconditional evaluation are made together.
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

    /// Returns the inner denoiser.
    pub fn into_inner(self) -> B {
        self.denoiser
    }

    /// The conditional estimate, and the unconditional image.
    fn both(&mut self, x: &Tensor, sigma: f64) -> Result<(Estimate, Tensor)> {
        match self.rows {
            Rows::Batched => {
                let twice = Tensor::f_cat(&[x, x], 0)?;
                let Estimate { denoised, variance } = self.denoiser.estimate_branch(&twice, sigma, Branch::Both)?;
                check_shape(&twice, &denoised, sigma)?;
                let n = x.size().first().copied().unwrap_or(0);
                let variance = variance.map(|variance| variance.f_narrow(0, 0, n)).transpose()?;
                Ok((Estimate { denoised: denoised.f_narrow(0, 0, n)?, variance }, denoised.f_narrow(0, n, n)?))
            }
            Rows::Sequential => {
                let conditional = self.denoiser.estimate_branch(x, sigma, Branch::Conditional)?;
                check_shape(x, &conditional.denoised, sigma)?;
                let unconditional = self.denoiser.estimate_branch(x, sigma, Branch::Unconditional)?.denoised;
                check_shape(x, &unconditional, sigma)?;
                Ok((conditional, unconditional))
            }
        }
    }
}

impl<B: BranchDenoiser> Denoiser for Guided<B> {
    /// The variance is not guided: it is that of the conditional estimate, if there is one.
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate> {
        let Estimate { denoised, variance } = match self.guidance.branch(sigma) {
            Branch::Both => {
                let (conditional, unconditional) = self.both(x, sigma)?;
                let denoised = unconditional.f_lerp(&conditional.denoised, self.guidance.scale)?;
                Estimate { denoised, ..conditional }
            }
            one => self.denoiser.estimate_branch(x, sigma, one)?,
        };
        Ok(Estimate { denoised: self.guidance.thresholding.apply(denoised)?, variance })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// The conditional estimate is 3 x, the unconditional one 2 x; counts the rows it computes.
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

    #[test]
    fn static_thresholding_clips() {
        let denoised = Thresholding::Static.apply(Tensor::from_slice(&[-3.0_f32, -0.5, 2.0])).unwrap();
        assert!(denoised.equal(&Tensor::from_slice(&[-1.0_f32, -0.5, 1.0])));
    }

    #[test]
    fn dynamic_thresholding_scales_each_image_by_its_own_percentile() {
        let images = Tensor::from_slice(&[-4.0_f32, 1.0, 2.0, 3.0, 0.1, -0.2, 0.3, 0.4]).reshape([2, 1, 2, 2]);
        // Sorted absolute values of the first image: 1 2 3 4; its 0.5-quantile is 2.5. The second stays as it is.
        let half = Thresholding::Dynamic { percentile: 0.5, cap: None }.apply(images.shallow_clone()).unwrap();
        let expected = [-1.0_f32, 0.4, 0.8, 1.0, 0.1, -0.2, 0.3, 0.4];
        assert!(close(&half, &Tensor::from_slice(&expected).reshape([2, 1, 2, 2])));
        let capped = Thresholding::Dynamic { percentile: 1.0, cap: Some(2.0) }.apply(images).unwrap();
        let expected = [-1.0_f32, 0.5, 1.0, 1.0, 0.1, -0.2, 0.3, 0.4];
        assert!(close(&capped, &Tensor::from_slice(&expected).reshape([2, 1, 2, 2])));
    }

    #[test]
    fn what_is_no_number_is_not_clipped_to_one() {
        let rules = [Thresholding::None, Thresholding::Static, Thresholding::Dynamic { percentile: 0.5, cap: None }];
        for rule in rules {
            for wrong in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                let images = Tensor::from_slice(&[wrong, 1.0, 2.0, 3.0]).reshape([1, 1, 2, 2]);
                let numbers: Vec<f32> = Vec::try_from(rule.apply(images).unwrap().flatten(0, -1)).unwrap();
                let finite: Vec<_> = numbers.iter().map(|number| number.is_finite()).collect();
                assert_eq!(finite, [false, true, true, true], "{rule:?} makes {numbers:?} of {wrong}");
            }
        }
    }

    #[test]
    fn the_quantile_is_that_of_torch() {
        let rows = crate::noise::NoiseSource::normal(&mut crate::seed::Noise::new(&[1, 2], 0), &[2, 1001]).unwrap();
        for q in [0.1, 0.5, 0.995, 1.0] {
            let expected = rows.quantile_scalar(q, 1, false, "linear");
            assert!(close(&quantile(&rows, q).unwrap(), &expected), "{q}");
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
        let full = r#"{"scale":2.0,"interval":[0.28,2.9],"thresholding":{"dynamic":{"percentile":0.995,"cap":1.5}}}"#;
        let guidance: Guidance = serde_json::from_str(full).unwrap();
        assert_eq!(serde_json::to_string(&guidance).unwrap(), full);
        let error = serde_json::from_str::<Guidance>(r#"{"scale": 5.0, "rescale": 1}"#).unwrap_err();
        assert!(error.to_string().contains("rescale"), "{error}");
    }
}
