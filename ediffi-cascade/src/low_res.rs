//! The smaller picture as a condition of super-resolution.
//!
//! A super-resolution network sees the smaller picture, enlarged, beside the noisy one.

use ediffi_core::noise::NoiseSource;
use ediffi_core::timesteps::NoiseTable;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;

/// Enlarges pictures with a bicubic filter (a = -0.75, pixel centres at half integers), and keeps them in [-1, 1], which
/// the filter overshoots.
///
/// # Shapes
/// `x`: [n, 3, h, w] → [n, 3, height, width] f32
///
/// # Errors
/// A tensor that is not four-dimensional, or sizes that are not positive.
pub fn enlarge(x: &Tensor, height: i64, width: i64) -> Result<Tensor> {
    let _no_grad = tch::no_grad_guard();
    Ok(bicubic(x, height, width)?)
}

/// [`enlarge`] with the errors of the core.
pub(crate) fn bicubic(x: &Tensor, height: i64, width: i64) -> ediffi_core::Result<Tensor> {
    let x = x.f_to_kind(Kind::Float)?;
    Ok(x.f_upsample_bicubic2d([height, width], false, None, None)?.f_clamp(-1.0, 1.0)?)
}

/// How the smaller picture is enlarged to the stage's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Enlarging {
    /// See [`enlarge`].
    #[default]
    Bicubic,
    /// Bilinear, the centres of the corner pixels lying on each other (torch's `align_corners`): DeepFloyd IF's.
    BilinearCorners,
    /// Bicubic with the filter that smaller pictures need (a = -0.5; torch's `antialias`), which may overshoot [-1, 1]: unCLIP's.
    BicubicAntialias,
}

/// How the smaller picture becomes a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LowRes {
    /// How it is enlarged.
    pub enlarging: Enlarging,
    /// The timestep of DDPM whose noise is mixed into it, for networks that are told so ("noise conditioning augmentation", Ho
    /// et al. 2021, "Cascaded Diffusion Models"): it hides what the stage before got wrong. DeepFloyd IF uses 250.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_level: Option<usize>,
}

impl LowRes {
    /// unCLIP's: no noise.
    #[must_use]
    pub fn unclip() -> Self {
        Self { enlarging: Enlarging::BicubicAntialias, noise_level: None }
    }

    /// DeepFloyd IF's: bilinear, noise level 250 (of 1000).
    #[must_use]
    pub fn deepfloyd() -> Self {
        Self { enlarging: Enlarging::BilinearCorners, noise_level: Some(250) }
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn validate(&self, table: NoiseTable) -> std::result::Result<(), String> {
        let count = table.len();
        match self.noise_level {
            Some(level) if level >= count => Err(format!("noise_level {level} is no timestep: there are {count}")),
            _ => Ok(()),
        }
    }

    /// The condition, with the noise of a timestep of `table` if the rule adds one. It is drawn once for a whole generation,
    /// after that of the start.
    ///
    /// # Shapes
    /// `x`: [n, 3, h, w] in [-1, 1] → [n, 3, height, width] f32
    pub(crate) fn condition(
        &self,
        x: &Tensor,
        height: i64,
        width: i64,
        table: NoiseTable,
        noise: &mut dyn NoiseSource,
    ) -> ediffi_core::Result<Tensor> {
        let enlarged = match self.enlarging {
            Enlarging::Bicubic => bicubic(x, height, width)?,
            Enlarging::BilinearCorners => {
                x.f_to_kind(Kind::Float)?.f_upsample_bilinear2d([height, width], true, None, None)?
            }
            Enlarging::BicubicAntialias => {
                x.f_to_kind(Kind::Float)?.f_internal_upsample_bicubic2d_aa([height, width], false, None, None)?
            }
        };
        let Some(alpha_bar) = self.noise_level.and_then(|level| table.alpha_bars().get(level)) else {
            return Ok(enlarged);
        };
        let drawn = noise.normal(&enlarged.size())?.f_to_device(enlarged.device())?;
        let kept = enlarged.f_mul_scalar(f64::from(alpha_bar.sqrt()))?;
        Ok(kept.f_add(&drawn.f_mul_scalar(f64::from((1.0 - alpha_bar).sqrt()))?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::Device;

    use super::*;
    use crate::Error;

    fn grey(height: i64, width: i64) -> Tensor {
        Tensor::full([1, 3, height, width], 0.25, (Kind::Float, Device::Cpu))
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        f64::try_from((a - b).abs().max()).unwrap()
    }

    #[test]
    fn enlarging_is_bicubic_and_keeps_the_range() {
        assert!(difference(&enlarge(&grey(4, 6), 16, 18).unwrap(), &grey(16, 18)) < 1e-6);
        // A line of the picture becomes Keys' kernel: pixel k of the enlarged lies at (k + 1/2) / 2 - 1/2 of the smaller.
        let line = grey(8, 8).zeros_like();
        let _ = line.narrow(3, 3, 1).fill_(1.0);
        let wide = enlarge(&line, 16, 16).unwrap();
        let a = -0.75_f64;
        for k in 0..16 {
            let d = ((k as f64 + 0.5) / 2.0 - 0.5 - 3.0).abs();
            let expected = match d {
                ..1.0 => (a + 2.0) * d.powi(3) - (a + 3.0) * d.powi(2) + 1.0,
                ..2.0 => a * (d.powi(3) - 5.0 * d.powi(2) + 8.0 * d - 4.0),
                _ => 0.0,
            };
            assert!((wide.double_value(&[0, 0, 8, k]) - expected).abs() < 1e-6, "{k}");
        }
        // It overshoots at an edge, and the result does not.
        let edge = Tensor::cat(&[grey(8, 4).full_like(-1.0), grey(8, 4).full_like(1.0)], 3);
        let raw = edge.upsample_bicubic2d([32, 32], false, None, None);
        assert!(f64::try_from(raw.max()).unwrap() > 1.05);
        assert_eq!(f64::try_from(enlarge(&edge, 32, 32).unwrap().abs().max()).unwrap(), 1.0);
    }

    #[test]
    fn shapes_that_are_no_pictures_are_errors() {
        let flat = Tensor::zeros([4, 4], (Kind::Float, Device::Cpu));
        assert!(matches!(enlarge(&flat, 8, 8), Err(Error::Core { .. })));
        assert!(matches!(enlarge(&grey(4, 4), 0, 8), Err(Error::Core { .. })));
    }

    struct Recorded(Tensor);

    impl NoiseSource for Recorded {
        fn normal(&mut self, shape: &[i64]) -> ediffi_core::Result<Tensor> {
            assert_eq!(self.0.size(), shape);
            Ok(self.0.shallow_clone())
        }
    }

    /// The smaller picture of stage II is that of diffusers before and after the noise. Corners that are not aligned fail here,
    /// and noise without its weight.
    #[test]
    fn the_condition_is_that_of_diffusers() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../ediffi-core/tests/fixtures/deepfloyd/loop-stage-2.safetensors");
        let io: BTreeMap<String, Tensor> = Tensor::read_safetensors(path).unwrap().into_iter().collect();
        let mut noise = Recorded(io["low_noise"].shallow_clone());
        let clean = LowRes { noise_level: None, ..LowRes::deepfloyd() };
        let enlarged = clean.condition(&io["low"], 16, 16, NoiseTable::SquaredCosine, &mut noise).unwrap();
        assert!(difference(&enlarged, &io["enlarged"]) < 1e-6);
        let noised = LowRes::deepfloyd().condition(&io["low"], 16, 16, NoiseTable::SquaredCosine, &mut noise).unwrap();
        assert!(difference(&noised, &io["noised"]) < 1e-6);
        // Another table has another level at the timestep.
        let linear = LowRes::deepfloyd().condition(&io["low"], 16, 16, NoiseTable::Linear, &mut noise).unwrap();
        let kept = f64::from(NoiseTable::Linear.alpha_bars()[250]);
        let expected = &io["enlarged"] * kept.sqrt() + &io["low_noise"] * (1.0 - kept).sqrt();
        assert!(difference(&linear, &expected) < 1e-6 && difference(&linear, &noised) > 0.1);
        // The same picture by another filter is another one.
        let bicubic = LowRes::default().condition(&io["low"], 16, 16, NoiseTable::SquaredCosine, &mut noise).unwrap();
        assert!(difference(&bicubic, &io["enlarged"]) > 0.05);
    }

    /// A line becomes Keys' kernel with a = -0.5, which the other filter has not, and an edge overshoots.
    #[test]
    fn unclip_s_filter_is_the_one_that_smaller_pictures_need() {
        let line = grey(8, 8).zeros_like();
        let _ = line.narrow(3, 3, 1).fill_(2.0);
        let mut none = Recorded(grey(1, 1));
        let condition = |x: &Tensor, noise: &mut Recorded| {
            LowRes::unclip().condition(x, 16, 16, NoiseTable::SquaredCosine, noise).unwrap()
        };
        let wide = condition(&line, &mut none);
        let a = -0.5_f64;
        for k in 0..16 {
            let d = ((k as f64 + 0.5) / 2.0 - 0.5 - 3.0).abs();
            let expected = match d {
                ..1.0 => (a + 2.0) * d.powi(3) - (a + 3.0) * d.powi(2) + 1.0,
                ..2.0 => a * (d.powi(3) - 5.0 * d.powi(2) + 8.0 * d - 4.0),
                _ => 0.0,
            };
            assert!((wide.double_value(&[0, 0, 8, k]) - 2.0 * expected).abs() < 1e-6, "{k}");
        }
        let edge = Tensor::cat(&[grey(8, 4).full_like(-1.0), grey(8, 4).full_like(1.0)], 3);
        assert!(f64::try_from(condition(&edge, &mut none).max()).unwrap() > 1.02);
        let text = r#"{"enlarging":"bicubic-antialias"}"#;
        assert_eq!(serde_json::to_string(&LowRes::unclip()).unwrap(), text);
    }

    #[test]
    fn levels_are_timesteps() {
        let validate =
            |level| LowRes { noise_level: Some(level), ..LowRes::default() }.validate(NoiseTable::SquaredCosine);
        assert!(validate(999).is_ok());
        let error = validate(1000).unwrap_err();
        assert!(error.contains("noise_level 1000"), "{error}");
        let text = r#"{"enlarging":"bilinear-corners","noise_level":250}"#;
        assert_eq!(serde_json::from_str::<LowRes>(text).unwrap(), LowRes::deepfloyd());
        assert_eq!(serde_json::to_string(&LowRes::deepfloyd()).unwrap(), text);
    }
}
