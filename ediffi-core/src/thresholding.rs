//! Thresholding: keeping the estimate of the clean image in the range of pixels.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{Error, Result};

/// The highest cap. A higher number is taken for a mistake.
pub const MAX_CAP: f64 = 1000.0;

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
    /// It is clipped to \[-bound, bound\]: what is drawn are no pixels. unCLIP's prior clips its embeddings at 5.
    Within {
        /// The highest absolute value.
        bound: f64,
    },
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
    pub(crate) fn validate(&self) -> Result<()> {
        if let Self::Within { bound } = *self
            && !(bound > 0.0 && bound <= MAX_CAP)
        {
            let reason = format!("bound {bound:?} has to be above 0 and at most {MAX_CAP}");
            return Err(Error::InvalidGuidance(reason));
        }
        let Self::Dynamic { percentile, cap } = *self else { return Ok(()) };
        let reason = if !(percentile > 0.0 && percentile <= 1.0) {
            format!("percentile {percentile:?} has to be above 0 and at most 1")
        } else if let Some(cap) = cap.filter(|cap| !(1.0..=MAX_CAP).contains(cap)) {
            format!("cap {cap:?} has to be from 1 to {MAX_CAP}")
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
    /// [`Error::InvalidGuidance`] for a percentile or a cap that [`Guidance::validate`](crate::guidance::Guidance::validate) refuses; [`Error::Torch`] if
    /// libtorch fails.
    pub fn apply(&self, denoised: Tensor) -> Result<Tensor> {
        self.validate()?;
        match *self {
            Self::None => Ok(denoised),
            Self::Static => clipped(&denoised, 1.0),
            Self::Within { bound } => clipped(&denoised, bound),
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

/// Clipped to [-bound, bound].
fn clipped(denoised: &Tensor, bound: f64) -> Result<Tensor> {
    Ok(denoised.f_clamp(-bound, bound)?.f_add_(&nothing_or_nan(denoised)?)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &Tensor, b: &Tensor) -> bool {
        a.size() == b.size() && f64::try_from((a - b).abs().max()).unwrap() < 1e-4
    }

    #[test]
    fn static_thresholding_clips() {
        let denoised = Thresholding::Static.apply(Tensor::from_slice(&[-3.0_f32, -0.5, 2.0])).unwrap();
        assert!(denoised.equal(&Tensor::from_slice(&[-1.0_f32, -0.5, 1.0])));
        let within = Thresholding::Within { bound: 2.5 };
        assert!(
            within
                .apply(Tensor::from_slice(&[-3.0_f32, -0.5, 2.0]))
                .unwrap()
                .equal(&Tensor::from_slice(&[-2.5_f32, -0.5, 2.0]))
        );
        assert_eq!(serde_json::to_string(&within).unwrap(), r#"{"within":{"bound":2.5}}"#);
        for bound in [0.0, -1.0, f64::NAN, 1e9] {
            assert!(Thresholding::Within { bound }.validate().is_err(), "{bound}");
        }
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
        let rules = [
            Thresholding::None,
            Thresholding::Static,
            Thresholding::Within { bound: 5.0 },
            Thresholding::Dynamic { percentile: 0.5, cap: None },
        ];
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
}
