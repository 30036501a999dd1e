//! Changes of resolution.

use tch::Tensor;

use crate::Result;
use crate::nn::{Conv2d, channels_last};
use crate::unet::pass::{Block, Pass};
use crate::weights::Scope;

/// A change of resolution without parameters: what ADM does inside a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resample {
    /// None.
    Keep,
    /// The mean of every 2×2 pixels.
    Pool,
    /// Every pixel becomes 2×2.
    Nearest,
}

impl Resample {
    /// # Shapes
    /// `x`: [n, c, h, w] → [n, c, h', w']
    ///
    /// # Errors
    /// A tensor that is not four-dimensional.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Keep => x.shallow_clone(),
            Self::Pool => x.f_avg_pool2d([2], [2], [0], false, true, None)?,
            Self::Nearest => {
                let (_, _, h, w) = x.size4()?;
                x.f_upsample_nearest2d([2 * h, 2 * w], None, None)?
            }
        })
    }
}

/// A strided convolution, which halves the sides (Efficient U-Net).
#[derive(Debug)]
pub struct Downsample(Conv2d);

impl Downsample {
    /// From `inputs` channels to `outputs`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(scope: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self> {
        Ok(Self(Conv2d::strided(scope, inputs, outputs, 3, 2)?))
    }
}

impl Block for Downsample {
    fn forward(&self, h: Tensor, _pass: &mut Pass<'_>) -> Result<Tensor> {
        self.0.forward(&h)
    }
}

/// Repeats every pixel in 2×2, then a convolution (Efficient U-Net).
#[derive(Debug)]
pub struct Upsample(Conv2d);

impl Upsample {
    /// From `inputs` channels to `outputs`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(scope: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self> {
        Ok(Self(Conv2d::new(scope, inputs, outputs, 3)?))
    }
}

impl Block for Upsample {
    fn forward(&self, h: Tensor, _pass: &mut Pass<'_>) -> Result<Tensor> {
        self.0.forward(&channels_last(&Resample::Nearest.apply(&h)?)?)
    }
}
