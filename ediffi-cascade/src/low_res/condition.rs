//! How a stage is shown the smaller picture.

use ediffi_core::Result;
use ediffi_core::noise::NoiseSource;
use ediffi_core::timesteps::NoiseTable;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::bicubic;

/// How the smaller picture is enlarged to the stage's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Enlarging {
    /// See [`enlarge`](super::enlarge).
    #[default]
    Bicubic,
    /// Bilinear, the centres of the corner pixels lying on each other (torch's `align_corners`): DeepFloyd IF's.
    BilinearCorners,
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
    /// DeepFloyd IF's: bilinear, noise level 250 (of 1000).
    #[must_use]
    pub fn deepfloyd() -> Self {
        Self { enlarging: Enlarging::BilinearCorners, noise_level: Some(250) }
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn validate(&self) -> std::result::Result<(), String> {
        let count = NoiseTable::squared_cosine().len();
        match self.noise_level {
            Some(level) if level >= count => Err(format!("noise_level {level} is no timestep: there are {count}")),
            _ => Ok(()),
        }
    }

    /// The condition. The noise is drawn once for a whole generation, after that of the start.
    ///
    /// # Shapes
    /// `x`: [n, 3, h, w] in [-1, 1] → [n, 3, height, width] f32
    pub(crate) fn condition(&self, x: &Tensor, height: i64, width: i64, noise: &mut dyn NoiseSource) -> Result<Tensor> {
        let enlarged = match self.enlarging {
            Enlarging::Bicubic => bicubic(x, height, width)?,
            Enlarging::BilinearCorners => {
                x.f_to_kind(Kind::Float)?.f_upsample_bilinear2d([height, width], true, None, None)?
            }
        };
        let table = NoiseTable::squared_cosine();
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

    use super::*;

    struct Recorded(Tensor);

    impl NoiseSource for Recorded {
        fn normal(&mut self, shape: &[i64]) -> Result<Tensor> {
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
        let difference = |a: &Tensor, b: &Tensor| f64::try_from((a - b).abs().max()).unwrap();
        let clean = LowRes { noise_level: None, ..LowRes::deepfloyd() };
        let enlarged = clean.condition(&io["low"], 16, 16, &mut noise).unwrap();
        assert!(difference(&enlarged, &io["enlarged"]) < 1e-6);
        let noised = LowRes::deepfloyd().condition(&io["low"], 16, 16, &mut noise).unwrap();
        assert!(difference(&noised, &io["noised"]) < 1e-6);
        // The same picture by another filter is another one.
        let bicubic = LowRes::default().condition(&io["low"], 16, 16, &mut noise).unwrap();
        assert!(difference(&bicubic, &io["enlarged"]) > 0.05);
    }

    #[test]
    fn levels_are_timesteps() {
        assert!(LowRes { noise_level: Some(999), ..LowRes::default() }.validate().is_ok());
        let error = LowRes { noise_level: Some(1000), ..LowRes::default() }.validate().unwrap_err();
        assert!(error.contains("noise_level 1000"), "{error}");
        let text = r#"{"enlarging":"bilinear-corners","noise_level":250}"#;
        assert_eq!(serde_json::from_str::<LowRes>(text).unwrap(), LowRes::deepfloyd());
        assert_eq!(serde_json::to_string(&LowRes::deepfloyd()).unwrap(), text);
    }
}
