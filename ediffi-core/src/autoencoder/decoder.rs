//! From latents to pictures.

use tch::{Device, Kind, Tensor};

use super::attention::AttentionWeights;
use super::blocks::{Layer, Layers};
use super::config::{AutoencoderConfig, EPS};
use crate::nn::{Activation, Around, Conv2d, GroupNorm, channels_last};
use crate::weights::Scope;
use crate::{Error, Result};

/// The decoder.
#[derive(Debug)]
pub struct Decoder {
    config: AutoencoderConfig,
    kind: Kind,
    post_quant_conv: Option<Conv2d>,
    conv_in: Conv2d,
    layers: Vec<(String, Layer)>,
    norm: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    /// Builds the decoder from its parameters, whose names begin with `decoder` and `post_quant_conv`; it computes in `kind`.
    /// [`Decoder::load`] reads it from a file.
    ///
    /// # Errors
    /// Dimensions that make no network, or parameters that cannot be had.
    pub fn new(
        mut scope: Scope<'_>,
        config: &AutoencoderConfig,
        weights: AttentionWeights,
        kind: Kind,
    ) -> Result<Self> {
        config.validate()?;
        let ((first, deepest), latent) = (config.ends()?, config.latent_channels);
        let post_quant = || Conv2d::new(scope.at("post_quant_conv"), latent, latent, 1);
        let post_quant_conv = config.post_quant_conv.then(post_quant).transpose()?;
        let mut scope = scope.at("decoder");
        let conv_in = Conv2d::new(scope.at("conv_in"), latent, deepest, 3)?;
        let mut layers = Layers::new(scope.again(), config, deepest);
        layers.middle(weights)?;
        for (i, &channels) in config.channels.iter().rev().enumerate() {
            for j in 0..=config.blocks {
                layers.residual(format!("up_blocks.{i}.resnets.{j}"), channels)?;
            }
            if i + 1 < config.channels.len() {
                layers.up(format!("up_blocks.{i}.upsamplers.0"))?;
            }
        }
        Ok(Self {
            config: config.clone(),
            kind,
            post_quant_conv,
            conv_in,
            layers: layers.finish(),
            norm: GroupNorm::new(scope.at("conv_norm_out"), first, config.groups, EPS)?,
            conv_out: Conv2d::precise(scope.at("conv_out"), first, config.picture_channels, 3)?,
        })
    }

    /// Its dimensions.
    #[must_use]
    pub fn config(&self) -> &AutoencoderConfig {
        &self.config
    }

    /// Where it computes.
    #[must_use]
    pub fn device(&self) -> Device {
        self.conv_in.device()
    }

    /// The pictures of latents as the U-Net draws them. They may reach a little beyond [-1, 1]. The input may be on another device; the
    /// result is there, too.
    ///
    /// # Shapes
    /// `latents`: [n, latent channels, h, w] → [n, picture channels, m h, m w] f32, with m of [`AutoencoderConfig::size_multiple`]
    ///
    /// # Errors
    /// [`Error::AutoencoderInput`] for other channels.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decode_tapped(latents, |_, _| {})
    }

    /// [`decode`](Self::decode), showing `tap` what every layer gives.
    pub(super) fn decode_tapped(&self, latents: &Tensor, mut tap: impl FnMut(&str, &Tensor)) -> Result<Tensor> {
        let channels = self.config.latent_channels;
        if latents.dim() != 4 || latents.size4()?.1 != channels {
            return Err(Error::AutoencoderInput { what: "latents", channels, got: latents.size() });
        }
        // Scaled before it is rounded to the precision of the network.
        let unscaled = self.config.unscaled(&latents.f_to_device(self.device())?.f_to_kind(Kind::Float)?)?;
        let mut h = channels_last(&unscaled.f_to_kind(self.kind)?)?;
        if let Some(conv) = &self.post_quant_conv {
            h = conv.forward(&h)?;
        }
        h = self.conv_in.forward(&h)?;
        tap("conv_in", &h);
        for (name, layer) in &self.layers {
            h = layer.forward(&h)?;
            tap(name, &h);
        }
        // The steps of bf16 and f16 would show in a picture.
        h = self.norm.forward_in(&h, &Around { kind: Some(Kind::Float), ..Around::default() })?;
        tap("conv_norm_out", &h);
        h = self.conv_out.forward(&Activation::Silu.apply_to(h)?)?;
        Ok(h.f_contiguous()?.f_to_device(latents.device())?)
    }
}
