//! Batches that need no data set: coarse random pictures, noise, noise levels and random embeddings.

use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::seed::{Noise, NoiseSource, image_seeds, stream};
use ediffi_core::unet::ContextConfig;
use ediffi_train::noise::NoiseLevels;
use tch::Tensor;

use super::{Result, SIDE};

/// Pictures with all that a training step needs besides them.
pub struct Batch {
    /// [n, 3, side, side].
    pub clean: Tensor,
    /// [n, 3, side, side].
    pub noise: Tensor,
    /// \[n\].
    pub sigmas: Tensor,
    /// Embeddings of all encoders, [n, tokens, width] or [n, width].
    t5: Tensor,
    clip_text: Tensor,
    clip_text_pooled: Tensor,
    clip_image: Tensor,
}

impl Batch {
    /// `rows` rows from `seed`. Pictures are squares of 8×8 pixels of one random colour each, so that there is something
    /// to learn and the loss falls.
    pub fn draw(context: &ContextConfig, levels: LogNormal, rows: usize, seed: u64) -> Result<Self> {
        let (seeds, n) = (image_seeds(seed, rows), rows as i64);
        let normal = |number: u64, shape: &[i64]| Noise::new(&seeds, number).normal(shape);
        let t5 = context.t5.ok_or("the network reads no T5")?;
        let text = context.clip_text.ok_or("the network reads no CLIP text")?;
        let image = context.clip_image.ok_or("the network reads no CLIP image")?;
        let coarse = normal(0, &[n, 3, SIDE / 8, SIDE / 8])?.f_mul_scalar(0.5)?;
        let sigmas = NoiseLevels::new(levels, SigmaInterval::ALL).draw(rows, &mut stream(seed, 1));
        let sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        Ok(Self {
            clean: coarse.f_upsample_nearest2d([SIDE, SIDE], None, None)?,
            noise: normal(2, &[n, 3, SIDE, SIDE])?,
            sigmas: Tensor::f_from_slice(&sigmas)?,
            t5: normal(3, &[n, t5.tokens, t5.width])?,
            clip_text: normal(4, &[n, text.tokens, text.width])?,
            clip_text_pooled: normal(5, &[n, text.pooled])?,
            clip_image: normal(6, &[n, image])?,
        })
    }

    /// `rows` rows from row `first` on, sharing storage.
    pub fn narrow(&self, first: i64, rows: i64) -> Result<Self> {
        let narrow = |x: &Tensor| x.f_narrow(0, first, rows);
        Ok(Self {
            clean: narrow(&self.clean)?,
            noise: narrow(&self.noise)?,
            sigmas: narrow(&self.sigmas)?,
            t5: narrow(&self.t5)?,
            clip_text: narrow(&self.clip_text)?,
            clip_text_pooled: narrow(&self.clip_text_pooled)?,
            clip_image: narrow(&self.clip_image)?,
        })
    }

    /// What the network is told.
    pub fn conditioning(&self) -> Conditioning {
        let share = |x: &Tensor| Some(x.shallow_clone());
        Conditioning {
            t5: share(&self.t5),
            clip_text: share(&self.clip_text),
            clip_text_pooled: share(&self.clip_text_pooled),
            clip_image: share(&self.clip_image),
            low_res: None,
        }
    }

    /// All of it by name, for a file.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let tensors = [
            ("clean", &self.clean),
            ("noise", &self.noise),
            ("sigmas", &self.sigmas),
            ("t5", &self.t5),
            ("clip_text", &self.clip_text),
            ("clip_text_pooled", &self.clip_text_pooled),
            ("clip_image", &self.clip_image),
        ];
        tensors.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).into()
    }
}
