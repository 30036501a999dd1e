//! Feature maps that the way down keeps for the way up.

use tch::Tensor;

use crate::Result;
use crate::unet::pass::{Block, Pass};

/// Keeps the feature map for the way up.
#[derive(Debug)]
pub struct Push;

impl Block for Push {
    fn forward(&self, h: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        pass.push(&h);
        Ok(h)
    }
}

/// Concatenates the feature map that was kept last, times `scale`.
#[derive(Debug)]
pub struct Concat {
    /// What the kept feature map is multiplied by.
    pub scale: f64,
}

impl Block for Concat {
    fn forward(&self, h: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let skip = pass.pop()?;
        let skip = if self.scale == 1.0 { skip } else { skip.f_mul_scalar(self.scale)? };
        Ok(Tensor::f_cat(&[h, skip], 1)?)
    }
}
