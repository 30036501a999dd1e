//! The dimensions of a U-Net: what is stored as `config.json` beside its weights.

use serde::{Deserialize, Serialize};

use super::deepfloyd::DeepFloyd;
use crate::nn::Norm;
use crate::{Error, Result};

/// How the levels of the U-Net are put together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layout {
    /// Dhariwal & Nichol 2021 (ADM), eDiff-I's base: a skip from every block, residual blocks that resample, attention
    /// after every block of a level that has it, a middle.
    Adm,
    /// Saharia et al. 2022 (Imagen, appendix B.1: Efficient U-Net), eDiff-I's super-resolution: a level is entered by a
    /// strided convolution and left by one after enlargement, one skip a level scaled by 1/√2, attention at its end.
    Efficient,
    /// DeepFloyd IF: the plan of ADM, with joint attention to text and pixels, and parameters named as in published files.
    #[serde(rename = "deepfloyd")]
    DeepFloyd(DeepFloyd),
}

/// One resolution of the U-Net, the first being the finest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Channels of the level as a multiple of [`UNetConfig::channels`].
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

/// Token embeddings of one encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Number of tokens a text is padded to.
    pub tokens: i64,
    /// Width of an embedding.
    pub width: i64,
}

/// CLIP's text embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipText {
    /// Number of tokens a text is padded to.
    pub tokens: i64,
    /// Width of a token embedding.
    pub width: i64,
    /// Width of the pooled and projected embedding, which is added to the noise embedding.
    pub pooled: i64,
}

/// What the network is conditioned on (eDiff-I §4.2). An encoder that is absent here cannot be used with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextConfig {
    /// Common width that every embedding is projected to.
    pub width: i64,
    /// T5 tokens.
    #[serde(default)]
    pub t5: Option<Tokens>,
    /// CLIP text tokens and pooled embedding.
    #[serde(default)]
    pub clip_text: Option<ClipText>,
    /// Width of CLIP's projected image embedding: one token, and added to the noise embedding.
    #[serde(default)]
    pub clip_image: Option<i64>,
}

/// The dimensions of a U-Net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// How the levels are put together.
    pub layout: Layout,
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
}

fn one() -> i64 {
    1
}

impl UNetConfig {
    /// Height and width of a picture have to be multiples of this.
    #[must_use]
    pub fn size_multiple(&self) -> i64 {
        self.patch << self.levels.len().saturating_sub(1)
    }

    /// Channels of level `level`.
    #[must_use]
    pub(crate) fn width(&self, level: usize) -> i64 {
        self.levels.get(level).map_or(0, |l| l.multiplier * self.channels)
    }

    /// How many cosines and sines the noise level is embedded with.
    #[must_use]
    pub(crate) fn sinusoids(&self) -> i64 {
        match self.layout {
            Layout::DeepFloyd(_) => self.width(0),
            _ => self.channels,
        }
    }

    /// Channels of the output for each of the input's: more than one where the network also predicts a variance.
    #[must_use]
    pub(crate) fn outputs(&self) -> i64 {
        match self.layout {
            Layout::DeepFloyd(DeepFloyd { variance: true, .. }) => 2,
            _ => 1,
        }
    }

    /// Whether it predicts, beside its answer, where between its bounds the variance of a DDPM step lies.
    #[must_use]
    pub fn predicts_variance(&self) -> bool {
        self.outputs() > 1
    }

    /// Whether it is told how noisy the smaller picture has been made: see
    /// [`UNet::context_noised`](super::UNet::context_noised).
    #[must_use]
    pub fn takes_noise_level(&self) -> bool {
        matches!(self.layout, Layout::DeepFloyd(DeepFloyd { noise_level: true, .. }))
    }

    /// Checks that the dimensions make a network.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming the first field that does not fit.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &'static str, reason: String| Err(Error::NetworkConfig { field, reason });
        if self.levels.is_empty() || self.levels.len() > 16 {
            return wrong("levels", format!("there are {}, between 1 and 16 are needed", self.levels.len()));
        }
        for (field, value) in [
            ("patch", self.patch),
            ("channels", self.channels),
            ("head_channels", self.head_channels),
            ("embedding_width", self.embedding_width),
        ] {
            if !(1..=1 << 20).contains(&value) {
                return wrong(field, format!("{value} is not between 1 and 2^20"));
            }
        }
        if self.sinusoids() % 2 != 0 {
            return wrong(
                "channels",
                format!("{} is odd; the noise embedding has as many sines as cosines", self.sinusoids()),
            );
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
                return wrong(
                    "head_channels",
                    format!("{} does not divide the {width} channels of level {index}", self.head_channels),
                );
            }
            if level.cross_attention && self.context.is_none() {
                return wrong("context", format!("level {index} attends to it, but there is none"));
            }
        }
        if let Some(context) = &self.context {
            let text = context.clip_text.map_or([1, 1, 1], |c| [c.tokens, c.width, c.pooled]);
            let t5 = context.t5.map_or([1, 1], |t| [t.tokens, t.width]);
            let all = text.iter().chain(&t5).chain([&context.width, context.clip_image.as_ref().unwrap_or(&1)]);
            if all.into_iter().any(|v| !(1..=1 << 20).contains(v)) {
                return wrong("context", "every width and number of tokens has to be between 1 and 2^20".to_owned());
            }
        }
        if let Layout::DeepFloyd(deepfloyd) = &self.layout {
            deepfloyd.validate(self)?;
        }
        Ok(())
    }
}
