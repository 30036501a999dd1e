//! The dimensions of an autoencoder.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::nn::Activation;
use crate::{Error, Result};

/// Epsilon of all norms of an autoencoder.
pub(super) const EPS: f64 = 1e-6;

/// The dimensions of an autoencoder, and the scale of its latents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// Channels of a picture: 3 for RGB.
    pub picture_channels: i64,
    /// Channels of a latent.
    pub latent_channels: i64,
    /// Channels of each level, the finest first. Between two levels the sides are halved.
    pub channels: Vec<i64>,
    /// Residual blocks of a level of the encoder; the decoder has one more.
    pub blocks: usize,
    /// Groups of the norms.
    pub groups: i64,
    /// The nonlinearity of the residual blocks. After the last norm there is always SiLU.
    pub activation: Activation,
    /// Whether the pixels of the deepest level attend to each other.
    pub middle_attention: bool,
    /// Whether a 1×1 convolution follows the encoder.
    pub quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    pub post_quant_conv: bool,
    /// What a latent, less the shift, is multiplied by for the U-Net, so that its standard deviation is about 1.
    pub scaling_factor: f64,
    /// What is taken from a latent first.
    pub shift_factor: f64,
    /// Side of the pictures that it was trained for; [tiles](Self::tiles) are that large, within bounds.
    pub sample_size: i64,
    /// Whether it overflows in f16.
    pub force_upcast: bool,
}

impl AutoencoderConfig {
    /// The side in pixels of the largest square that is worth decoding at once: of 1024² pixels the widest maps, of Stable Diffusion's 256
    /// channels, have 1 GiB each in f32.
    pub const WHOLE: i64 = 1024;

    /// That of Stable Diffusion 1 and 2: [128, 256, 512, 512] channels, latents of a side eight times as short, times 0.18215.
    #[must_use]
    pub fn stable_diffusion() -> Self {
        Self {
            picture_channels: 3,
            latent_channels: 4,
            channels: vec![128, 256, 512, 512],
            blocks: 2,
            groups: 32,
            activation: Activation::Silu,
            middle_attention: true,
            quant_conv: true,
            post_quant_conv: true,
            scaling_factor: 0.18215,
            shift_factor: 0.0,
            sample_size: 512,
            force_upcast: true,
        }
    }

    /// How many pixels a side of a latent stands for: what height and width of a picture have to be multiples of.
    #[must_use]
    pub fn size_multiple(&self) -> i64 {
        let depth = u32::try_from(self.channels.len().saturating_sub(1)).unwrap_or(u32::MAX);
        1_i64.checked_shl(depth).unwrap_or(i64::MAX)
    }

    /// The precision that it computes in where the rest of a model computes in `kind`: f32 in the place of an f16 in which it
    /// [overflows](Self::force_upcast). bf16 has the range of f32.
    #[must_use]
    pub fn precision(&self, kind: Kind) -> Kind {
        if kind == Kind::Half && self.force_upcast { Kind::Float } else { kind }
    }

    /// A latent of the autoencoder as the U-Net sees it.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn scaled(&self, latent: &Tensor) -> Result<Tensor> {
        Ok(latent.f_sub_scalar(self.shift_factor)?.f_mul_scalar(self.scaling_factor)?)
    }

    /// A latent of the U-Net as the decoder reads it.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn unscaled(&self, latent: &Tensor) -> Result<Tensor> {
        Ok(latent.f_div_scalar(self.scaling_factor)?.f_add_scalar(self.shift_factor)?)
    }

    /// Checks that the dimensions make a network.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming the first field that does not fit.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &'static str, reason: String| Err(Error::NetworkConfig { field, reason });
        if self.channels.is_empty() || self.channels.len() > 16 {
            return wrong("block_out_channels", format!("{} levels, between 1 and 16 are needed", self.channels.len()));
        }
        for (field, value) in [
            ("in_channels", self.picture_channels),
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.groups),
            ("sample_size", self.sample_size),
        ] {
            if !(1..=1 << 20).contains(&value) {
                return wrong(field, format!("{value} is not between 1 and 2^20"));
            }
        }
        if !(1..=64).contains(&self.blocks) {
            return wrong("layers_per_block", format!("{} is not between 1 and 64", self.blocks));
        }
        for &channels in &self.channels {
            if !(1..=1 << 20).contains(&channels) || channels % self.groups != 0 {
                let reason = format!("{channels} channels cannot be shared out to {} groups", self.groups);
                return wrong("block_out_channels", reason);
            }
        }
        if !(self.scaling_factor > 0.0 && self.scaling_factor.is_finite()) {
            return wrong("scaling_factor", format!("{} is not positive and finite", self.scaling_factor));
        }
        if !self.shift_factor.is_finite() {
            return wrong("shift_factor", format!("{} is not finite", self.shift_factor));
        }
        Ok(())
    }

    /// The first and the last of the channels: of the finest and of the deepest level.
    pub(super) fn ends(&self) -> Result<(i64, i64)> {
        match self.channels.as_slice() {
            [first, .., last] => Ok((*first, *last)),
            [only] => Ok((*only, *only)),
            [] => Err(Error::Internal("an autoencoder without levels")),
        }
    }
}
