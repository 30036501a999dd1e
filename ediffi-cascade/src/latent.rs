//! The decoder of a latent stage: a stage that draws latents, and makes pictures of them when it is done.
//!
//! Nothing bounds a latent, so the clamp to [-1, 1] comes after decoding, and thresholds of guidance have no place before it.

use std::path::PathBuf;

use ediffi_core::autoencoder::{AutoencoderConfig, Decoder};
use ediffi_core::denoiser::is_finite;
use ediffi_core::runtime::Runtime;
use ediffi_core::{Error, Result};
use tch::{Device, Tensor};

use crate::decoding::{Decoding, precision};
use crate::observer::Watch;

/// A picture of more pixels is decoded in tiles, unless the autoencoder was trained for larger ones. Decoding 1024² pixels takes about 4 GiB in
/// f32 with the channels of Stable Diffusion.
const WHOLE: i64 = 1024;

/// Where an autoencoder is, and its dimensions.
#[derive(Debug, Clone)]
pub struct AutoencoderFiles {
    /// A safetensors file, or an index of several, that holds an `AutoencoderKL`. Only its decoder is read.
    pub weights: PathBuf,
    /// The dimensions.
    pub config: AutoencoderConfig,
}

/// The decoder of a stage, loaded when it is first needed.
#[derive(Debug)]
pub(crate) struct LatentDecoder {
    pub(crate) files: AutoencoderFiles,
    runtime: Runtime,
    loaded: Option<Decoder>,
}

impl LatentDecoder {
    pub(crate) fn new(files: AutoencoderFiles, runtime: Runtime) -> Self {
        Self { files, runtime, loaded: None }
    }

    /// How many pixels a side of a latent stands for.
    pub(crate) fn scale(&self) -> i64 {
        self.files.config.size_multiple()
    }

    /// How a picture of this size is decoded. `cut`: whether it is sampled in tiles, since memory is short.
    pub(crate) fn decoding(&self, width: u32, height: u32, cut: bool) -> Decoding {
        let AutoencoderFiles { config, .. } = &self.files;
        let [width, height] = [width, height].map(|side| i64::from(side) / self.scale());
        let side = config.sample_size.max(WHOLE) / self.scale();
        let tiles = if cut || width * height > side * side { config.tiles(height, width) } else { 1 };
        Decoding { autoencoder: config.clone(), kind: config.precision(self.runtime.kind), width, height, tiles }
    }

    /// The pictures of latents, each decoded alone; the observer may stop it before every picture and every tile.
    ///
    /// # Shapes
    /// `latents`: [pictures, latent channels, h, w] → [pictures, channels, scale h, scale w] f32 in [-1, 1], on the CPU
    pub(crate) fn decode(&mut self, latents: &Tensor, tiled: bool, watch: &Watch<'_>) -> Result<Tensor> {
        let Runtime { device, kind } = self.runtime;
        watch.poll()?;
        let decoder = match self.loaded.take() {
            Some(decoder) => decoder,
            None => Decoder::load(&self.files.weights, &self.files.config, device, kind)?,
        };
        let decoder = self.loaded.insert(decoder);
        let pictures = latents.size().first().copied().unwrap_or(0);
        let decoded = (0..pictures).map(|row| {
            let latent = latents.f_narrow(0, row, 1)?;
            let picture = if tiled {
                decoder.decode_tiled(&latent, |_, _| watch.poll())?
            } else {
                watch.poll()?;
                decoder.decode(&latent)?
            };
            if !is_finite(&picture)? {
                let kind = precision(self.files.config.precision(kind));
                return Err(Error::NotFinite(format!("the picture that was decoded in {kind}")));
            }
            Ok(picture.f_clamp(-1.0, 1.0)?.f_to_device(Device::Cpu)?)
        });
        let decoded = decoded.collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_cat(&decoded, 0)?)
    }

    /// Drops the decoder from memory.
    pub(crate) fn release(&mut self) {
        self.loaded = None;
    }
}
