//! ADM's plan with one kind of attention and with the names of diffusers: what the layouts of DeepFloyd IF and of unCLIP share.

use super::context::ContextSource;
use super::layout::Body;
use super::parts::{
    Dimensions, Heads, JointAttention, Level, Modulation, ResBlock, ResBlockConfig, Resample, Sinusoids, TimeEmbedding,
    Trunk,
};
use crate::Result;
use crate::nn::{Activation, Conv2d, MapNorm};
use crate::weights::Scope;

/// Epsilon of the norms of attention (the default of diffusers' `Attention`).
pub(super) const ATTENTION_EPS: f64 = 1e-5;

/// A network of this plan, apart from what reads its embeddings.
#[derive(Debug, Clone, Copy)]
pub(super) struct JointAdm<'a> {
    pub(super) dimensions: &'a Dimensions,
    /// Whether the output has as many channels again.
    pub(super) variance: bool,
    /// The nonlinearity of the blocks, and between the two maps of the noise embedding.
    pub(super) activation: Activation,
    /// The nonlinearity of the finished noise embedding.
    pub(super) embedding_activation: Activation,
    /// Epsilon of the norms of residual blocks and of the last one.
    pub(super) norm_eps: f64,
    pub(super) modulation: Modulation,
    /// What the sum at the end of a residual block is divided by, and of the two of the middle.
    pub(super) scales: [f64; 2],
    /// Its attention; none of a network that reads no tokens.
    pub(super) attention: Option<Joint>,
}

/// The attention of a network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joint {
    /// Width of the tokens.
    pub(super) width: i64,
    /// Whether they are normed before each layer.
    pub(super) normed: bool,
    /// Whether that of the middle sees the pixels.
    pub(super) middle_sees_pixels: bool,
}

impl JointAdm<'_> {
    fn res(&self, trunk: &mut Trunk<'_>, name: String, outputs: i64, resample: Resample, divisor: f64) -> Result<()> {
        let config = |inputs| ResBlockConfig {
            inputs,
            outputs,
            embedding_width: self.dimensions.embedding_width,
            norm: self.dimensions.norm,
            eps: self.norm_eps,
            activation: self.activation,
            modulation: self.modulation,
            resample,
            divisor,
            names: ["time_emb_proj", "conv_shortcut"],
        };
        trunk.add(name, outputs, |scope, inputs| ResBlock::new(scope, config(inputs)))
    }

    fn joint(&self, trunk: &mut Trunk<'_>, name: String, see_pixels: bool) -> Result<()> {
        let Some(Joint { width: tokens, normed, .. }) = self.attention else { return Ok(()) };
        let Dimensions { head_channels, norm, .. } = *self.dimensions;
        trunk.add(name, trunk.channels(), |scope, width| {
            let heads = Heads::Width(head_channels);
            JointAttention::new(scope, (width, tokens), heads, norm, ATTENTION_EPS, see_pixels, normed)
        })
    }

    fn lay_out(&self, trunk: &mut Trunk<'_>) -> Result<()> {
        let (levels, width) = (&self.dimensions.levels, |level| self.dimensions.width(level));
        let [residual_scale, middle_scale] = self.scales;
        let last = levels.len() - 1;
        let block = |trunk: &mut Trunk<'_>, name: String, i: usize, resample| {
            self.res(trunk, name, width(i), resample, residual_scale)
        };
        let attention = |trunk: &mut Trunk<'_>, name: String, level: &Level| match level.cross_attention {
            true => self.joint(trunk, name, level.self_attention),
            false => Ok(()),
        };
        trunk.push();
        for (i, level) in levels.iter().enumerate() {
            for j in 0..level.blocks {
                block(trunk, format!("down_blocks.{i}.resnets.{j}"), i, Resample::Keep)?;
                attention(trunk, format!("down_blocks.{i}.attentions.{j}"), level)?;
                trunk.push();
            }
            if i < last {
                block(trunk, format!("down_blocks.{i}.downsamplers.0"), i, Resample::Pool)?;
                trunk.push();
            }
        }
        self.res(trunk, "mid_block.resnets.0".to_owned(), width(last), Resample::Keep, middle_scale)?;
        if let Some(Joint { middle_sees_pixels, .. }) = self.attention {
            self.joint(trunk, "mid_block.attentions.0".to_owned(), middle_sees_pixels)?;
        }
        self.res(trunk, "mid_block.resnets.1".to_owned(), width(last), Resample::Keep, middle_scale)?;
        for (up, (i, level)) in levels.iter().enumerate().rev().enumerate() {
            for j in 0..=level.blocks {
                trunk.concat(1.0)?;
                block(trunk, format!("up_blocks.{up}.resnets.{j}"), i, Resample::Keep)?;
                attention(trunk, format!("up_blocks.{up}.attentions.{j}"), level)?;
            }
            if i > 0 {
                block(trunk, format!("up_blocks.{up}.upsamplers.0"), i, Resample::Nearest)?;
            }
        }
        Ok(())
    }

    /// Builds the network around `context`, what reads its embeddings.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub(super) fn body(&self, mut scope: Scope<'_>, context: Option<Box<dyn ContextSource>>) -> Result<Body> {
        let (width, channels) = (self.dimensions.embedding_width, self.dimensions.width(0));
        let (inputs, pixels) = self.dimensions.patch_channels();
        let sinusoids = Sinusoids { width: channels, multiply_first: true };
        let names = ["time_embedding.linear_1", "time_embedding.linear_2"];
        let time = TimeEmbedding::new(scope.again(), names, sinusoids, width, self.activation)?;
        let stem = Conv2d::new(scope.at("conv_in"), inputs, channels, 3)?;
        let mut trunk = Trunk::new(scope.again(), channels);
        self.lay_out(&mut trunk)?;
        let blocks = trunk.finish()?;
        let outputs = if self.variance { 2 * pixels } else { pixels };
        Ok(Body {
            context,
            time,
            time_activation: self.embedding_activation,
            patch: 1,
            stem,
            blocks,
            norm: MapNorm::new(scope.at("conv_norm_out"), self.dimensions.norm, channels, self.norm_eps)?,
            activation: self.activation,
            out: Conv2d::precise(scope.at("conv_out"), channels, outputs, 3)?,
            detail: None,
        })
    }
}

/// Channels of the deepest level.
pub(super) fn deepest(dimensions: &Dimensions) -> i64 {
    dimensions.width(dimensions.levels.len().saturating_sub(1))
}
