//! Stable Diffusion's layout: a U-Net over latents (Rombach et al. 2022; Podell et al. 2023 for SDXL).
//!
//! Residual blocks to which the noise embedding is added, transformers whose second attention sees the text, and strided convolutions
//! between the levels. Parameters carry the names of diffusers' `UNet2DConditionModel`, so that published files load as they are.

use serde::{Deserialize, Serialize};

use super::beside::{Beside, Place};
use super::source::ClipSource;
use crate::nn::{Activation, Conv2d, MapNorm, Norm};
use crate::unet::io::{ClipText, EmbeddingShapes, Io};
use crate::unet::layout::{Body, Layout};
use crate::unet::parts::{
    Downsample, Micro, MicroEmbedding, Modulation, ResBlock, ResBlockConfig, Resample, Sinusoids, TimeEmbedding,
    TransformerBlock, TransformerConfig, TransformerIn, TransformerOut, Trunk, Upsample,
};
use crate::unet::stored::Stored;
use crate::weights::Scope;
use crate::{Error, Result};

/// The most blocks of transformers that a network may have; SDXL's has 70.
const MOST_TRANSFORMERS: usize = 1024;

/// Tokens that Stable Diffusion pads every text to: all that CLIP takes. Its networks see all of them.
pub(super) const TEXT_TOKENS: i64 = 77;

/// Transformers of a level: as many as it has residual blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transformers {
    /// Heads of each attention.
    pub heads: i64,
    /// Blocks of each transformer.
    pub depth: usize,
}

/// One resolution of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentLevel {
    /// Channels.
    pub channels: i64,
    /// Residual blocks on the way down; there is one more on the way up.
    pub blocks: usize,
    /// The transformer after each residual block, if there is one.
    #[serde(default)]
    pub transformers: Option<Transformers>,
}

/// The dimensions of a network of Stable Diffusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StableDiffusion {
    /// Channels of a latent.
    pub latent_channels: i64,
    /// Resolutions, the finest first.
    pub levels: Vec<LatentLevel>,
    /// The transformer of the middle, which has the channels of the last level.
    pub middle: Transformers,
    /// Groups of the norms.
    pub groups: i64,
    /// Epsilon of the norms of residual blocks and of the last one.
    pub norm_eps: f64,
    /// The nonlinearity of the residual blocks and of the noise embedding.
    pub activation: Activation,
    /// Width of the noise embedding.
    pub embedding_width: i64,
    /// The text. A pooled embedding is taken just where there are `micro` numbers.
    pub text: ClipText,
    /// The numbers that are said of a picture (SDXL).
    #[serde(default)]
    pub micro: Option<Micro>,
    /// Where text and numbers stand in wider ones, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
    /// Whether what leads into a transformer and out of it is a linear map in the file, and not a 1×1 convolution.
    pub linear_projection: bool,
    /// Whether a network in f16 attends in f32.
    pub upcast_attention: bool,
    /// What the sum at the end of the residual blocks of the middle is divided by.
    pub middle_scale: f64,
}

impl StableDiffusion {
    fn res(&self, trunk: &mut Trunk<'_>, name: String, outputs: i64, divisor: f64) -> Result<()> {
        let config = |inputs| ResBlockConfig {
            inputs,
            outputs,
            embedding_width: self.embedding_width,
            norm: Norm::Group(self.groups),
            eps: self.norm_eps,
            activation: self.activation,
            modulation: Modulation::Add,
            resample: Resample::Keep,
            divisor,
            names: ["time_emb_proj", "conv_shortcut"],
        };
        trunk.add(name, outputs, |scope, inputs| ResBlock::new(scope, config(inputs)))
    }

    fn transformer(&self, trunk: &mut Trunk<'_>, name: &str, transformers: Transformers) -> Result<()> {
        let (width, linear, norm) = (trunk.channels(), self.linear_projection, Norm::Group(self.groups));
        let config = TransformerConfig {
            width,
            context_width: self.text.width,
            heads: transformers.heads,
            upcast: self.upcast_attention,
        };
        trunk.add(name.to_owned(), width, |scope, width| TransformerIn::new(scope, width, norm, linear))?;
        for k in 0..transformers.depth {
            let name = format!("{name}.transformer_blocks.{k}");
            trunk.add(name, width, |scope, _| TransformerBlock::new(scope, config))?;
        }
        trunk.add(format!("{name}.proj_out"), width, |scope, width| TransformerOut::new(scope, width, linear))
    }

    /// A skip from the first convolution, from every pair of residual block and transformer, and from every way to the next level.
    fn lay_out(&self, trunk: &mut Trunk<'_>) -> Result<()> {
        let last = self.levels.len() - 1;
        let pair = |trunk: &mut Trunk<'_>, place: String, j: usize, level: &LatentLevel| {
            self.res(trunk, format!("{place}.resnets.{j}"), level.channels, 1.0)?;
            match level.transformers {
                Some(transformers) => self.transformer(trunk, &format!("{place}.attentions.{j}"), transformers),
                None => Ok(()),
            }
        };
        trunk.push();
        for (i, level) in self.levels.iter().enumerate() {
            for j in 0..level.blocks {
                pair(trunk, format!("down_blocks.{i}"), j, level)?;
                trunk.push();
            }
            if i < last {
                let name = format!("down_blocks.{i}.downsamplers.0.conv");
                trunk.add(name, level.channels, |scope, width| Downsample::new(scope, width, width))?;
                trunk.push();
            }
        }
        let deepest = trunk.channels();
        self.res(trunk, "mid_block.resnets.0".to_owned(), deepest, self.middle_scale)?;
        self.transformer(trunk, "mid_block.attentions.0", self.middle)?;
        self.res(trunk, "mid_block.resnets.1".to_owned(), deepest, self.middle_scale)?;
        for (up, (i, level)) in self.levels.iter().enumerate().rev().enumerate() {
            for j in 0..=level.blocks {
                trunk.concat(1.0)?;
                pair(trunk, format!("up_blocks.{up}"), j, level)?;
            }
            if i > 0 {
                let name = format!("up_blocks.{up}.upsamplers.0.conv");
                trunk.add(name, level.channels, |scope, width| Upsample::new(scope, width, width))?;
            }
        }
        Ok(())
    }

    /// Where its inputs stand.
    fn places(&self) -> Beside {
        let numbers = self.micro.map_or(1, |micro| micro.numbers);
        let whole = |width| Place::whole(width);
        let own = Beside {
            text: whole(self.text.width),
            pooled: whole(self.text.pooled.unwrap_or(1)),
            numbers: whole(numbers),
        };
        self.beside.unwrap_or(own)
    }

    /// Channels of the first level.
    fn channels(&self) -> i64 {
        self.levels.first().map_or(0, |level| level.channels)
    }
}

impl Stored for StableDiffusion {
    type Own = ();
    type Keys = Self;

    fn stored(&self) -> (&(), &Self) {
        (&(), self)
    }

    fn from_stored((): (), keys: Self) -> Self {
        keys
    }
}

impl Layout for StableDiffusion {
    fn validate(&self) -> Result<()> {
        let wrong = |field: &'static str, reason: String| Err(Error::NetworkConfig { field, reason });
        if self.levels.is_empty() || self.levels.len() > 16 {
            return wrong("levels", format!("there are {}, between 1 and 16 are needed", self.levels.len()));
        }
        let ClipText { tokens, width, pooled } = self.text;
        let micro = self.micro.unwrap_or(Micro { numbers: 1, width: 2 });
        for (field, value) in [
            ("latent_channels", self.latent_channels),
            ("groups", self.groups),
            ("embedding_width", self.embedding_width),
            ("text", tokens),
            ("text", width),
            ("text", pooled.unwrap_or(1)),
            ("micro", micro.numbers),
            ("micro", micro.width),
        ] {
            if !(1..=1 << 20).contains(&value) {
                return wrong(field, format!("{value} is not between 1 and 2^20"));
            }
        }
        if pooled.is_some() != self.micro.is_some() {
            return wrong("text", "a pooled embedding is taken together with `micro` numbers".to_owned());
        }
        let Beside { text, pooled: pool, numbers } = self.places();
        if !(text.holds(width) && pool.holds(pooled.unwrap_or(1)) && numbers.holds(micro.numbers)) {
            return wrong("beside", "what the network takes does not fit in its place".to_owned());
        }
        let last = self.levels.last().map(|level| LatentLevel { transformers: Some(self.middle), ..*level });
        for LatentLevel { channels, blocks, transformers } in self.levels.iter().copied().chain(last) {
            if !(1..=1 << 20).contains(&channels) || channels % self.groups != 0 {
                let reason = format!("{channels} channels cannot be shared out to {} groups", self.groups);
                return wrong("groups", reason);
            }
            if !(1..=64).contains(&blocks) {
                return wrong("levels", format!("{blocks} blocks are not between 1 and 64"));
            }
            let Some(Transformers { heads, depth }) = transformers else { continue };
            if heads < 1 || channels % heads != 0 {
                return wrong("heads", format!("{heads} heads do not divide {channels} channels"));
            }
            if !(1..=64).contains(&depth) {
                return wrong("depth", format!("a transformer of {depth} blocks has none or more than 64"));
            }
        }
        // Down and up; all numbers are checked by now.
        let blocks = |level: &LatentLevel| level.transformers.map_or(0, |of| of.depth * (2 * level.blocks + 1));
        let transformers: usize = self.levels.iter().map(blocks).sum();
        if transformers > MOST_TRANSFORMERS {
            return wrong("levels", format!("{transformers} blocks of transformers are more than {MOST_TRANSFORMERS}"));
        }
        for (field, value) in [("channels", self.channels()), ("micro", micro.width)] {
            if value % 2 != 0 {
                return wrong(field, format!("{value} is odd; there are as many sines as cosines"));
            }
        }
        for (field, value) in [("norm_eps", self.norm_eps), ("middle_scale", self.middle_scale)] {
            if !(value > 0.0 && value.is_finite()) {
                return wrong(field, format!("{value} is not positive and finite"));
            }
        }
        Ok(())
    }

    fn io(&self) -> Io {
        let depth = u32::try_from(self.levels.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let places = self.places();
        let micro = self.micro.map(|_| places.numbers.all);
        let text = ClipText {
            tokens: self.text.tokens,
            width: places.text.all,
            pooled: self.text.pooled.map(|_| places.pooled.all),
        };
        Io {
            channels: self.latent_channels,
            variance: false,
            low_res: false,
            embeddings: EmbeddingShapes { clip_text: Some(text), micro, ..EmbeddingShapes::default() },
            size_multiple: 1_i64.checked_shl(depth).unwrap_or(i64::MAX),
            noise_level: false,
        }
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<Body> {
        let (width, channels, activation) = (self.embedding_width, self.channels(), self.activation);
        let sinusoids = Sinusoids { width: channels, multiply_first: true };
        let names = ["time_embedding.linear_1", "time_embedding.linear_2"];
        let time = TimeEmbedding::new(scope.again(), names, sinusoids, width, activation)?;
        let embedding = |micro: Micro| -> Result<_> {
            let pooled = self.text.pooled.unwrap_or(0);
            Ok((micro, MicroEmbedding::new(scope.at("add_embedding"), micro, pooled, width)?))
        };
        let micro = self.micro.map(embedding).transpose()?;
        let stem = Conv2d::new(scope.at("conv_in"), self.latent_channels, channels, 3)?;
        let source = ClipSource { text: self.text, micro, places: self.places(), device: stem.device() };
        let mut trunk = Trunk::new(scope.again(), channels);
        self.lay_out(&mut trunk)?;
        Ok(Body {
            context: Some(Box::new(source)),
            time,
            time_activation: activation,
            patch: 1,
            stem,
            blocks: trunk.finish()?,
            norm: MapNorm::new(scope.at("conv_norm_out"), Norm::Group(self.groups), channels, self.norm_eps)?,
            activation,
            out: Conv2d::precise(scope.at("conv_out"), channels, self.latent_channels, 3)?,
            detail: None,
        })
    }
}
