//! The decoder of a latent stage: a stage that draws latents, and makes pictures of them when it is done.
//!
//! Nothing bounds a latent, so the clamp to [-1, 1] comes after decoding, and thresholds of guidance have no place before it.

use std::path::PathBuf;
use std::sync::Arc;

use ediffi_core::autoencoder::{AutoencoderConfig, Decoder};
use ediffi_core::denoiser::is_finite;
use ediffi_core::folders::Identity;
use ediffi_core::runtime::Runtime;
use ediffi_core::{Error, Result};
use tch::{Device, Kind, Tensor};

use crate::decoding::{Decoding, precision};
use crate::observer::Watch;

/// Where an autoencoder is, and its dimensions.
#[derive(Debug, Clone)]
pub struct AutoencoderFiles {
    /// A safetensors file, or an index of several, that holds an `AutoencoderKL`. Only its decoder is read.
    pub weights: PathBuf,
    /// Whether that is a whole checkpoint in the original layout of Stable Diffusion, of which the autoencoder is a part.
    pub original: bool,
    /// The dimensions.
    pub config: AutoencoderConfig,
}

/// The decoder of a stage, loaded when it is first needed.
#[derive(Debug)]
pub(crate) struct LatentDecoder {
    pub(crate) files: AutoencoderFiles,
    runtime: Runtime,
    /// The folders that the files are of, if they are known.
    folders: Option<Arc<Identity>>,
    loaded: Option<Decoder>,
}

impl LatentDecoder {
    pub(crate) fn new(files: AutoencoderFiles, runtime: Runtime, folders: Option<Arc<Identity>>) -> Self {
        Self { files, runtime, folders, loaded: None }
    }

    /// Loads nothing that was put in the place of one of these folders. A decoder that is loaded is dropped.
    pub(crate) fn of(&mut self, folders: Arc<Identity>) {
        self.folders = Some(folders);
        self.release();
    }

    /// How many pixels a side of a latent stands for.
    pub(crate) fn scale(&self) -> i64 {
        self.files.config.size_multiple()
    }

    /// How a picture of this size is decoded. `cut`: whether it is sampled in tiles, since memory is short.
    pub(crate) fn decoding(&self, width: u32, height: u32, cut: bool) -> Decoding {
        let AutoencoderFiles { config, .. } = &self.files;
        let [width, height] = [width, height].map(|side| i64::from(side) / self.scale());
        let whole = AutoencoderConfig::WHOLE / self.scale();
        let tiles = if cut || width * height > whole * whole { config.tiles(height, width) } else { 1 };
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
            None => {
                let AutoencoderFiles { weights, original, config } = &self.files;
                let load = if *original { Decoder::load_original } else { Decoder::load };
                let loaded = load(weights, config, device, kind);
                // Weights of another training would be no error of their own.
                self.folders.as_ref().map_or(Ok(()), |folders| folders.check())?;
                loaded?
            }
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
                let kind = self.files.config.precision(kind);
                let advice = if kind == Kind::Half { " (the precision f32 has a wider range)" } else { "" };
                let (file, kind) = (self.files.weights.display(), precision(kind));
                return Err(Error::NotFinite(format!("the picture that {file} decoded in {kind}{advice}")));
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
