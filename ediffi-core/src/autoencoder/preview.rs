//! What latents look like without a decoder.

use tch::{Device, Kind, Tensor};

use super::config::AutoencoderConfig;
use crate::Result;

/// Red, green and blue of a picture in [-1, 1] for each channel of Stable Diffusion's latents (Keturn 2022, "Decoding latents to RGB without
/// upscaling", discuss.huggingface.co/t/23204), without a bias.
const STABLE_DIFFUSION: ([[f32; 3]; 4], [f32; 3]) =
    ([[0.298, 0.207, 0.208], [0.187, 0.286, 0.173], [-0.158, 0.189, 0.264], [-0.184, -0.271, -0.473]], [0.0; 3]);

/// The same of SDXL's latents, for levels from 0 to 255 (diffusers' guide "Pipeline callbacks").
const XL: ([[f32; 3]; 4], [f32; 3]) =
    ([[60.0, 60.0, 60.0], [-60.0, -5.0, 10.0], [25.0, 15.0, -5.0], [-70.0, -50.0, -35.0]], [150.0, 140.0, 130.0]);

/// [`AutoencoderConfig::scaling_factor`] of SDXL, whose latents have other colours.
const XL_SCALE: f64 = 0.13025;

impl AutoencoderConfig {
    /// A rough picture of latents as the U-Net sees them, at their own size: colours that were fitted to each channel. Of latents with another
    /// number of channels than 4, for which no colours are known, it shows the mean in grey.
    ///
    /// # Shapes
    /// `latents`: [.., latent channels, h, w] → [.., 3, h, w] f32, on the same device, nominally in [-1, 1]
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn preview(&self, latents: &Tensor) -> Result<Tensor> {
        let latents = latents.f_to_kind(Kind::Float)?;
        if self.latent_channels != 4 {
            let mean = latents.f_mean_dim([-3_i64].as_slice(), true, Kind::Float)?;
            return Ok(Tensor::f_cat(&[&mean, &mean, &mean], -3)?);
        }
        let levels = self.scaling_factor == XL_SCALE;
        let (colours, bias) = if levels { XL } else { STABLE_DIFFUSION };
        let on = |x: Tensor, device: Device| x.f_to_device(device);
        let colours = on(Tensor::f_from_slice(colours.as_flattened())?, latents.device())?.f_reshape([4, 3])?;
        let bias = on(Tensor::f_from_slice(&bias)?, latents.device())?;
        let rgb = latents.f_transpose(-3, -1)?.f_matmul(&colours)?.f_add(&bias)?.f_transpose(-3, -1)?;
        Ok(if levels { rgb.f_div_scalar(127.5)?.f_sub_scalar(1.0)? } else { rgb })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_colour() {
        let latents = Tensor::zeros([1, 4, 2, 3], (Kind::Float, Device::Cpu));
        let _ = latents.get(0).get(1).get(1).get(2).fill_(2.0);
        let config = AutoencoderConfig::stable_diffusion();
        let pixel = |config: &AutoencoderConfig, y: i64, x: i64| {
            let rgb = config.preview(&latents).unwrap();
            assert_eq!(rgb.size(), [1, 3, 2, 3]);
            Vec::<f32>::try_from(rgb.get(0).select(1, y).select(1, x).contiguous()).unwrap()
        };
        assert_eq!(pixel(&config, 1, 2), [0.374, 0.572, 0.346]);
        assert_eq!(pixel(&config, 0, 2), [0.0; 3]);
        let xl = AutoencoderConfig { scaling_factor: XL_SCALE, ..config };
        let expected = [30.0, 130.0, 150.0].map(|level: f32| level / 127.5 - 1.0);
        assert!(pixel(&xl, 1, 2).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6));
        let one = AutoencoderConfig { latent_channels: 1, ..xl };
        let grey = one.preview(&latents.narrow(1, 1, 1)).unwrap();
        assert_eq!(Vec::<f32>::try_from(grey.get(0).select(1, 1).select(1, 2).contiguous()).unwrap(), [2.0; 3]);
    }
}
