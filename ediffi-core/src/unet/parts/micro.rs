//! What is said of a picture in numbers (Podell et al. 2023, "SDXL", section 2.2, micro-conditioning).

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::time::Sinusoids;
use crate::Result;
use crate::nn::{Activation, Linear};
use crate::weights::Scope;

/// The numbers that a network takes of each picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Micro {
    /// How many there are: height and width of the original, top and left of the crop; then height and width of the target, or one score.
    pub numbers: i64,
    /// Cosines and sines that each of them becomes.
    pub width: i64,
}

/// The pooled text and the cosines and sines of the numbers, side by side, through two linear maps with SiLU between, in f32 (diffusers'
/// `text_time`).
#[derive(Debug)]
pub struct MicroEmbedding {
    micro: Micro,
    first: Linear,
    second: Linear,
    device: Device,
}

impl MicroEmbedding {
    /// From pooled texts of `pooled` channels to vectors of `width`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, micro: Micro, pooled: i64, width: i64) -> Result<Self> {
        let inputs = pooled + micro.numbers * micro.width;
        let first = Linear::precise(scope.at("linear_1"), inputs, width)?;
        let second = Linear::precise(scope.at("linear_2"), width, width)?;
        let device = first.device();
        Ok(Self { micro, first, second, device })
    }

    /// # Shapes
    /// `pooled`: [rows, pooled], `numbers`: [rows, numbers] → [rows, width] f32
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, pooled: &Tensor, numbers: &Tensor) -> Result<Tensor> {
        let Micro { numbers: count, width } = self.micro;
        let here = |x: &Tensor| -> Result<Tensor> { Ok(x.f_to_device(self.device)?.f_to_kind(Kind::Float)?) };
        let sinusoids = Sinusoids { width, multiply_first: true };
        let waves = sinusoids.forward(&here(numbers)?.f_flatten(0, -1)?)?.f_reshape([-1, count * width])?;
        let joined = Tensor::f_cat(&[here(pooled)?, waves], 1)?;
        self.second.forward(&Activation::Silu.apply(&self.first.forward(&joined)?)?)
    }
}
