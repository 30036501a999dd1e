//! Efficient U-Net: eDiff-I's super-resolution (Saharia et al. 2022, Imagen, appendix B.1; eDiff-I, appendix A, tables 3 and
//! 4).
//!
//! A level is entered by a strided convolution and left by one after enlargement. It has one skip, scaled by 1/√2, and
//! attention at its end.

use std::f64::consts::FRAC_1_SQRT_2;

use super::ediffi::ediffi_layout;
use super::parts::{ContextConfig, Dimensions, Downsample, Level, Resample, Trunk, Upsample};
use crate::Result;
use crate::nn::Norm;

/// The dimensions of an Efficient U-Net.
#[derive(Debug, Clone, PartialEq)]
pub struct Efficient(pub Dimensions);

impl Efficient {
    /// eDiff-I's 64 → 256 (table 3): channels 128 × (1, 2, 4, 8), 2 × (1, 2, 4, 4) blocks, self- and cross-attention at 32.
    ///
    /// Not in the paper: the choices of [`Adm::base_64`](super::Adm::base_64), too.
    #[must_use]
    pub fn sr_256() -> Self {
        Self::paper([1, 2, 4, 8], true)
    }

    /// eDiff-I's 256 → 1024 (table 4): channels 128 × (1, 2, 4, 4), 2 × (1, 2, 4, 4) blocks, cross-attention alone, at the
    /// side that is 32 in its 256×256 training crops.
    #[must_use]
    pub fn sr_1024() -> Self {
        Self::paper([1, 2, 4, 4], false)
    }

    /// Attention stands at the lowest resolution only.
    fn paper(multipliers: [i64; 4], self_attention: bool) -> Self {
        let level = |(index, (multiplier, blocks))| Level {
            multiplier,
            blocks: 2 * blocks,
            self_attention: self_attention && index == 3,
            cross_attention: index == 3,
        };
        Self(Dimensions {
            picture_channels: 3,
            low_res: true,
            patch: 1,
            channels: 128,
            levels: multipliers.into_iter().zip([1_usize, 2, 4, 4]).enumerate().map(level).collect(),
            head_channels: 64,
            norm: Norm::Group(32),
            embedding_width: 512,
            context: Some(ContextConfig::EDIFFI),
            detail: None,
        })
    }
}

fn lay_out(net: &Dimensions, trunk: &mut Trunk<'_>) -> Result<()> {
    let last = net.levels.len() - 1;
    for (i, level) in net.levels.iter().enumerate() {
        if i > 0 {
            let outputs = net.width(i);
            trunk.add(trunk.numbered("down"), outputs, |scope, inputs| Downsample::new(scope, inputs, outputs))?;
        }
        blocks(net, trunk, i, level)?;
        // The deepest level's way up begins where its way down ends: nothing to carry over.
        if i < last {
            trunk.push();
        }
    }
    for (i, level) in net.levels.iter().enumerate().rev() {
        if i < last {
            trunk.concat(FRAC_1_SQRT_2)?;
        }
        blocks(net, trunk, i, level)?;
        if i > 0 {
            let outputs = net.width(i - 1);
            trunk.add(trunk.numbered("up"), outputs, |scope, inputs| Upsample::new(scope, inputs, outputs))?;
        }
    }
    Ok(())
}

fn blocks(net: &Dimensions, trunk: &mut Trunk<'_>, index: usize, level: &Level) -> Result<()> {
    for _ in 0..level.blocks {
        net.res(trunk, net.width(index), Resample::Keep)?;
    }
    net.attention(trunk, level)
}

ediffi_layout!(Efficient);
