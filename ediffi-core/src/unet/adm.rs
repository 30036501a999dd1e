//! ADM with cross-attention: eDiff-I's base (Dhariwal & Nichol 2021; eDiff-I, appendix A, table 2).
//!
//! A skip from every block, residual blocks that resample, attention after every block of a level that has it, and a middle.

use super::ediffi::ediffi_layout;
use super::parts::{ContextConfig, Dimensions, Level, Resample, Trunk};
use crate::Result;
use crate::nn::Norm;

/// The dimensions of an ADM.
#[derive(Debug, Clone, PartialEq)]
pub struct Adm(pub Dimensions);

impl Adm {
    /// eDiff-I's 64×64 base (table 2): channels 256 × (1, 2, 4, 4), 3 blocks, self- and cross-attention at 32, 16 and 8.
    ///
    /// Not in the paper: 64 channels a head (ADM's and EDM's), and ADM's 32 groups a norm and noise embedding four times as
    /// wide as the base channels.
    #[must_use]
    pub fn base_64() -> Self {
        let level = |(multiplier, attention)| Level {
            multiplier,
            blocks: 3,
            self_attention: attention,
            cross_attention: attention,
        };
        Self(Dimensions {
            picture_channels: 3,
            low_res: false,
            patch: 1,
            channels: 256,
            levels: [(1, false), (2, true), (4, true), (4, true)].map(level).to_vec(),
            head_channels: 64,
            norm: Norm::Group(32),
            embedding_width: 1024,
            context: Some(ContextConfig::EDIFFI),
            detail: None,
        })
    }
}

fn lay_out(net: &Dimensions, trunk: &mut Trunk<'_>) -> Result<()> {
    let last = net.levels.len() - 1;
    trunk.push();
    for (i, level) in net.levels.iter().enumerate() {
        for _ in 0..level.blocks {
            net.res(trunk, net.width(i), Resample::Keep)?;
            net.attention(trunk, level)?;
            trunk.push();
        }
        if i < last {
            net.res(trunk, net.width(i), Resample::Pool)?;
            trunk.push();
        }
    }
    net.res(trunk, net.width(last), Resample::Keep)?;
    if let Some(deepest) = net.levels.last() {
        net.attention(trunk, deepest)?;
    }
    net.res(trunk, net.width(last), Resample::Keep)?;
    for (i, level) in net.levels.iter().enumerate().rev() {
        for _ in 0..=level.blocks {
            trunk.concat(1.0)?;
            net.res(trunk, net.width(i), Resample::Keep)?;
            net.attention(trunk, level)?;
        }
        if i > 0 {
            net.res(trunk, net.width(i), Resample::Nearest)?;
        }
    }
    Ok(())
}

ediffi_layout!(Adm);
