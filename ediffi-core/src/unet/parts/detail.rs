//! The detail head: what a network on patches says of a picture, corrected pixel by pixel.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::resample::Resample;
use super::resnet::{Modulation, ResBlock, ResBlockConfig};
use crate::nn::{Activation, Around, Conv2d, MapNorm, Norm, add_to, channels_last};
use crate::unet::pass::{Block, Pass};
use crate::weights::Scope;
use crate::{Error, Result};

/// Names of the parameters of a detail head begin with this and a dot.
pub const DETAIL: &str = "detail";

/// The dimensions of a detail head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetailConfig {
    /// Channels of a pixel.
    pub channels: i64,
    /// Residual blocks.
    pub blocks: usize,
}

impl DetailConfig {
    /// Checks the dimensions by themselves.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] for dimensions that make no head.
    pub fn check(self) -> Result<()> {
        let Self { channels, blocks } = self;
        if (1..=4096).contains(&channels) && (1..=64).contains(&blocks) {
            return Ok(());
        }
        let reason = format!("{channels} channels and {blocks} blocks: 1 to 4096 and 1 to 64 can be had");
        Err(Error::NetworkConfig { field: "detail", reason })
    }

    /// # Errors
    /// [`Error::NetworkConfig`] for dimensions that make no head beside norms of this kind.
    pub(super) fn validate(self, norm: Norm) -> Result<()> {
        self.check()?;
        let wrong = |reason: String| Err(Error::NetworkConfig { field: "detail", reason });
        let channels = self.channels;
        match norm {
            Norm::Group(groups) if channels % groups != 0 => {
                wrong(format!("{groups} groups do not divide its {channels} channels"))
            }
            _ => Ok(()),
        }
    }
}

/// What a detail head stands beside.
#[derive(Debug, Clone, Copy)]
pub(in crate::unet) struct Beside {
    /// Channels of the picture that the network estimates, and of all pictures that it sees.
    pub(in crate::unet) pictures: (i64, i64),
    /// Side of its patches.
    pub(in crate::unet) patch: i64,
    /// Channels of its last feature map.
    pub(in crate::unet) features: i64,
    /// Width of its noise embedding.
    pub(in crate::unet) embedding_width: i64,
    /// Its norms, and their epsilon.
    pub(in crate::unet) norm: (Norm, f64),
}

/// Residual blocks at the resolution of the picture, after the last convolution of a network whose positions are patches of pixels.
///
/// The network says what is where; its patches are made apart from each other, and their borders do not always meet. The head sees
/// the noisy picture, the network's estimate and its features at every pixel, and adds a correction. Its last convolution starts at
/// zero: a trained network that gets a head answers as before until the head has learned something. The idea is the patch
/// detailer head of DiP (Chen et al. 2025, arXiv 2511.18822); this one has ADM's residual blocks and sees past the borders of patches.
#[derive(Debug)]
pub struct DetailHead {
    stem: Conv2d,
    features: Conv2d,
    patch: i64,
    blocks: Vec<ResBlock>,
    norm: MapNorm,
    activation: Activation,
    out: Conv2d,
}

impl DetailHead {
    /// Builds the head of a network.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub(in crate::unet) fn new(mut scope: Scope<'_>, config: DetailConfig, beside: Beside) -> Result<Self> {
        let DetailConfig { channels, blocks } = config;
        let Beside { pictures: (estimated, seen), patch, features, embedding_width, norm: (norm, eps) } = beside;
        let block = ResBlockConfig {
            inputs: channels,
            outputs: channels,
            embedding_width,
            norm,
            eps,
            activation: Activation::Silu,
            modulation: Modulation::ScaleShift,
            resample: Resample::Keep,
            divisor: 1.0,
            names: ["embedding", "skip"],
        };
        Ok(Self {
            stem: Conv2d::new(scope.at("stem"), seen.saturating_add(estimated), channels, 3)?,
            features: Conv2d::new(
                scope.at("features"),
                features,
                channels.saturating_mul(patch.saturating_mul(patch)),
                1,
            )?,
            patch,
            blocks: (0..blocks)
                .map(|index| ResBlock::new(scope.at(&format!("{index}.res")), block))
                .collect::<Result<_>>()?,
            norm: MapNorm::new(scope.at("norm"), norm, channels, eps)?,
            activation: Activation::Silu,
            out: Conv2d::precise(scope.at("out"), channels, estimated, 3)?,
        })
    }

    /// The corrected estimate, in f32.
    ///
    /// # Shapes
    /// `seen`: [rows, pictures' channels, h, w] in the precision of the network, `features`: [rows, features, h / patch, w / patch] f32,
    /// `estimate`: [rows, channels, h, w] f32 → the shape of `estimate`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(in crate::unet) fn forward(
        &self,
        (seen, features): (&Tensor, &Tensor),
        estimate: Tensor,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        let kind = seen.kind();
        let pixels = Tensor::f_cat(&[seen, &estimate.f_to_kind(kind)?], 1)?;
        let features = self.features.forward(&features.f_to_kind(kind)?)?;
        let features = if self.patch > 1 { channels_last(&features.f_pixel_shuffle(self.patch)?)? } else { features };
        let mut h = add_to(self.stem.forward(&channels_last(&pixels)?)?, &features)?;
        for block in &self.blocks {
            h = block.forward(h, pass)?;
        }
        let around = Around { activation: Some(self.activation), kind: Some(Kind::Float), ..Around::default() };
        let h = self.norm.forward_in(&h, &around)?;
        add_to(self.out.forward(&h)?, &estimate)
    }
}
