//! DeepFloyd IF's layout: what its networks do differently from eDiff-I's.
//!
//! The blocks are those of ADM. In the place of two kinds of attention stands one, in which pixels attend to the text and
//! to each other at once; the text also enters through the noise embedding, pooled by attention. Parameters carry the
//! names of diffusers' `UNet2DConditionModel`, so that published files load as they are.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::conditioning::Conditioning;
use crate::nn::{Activation, Conv2d, Linear, MapNorm, Norm};
use crate::unet::context::{ContextSource, Encoded};
use crate::unet::io::{EmbeddingShapes, Io, Tokens};
use crate::unet::layout::{Body, Layout};
use crate::unet::parts::{
    ContextConfig, Dimensions, Heads, JointAttention, Level, Modulation, ResBlock, ResBlockConfig, Resample, Sinusoids,
    TEXT_NORM_GROUPS, TextPool, TimeEmbedding, Trunk,
};
use crate::unet::stored::Stored;
use crate::weights::Scope;
use crate::{Error, Result};

/// Tokens that DeepFloyd IF pads every text to. Its networks see all of them: the group norm over the text has statistics
/// over the padding too, so another length gives other pictures.
pub const TEXT_TOKENS: i64 = 77;

/// Epsilon of the norms of attention (the default of diffusers' `Attention`).
const ATTENTION_EPS: f64 = 1e-5;

/// The dimensions of a DeepFloyd IF network. A level's `cross_attention` says whether it has attention at all, its
/// `self_attention` whether the pixels are among what that attention sees; the context is T5 alone.
#[derive(Debug, Clone, PartialEq)]
pub struct DeepFloyd {
    /// What it shares with other layouts.
    pub dimensions: Dimensions,
    /// What is its own.
    pub switches: Switches,
}

/// The switches of DeepFloyd IF's layout.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switches {
    /// Whether the output has as many channels again, which say where between its bounds the variance of a DDPM step lies.
    pub variance: bool,
    /// Whether the network is told how noisy the smaller picture has been made.
    pub noise_level: bool,
    /// The nonlinearity of the blocks and of the first linear map of an embedding.
    pub activation: Activation,
    /// The nonlinearity of the finished noise embedding.
    pub embedding_activation: Activation,
    /// Epsilon of the norms of residual blocks and of the last one; that of attention is always 1e-5.
    pub norm_eps: f64,
    /// What the sum at the end of a residual block is divided by.
    pub residual_scale: f64,
    /// The same for the two blocks of the middle.
    pub middle_scale: f64,
    /// Whether the attention of the middle sees the pixels.
    pub middle_self_attention: bool,
    /// Heads of the attention that pools the text.
    pub text_heads: i64,
}

impl DeepFloyd {
    fn res(&self, trunk: &mut Trunk<'_>, name: String, outputs: i64, resample: Resample, divisor: f64) -> Result<()> {
        let config = |inputs| ResBlockConfig {
            inputs,
            outputs,
            embedding_width: self.dimensions.embedding_width,
            norm: self.dimensions.norm,
            eps: self.switches.norm_eps,
            activation: self.switches.activation,
            modulation: Modulation::ScaleShift,
            resample,
            divisor,
            names: ["time_emb_proj", "conv_shortcut"],
        };
        trunk.add(name, outputs, |scope, inputs| ResBlock::new(scope, config(inputs)))
    }

    fn attention(&self, trunk: &mut Trunk<'_>, name: String, see_pixels: bool, context: ContextConfig) -> Result<()> {
        let Dimensions { head_channels, norm, .. } = self.dimensions;
        trunk.add(name, trunk.channels(), |scope, width| {
            let heads = Heads::Width(head_channels);
            JointAttention::new(scope, (width, context.width), heads, norm, ATTENTION_EPS, see_pixels)
        })
    }

    /// ADM's plan with one kind of attention, and with the names of diffusers.
    fn lay_out(&self, trunk: &mut Trunk<'_>, context: ContextConfig) -> Result<()> {
        let (levels, width) = (&self.dimensions.levels, |level| self.dimensions.width(level));
        let Switches { residual_scale, middle_scale, middle_self_attention, .. } = self.switches;
        let (last, deepest) = (levels.len() - 1, trunk_width(&self.dimensions));
        let block = |trunk: &mut Trunk<'_>, name: String, i: usize, resample| {
            self.res(trunk, name, width(i), resample, residual_scale)
        };
        let attention = |trunk: &mut Trunk<'_>, name: String, level: &Level| match level.cross_attention {
            true => self.attention(trunk, name, level.self_attention, context),
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
        self.res(trunk, "mid_block.resnets.0".to_owned(), deepest, Resample::Keep, middle_scale)?;
        self.attention(trunk, "mid_block.attentions.0".to_owned(), middle_self_attention, context)?;
        self.res(trunk, "mid_block.resnets.1".to_owned(), deepest, Resample::Keep, middle_scale)?;
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

    /// The context of T5 alone, with its tokens.
    fn context(&self) -> Result<(ContextConfig, Tokens)> {
        let wrong = |reason: &str| Error::NetworkConfig { field: "context", reason: reason.to_owned() };
        let context = self.dimensions.context.ok_or_else(|| wrong("this layout takes T5"))?;
        let t5 = context.t5.filter(|_| context.clip_text.is_none() && context.clip_image.is_none());
        Ok((context, t5.ok_or_else(|| wrong("this layout takes T5 and nothing else"))?))
    }
}

/// Channels of the deepest level.
fn trunk_width(dimensions: &Dimensions) -> i64 {
    dimensions.width(dimensions.levels.len().saturating_sub(1))
}

impl Stored for DeepFloyd {
    type Own = Switches;
    type Keys = Dimensions;

    fn stored(&self) -> (&Switches, &Dimensions) {
        (&self.switches, &self.dimensions)
    }

    fn from_stored(switches: Switches, dimensions: Dimensions) -> Self {
        Self { dimensions, switches }
    }
}

impl Layout for DeepFloyd {
    fn validate(&self) -> Result<()> {
        let Self { dimensions, switches } = self;
        dimensions.validate(dimensions.width(0))?;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let Switches { norm_eps, residual_scale, middle_scale, noise_level, text_heads, .. } = *switches;
        let scaled = positive(norm_eps) && positive(residual_scale) && positive(middle_scale);
        let text = |level: &Level| level.cross_attention || !level.self_attention;
        let (context, t5) = self.context()?;
        for (right, field, reason) in [
            (scaled, "layout", "norm_eps, residual_scale and middle_scale have to be positive and finite"),
            (dimensions.patch == 1, "patch", "this layout has no patches"),
            (dimensions.detail.is_none(), "detail", "this layout has no detail head"),
            (matches!(dimensions.norm, Norm::Group(_)), "norm", "this layout has group norms"),
            (
                dimensions.low_res || !noise_level,
                "low_res",
                "a noise level is that of a smaller picture, which is needed",
            ),
            (dimensions.levels.iter().all(text), "levels", "attention of this layout always sees the text"),
            (
                trunk_width(dimensions) % dimensions.head_channels == 0,
                "head_channels",
                "it does not divide the channels of the last level, whose middle has attention",
            ),
            (context.width % TEXT_NORM_GROUPS == 0, "context", "32 groups have to divide its width"),
            (text_heads > 0 && t5.width % text_heads.max(1) == 0, "layout", "text_heads has to divide the width of T5"),
        ] {
            if !right {
                return Err(Error::NetworkConfig { field, reason: reason.to_owned() });
            }
        }
        Ok(())
    }

    fn io(&self) -> Io {
        let Switches { variance, noise_level, .. } = self.switches;
        Io { variance, noise_level, ..self.dimensions.io() }
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<Body> {
        let Switches { variance, activation, embedding_activation, norm_eps, .. } = self.switches;
        let (width, channels) = (self.dimensions.embedding_width, self.dimensions.width(0));
        let (inputs, pixels) = self.dimensions.patch_channels();
        let (context, t5) = self.context()?;
        let source = TextSource::new(scope.again(), self, context, t5)?;
        let sinusoids = Sinusoids { width: channels, multiply_first: true };
        let names = ["time_embedding.linear_1", "time_embedding.linear_2"];
        let time = TimeEmbedding::new(scope.again(), names, sinusoids, width, activation)?;
        let stem = Conv2d::new(scope.at("conv_in"), inputs, channels, 3)?;
        let mut trunk = Trunk::new(scope.again(), channels);
        self.lay_out(&mut trunk, context)?;
        let blocks = trunk.finish()?;
        let outputs = if variance { 2 * pixels } else { pixels };
        Ok(Body {
            context: Some(Box::new(source)),
            time,
            time_activation: embedding_activation,
            patch: 1,
            stem,
            blocks,
            norm: MapNorm::new(scope.at("conv_norm_out"), self.dimensions.norm, channels, norm_eps)?,
            activation,
            out: Conv2d::precise(scope.at("conv_out"), channels, outputs, 3)?,
            detail: None,
        })
    }
}

/// What a DeepFloyd IF network derives from the text and from the noise level of the smaller picture.
#[derive(Debug)]
struct TextSource {
    t5: Tokens,
    projection: Linear,
    pool: TextPool,
    noise_level: Option<TimeEmbedding>,
}

impl TextSource {
    fn new(mut scope: Scope<'_>, network: &DeepFloyd, context: ContextConfig, t5: Tokens) -> Result<Self> {
        let (width, Switches { activation, text_heads, .. }) = (network.dimensions.embedding_width, network.switches);
        let sinusoids = Sinusoids { width: network.dimensions.width(0), multiply_first: true };
        let names = ["class_embedding.linear_1", "class_embedding.linear_2"];
        let level = || TimeEmbedding::new(scope.again(), names, sinusoids, width, activation);
        let noise_level = network.switches.noise_level.then(level).transpose()?;
        Ok(Self {
            t5,
            projection: Linear::new(scope.at("encoder_hid_proj"), t5.width, context.width)?,
            pool: TextPool::new(scope.at("add_embedding"), t5.width, width, text_heads, ATTENTION_EPS)?,
            noise_level,
        })
    }
}

impl ContextSource for TextSource {
    /// These networks were never trained on zeros in the place of a text: the absence of one is the embedding of an empty
    /// text.
    fn encode(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Encoded> {
        let Tokens { tokens, width } = self.t5;
        let text = EmbeddingShapes::checked("t5", conditioning.t5.as_ref(), &[rows, tokens, width])?;
        let text = text.ok_or(Error::EmbeddingNeeded("t5"))?;
        let text = text.f_to_device(self.pool.device())?.f_to_kind(kind)?;
        let pooled = self.pool.forward(&text)?;
        let level = EmbeddingShapes::checked("noise_level", conditioning.noise_level.as_ref(), &[rows])?;
        let pooled = match (&self.noise_level, level) {
            (Some(embedding), Some(level)) => {
                embedding.forward(&level.f_to_device(pooled.device())?)?.f_add(&pooled)?
            }
            (Some(_), None) => return Err(Error::EmbeddingNeeded("noise_level")),
            (None, _) => pooled,
        };
        let tokens_of_text: Tensor = self.projection.forward(&text)?;
        Ok(Encoded { pooled: Some(pooled), tokens: tokens_of_text, text_columns: tokens })
    }
}
