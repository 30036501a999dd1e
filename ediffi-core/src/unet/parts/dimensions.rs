//! The dimensions that layouts share.

use serde::{Deserialize, Serialize};

use super::detail::DetailConfig;
use super::embeddings::ContextConfig;
use crate::nn::Norm;
use crate::unet::io::{EmbeddingShapes, Io};
use crate::{Error, Result};

/// One resolution of the U-Net, the first being the finest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Channels of the level as a multiple of [`Dimensions::channels`].
    pub multiplier: i64,
    /// Residual blocks on the way down (ADM has one more on the way up).
    pub blocks: usize,
    /// Whether pixels of this level attend to each other.
    #[serde(default)]
    pub self_attention: bool,
    /// Whether pixels of this level attend to the conditioning tokens.
    #[serde(default)]
    pub cross_attention: bool,
}

/// The dimensions of a U-Net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimensions {
    /// Channels of the picture: 3 for RGB (in a file the default).
    #[serde(default = "rgb", skip_serializing_if = "is_rgb")]
    pub picture_channels: i64,
    /// Whether an enlarged smaller picture is concatenated to the input (super-resolution).
    #[serde(default)]
    pub low_res: bool,
    /// Side of the square of pixels that one position of the finest level holds (pixel-unshuffle); 1 is the paper's.
    #[serde(default = "one")]
    pub patch: i64,
    /// Channels that the levels multiply.
    pub channels: i64,
    /// Resolutions, the finest first.
    pub levels: Vec<Level>,
    /// Channels of an attention head.
    pub head_channels: i64,
    /// Norms of the blocks.
    pub norm: Norm,
    /// Width of the noise embedding.
    pub embedding_width: i64,
    /// What the network is conditioned on besides noise level and smaller picture.
    #[serde(default)]
    pub context: Option<ContextConfig>,
    /// What corrects the network's output pixel by pixel, where its positions are patches (in a file the default is nothing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<DetailConfig>,
}

fn one() -> i64 {
    1
}

fn rgb() -> i64 {
    3
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_rgb(channels: &i64) -> bool {
    *channels == rgb()
}

impl Dimensions {
    /// Inputs and outputs of a network of these dimensions that predicts no variance and is told no noise level.
    #[must_use]
    pub fn io(&self) -> Io {
        let depth = u32::try_from(self.levels.len().saturating_sub(1)).unwrap_or(u32::MAX);
        Io {
            channels: self.picture_channels,
            variance: false,
            low_res: self.low_res,
            embeddings: self.context.map_or_else(EmbeddingShapes::default, ContextConfig::shapes),
            size_multiple: self.patch.saturating_mul(1_i64.checked_shl(depth).unwrap_or(i64::MAX)),
            noise_level: false,
        }
    }

    /// Channels of level `level`; 0 where there is none.
    #[must_use]
    pub fn width(&self, level: usize) -> i64 {
        self.levels.get(level).map_or(0, |l| l.multiplier.saturating_mul(self.channels))
    }

    /// Channels of the first convolution's input and of the last one's output, patches included.
    #[must_use]
    pub fn patch_channels(&self) -> (i64, i64) {
        let pixels = self.patch.saturating_mul(self.patch).saturating_mul(self.picture_channels);
        (if self.low_res { pixels.saturating_mul(2) } else { pixels }, pixels)
    }

    /// Checks that the dimensions make a network whose noise level is embedded by `sinusoids` cosines and sines.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming the first field that does not fit.
    pub fn validate(&self, sinusoids: i64) -> Result<()> {
        let wrong = |field: &'static str, reason: String| Err(Error::NetworkConfig { field, reason });
        if self.levels.is_empty() || self.levels.len() > 16 {
            return wrong("levels", format!("there are {}, between 1 and 16 are needed", self.levels.len()));
        }
        for (field, value) in [
            ("picture_channels", self.picture_channels),
            ("patch", self.patch),
            ("channels", self.channels),
            ("head_channels", self.head_channels),
            ("embedding_width", self.embedding_width),
        ] {
            if !(1..=1 << 20).contains(&value) {
                return wrong(field, format!("{value} is not between 1 and 2^20"));
            }
        }
        if sinusoids % 2 != 0 {
            let reason = format!("{sinusoids} is odd; the noise embedding has as many sines as cosines");
            return wrong("channels", reason);
        }
        for (index, level) in self.levels.iter().enumerate() {
            let width = self.width(index);
            if !(1..=64).contains(&level.multiplier) || !(1..=64).contains(&level.blocks) {
                return wrong("levels", format!("level {index}: multiplier and blocks have to be between 1 and 64"));
            }
            if let Norm::Group(groups) = self.norm
                && (groups < 1 || width % groups != 0)
            {
                return wrong("norm", format!("{groups} groups do not divide the {width} channels of level {index}"));
            }
            if (level.self_attention || level.cross_attention) && width % self.head_channels != 0 {
                let reason = format!("{} does not divide the {width} channels of level {index}", self.head_channels);
                return wrong("head_channels", reason);
            }
            if level.cross_attention && self.context.is_none() {
                return wrong("context", format!("level {index} attends to it, but there is none"));
            }
        }
        self.detail.map_or(Ok(()), |detail| detail.validate(self.norm))?;
        self.context.as_ref().map_or(Ok(()), ContextConfig::validate)
    }
}
