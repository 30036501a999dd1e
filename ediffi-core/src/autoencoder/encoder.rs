//! From pictures to latents.

use tch::{Device, Kind, Tensor};

use super::attention::AttentionWeights;
use super::blocks::{Layer, Layers};
use super::config::{AutoencoderConfig, EPS};
use crate::nn::{Activation, Around, Conv2d, GroupNorm, channels_last, chunks};
use crate::weights::Scope;
use crate::{Error, Result};

/// The normal distribution that a picture's latents are drawn from, channel by channel and position by position.
#[derive(Debug)]
pub struct Moments {
    /// [n, latent channels, h, w] f32
    pub mean: Tensor,
    /// The logarithm of the variance, within [-30, 20] as in diffusers' `DiagonalGaussianDistribution`, in the shape of the mean.
    pub log_variance: Tensor,
}

impl Moments {
    /// A latent that is drawn with the caller's standard normal `noise`, unscaled.
    ///
    /// # Shapes
    /// `noise`: that of the mean → the same
    ///
    /// # Errors
    /// Noise of another shape.
    pub fn draw(&self, noise: &Tensor) -> Result<Tensor> {
        let deviation = self.log_variance.f_mul_scalar(0.5)?.f_exp()?;
        Ok(self.mean.f_addcmul(&deviation, &noise.f_to_device(self.mean.device())?)?)
    }
}

/// The encoder.
#[derive(Debug)]
pub struct Encoder {
    config: AutoencoderConfig,
    kind: Kind,
    conv_in: Conv2d,
    layers: Vec<(String, Layer)>,
    norm: GroupNorm,
    conv_out: Conv2d,
    quant_conv: Option<Conv2d>,
}

impl Encoder {
    /// Builds the encoder from its parameters, whose names begin with `encoder` and `quant_conv`; it computes in `kind`.
    /// [`Encoder::load`] reads it from a file.
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
        let ((first, deepest), moments) = (config.ends()?, 2 * config.latent_channels);
        let quant = || Conv2d::precise(scope.at("quant_conv"), moments, moments, 1);
        let quant_conv = config.quant_conv.then(quant).transpose()?;
        let mut scope = scope.at("encoder");
        let conv_in = Conv2d::new(scope.at("conv_in"), config.picture_channels, first, 3)?;
        let mut layers = Layers::new(scope.again(), config, first);
        for (i, &channels) in config.channels.iter().enumerate() {
            for j in 0..config.blocks {
                layers.residual(format!("down_blocks.{i}.resnets.{j}"), channels)?;
            }
            if i + 1 < config.channels.len() {
                layers.down(format!("down_blocks.{i}.downsamplers.0"))?;
            }
        }
        layers.middle(weights)?;
        Ok(Self {
            config: config.clone(),
            kind,
            conv_in,
            layers: layers.finish(),
            norm: GroupNorm::new(scope.at("conv_norm_out"), deepest, config.groups, EPS)?,
            conv_out: Conv2d::precise(scope.at("conv_out"), deepest, moments, 3)?,
            quant_conv,
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

    /// The distribution of a picture's latents, as the autoencoder has them: [`AutoencoderConfig::scaled`] makes them the U-Net's. The
    /// input may be on another device; the result is there, too.
    ///
    /// # Shapes
    /// `pictures`: [n, picture channels, h, w] in [-1, 1] → [n, latent channels, h / m, w / m] f32, with m of
    /// [`AutoencoderConfig::size_multiple`]
    ///
    /// # Errors
    /// [`Error::AutoencoderInput`] for other channels, [`Error::ImageSize`] for a height or width that is no multiple.
    pub fn encode(&self, pictures: &Tensor) -> Result<Moments> {
        self.encode_tapped(pictures, |_, _| {})
    }

    /// [`encode`](Self::encode), showing `tap` what every layer gives.
    pub(super) fn encode_tapped(&self, pictures: &Tensor, mut tap: impl FnMut(&str, &Tensor)) -> Result<Moments> {
        let (channels, multiple) = (self.config.picture_channels, self.config.size_multiple());
        let (width, height) = match *pictures.size().as_slice() {
            [_, found, height, width] if found == channels => (width, height),
            _ => return Err(Error::AutoencoderInput { what: "pictures", channels, got: pictures.size() }),
        };
        if height < multiple || width < multiple || height % multiple != 0 || width % multiple != 0 {
            return Err(Error::ImageSize { width, height, multiple });
        }
        let home = pictures.device();
        let pictures = pictures.f_to_device(self.device())?.f_to_kind(self.kind)?;
        let mut h = self.conv_in.forward(&channels_last(&pictures)?)?;
        tap("conv_in", &h);
        for (name, layer) in &self.layers {
            h = layer.forward(&h)?;
            tap(name, &h);
        }
        h = self.norm.forward_in(&h, &Around { kind: Some(Kind::Float), ..Around::default() })?;
        tap("conv_norm_out", &h);
        h = self.conv_out.forward(&Activation::Silu.apply_to(h)?)?;
        if let Some(conv) = &self.quant_conv {
            h = conv.forward(&h)?;
        }
        let [mean, log_variance] = chunks(&h, 1)?;
        let home = |x: Tensor| -> Result<Tensor> { Ok(x.f_contiguous()?.f_to_device(home)?) };
        Ok(Moments { mean: home(mean)?, log_variance: home(log_variance.f_clamp(-30.0, 20.0)?)? })
    }
}
