//! Batches that need no data set: coarse random pictures, noise, noise levels and random embeddings.

use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::noise::NoiseSource;
use ediffi_core::seed::{Noise, image_seeds, stream};
use ediffi_core::unet::Efficient;
use ediffi_train::noise::NoiseLevels;
use tch::Tensor;

/// Programs report any error in words.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Side of the pictures.
pub const SIDE: i64 = 64;

/// Noise of the smaller picture that super-resolution is given.
const LOW_RES_NOISE: f64 = 0.1;

/// Pictures with all that a training step needs besides them.
pub struct Batch {
    /// [n, 3, side, side]
    pub clean: Tensor,
    /// [n, 3, side, side]
    pub noise: Tensor,
    /// \[n\]
    pub sigmas: Tensor,
    /// Embeddings, and of super-resolution the smaller picture.
    pub conditioning: Conditioning,
}

impl Batch {
    /// `rows` rows from `seed`. Pictures are squares of 8×8 pixels of one random colour each, so that there is something
    /// to learn and the loss falls.
    pub fn draw(config: &Efficient, levels: LogNormal, rows: usize, seed: u64) -> Result<Self> {
        let context = config.0.context.as_ref().ok_or("the network reads no text")?;
        let (seeds, n) = (image_seeds(seed, rows), rows as i64);
        let normal = |number: u64, shape: &[i64]| Noise::new(&seeds, number).normal(shape);
        let t5 = context.t5.ok_or("the network reads no T5")?;
        let text = context.clip_text.ok_or("the network reads no CLIP text")?;
        let coarse = normal(0, &[n, 3, SIDE / 8, SIDE / 8])?.f_mul_scalar(0.5)?;
        let sigmas = NoiseLevels::new(levels, SigmaInterval::ALL).draw(rows, &mut stream(seed, 1))?;
        let sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        let clean = coarse.f_upsample_nearest2d([SIDE, SIDE], None, None)?;
        let mut conditioning = Conditioning {
            t5: Some(normal(3, &[n, t5.tokens, t5.width])?),
            clip_text: Some(normal(4, &[n, text.tokens, text.width])?),
            clip_text_pooled: text.pooled.map(|width| normal(5, &[n, width])).transpose()?,
            clip_image: context.clip_image.map(|width| normal(6, &[n, width])).transpose()?,
            ..Conditioning::default()
        };
        if config.0.low_res {
            let spoilt = normal(7, &[n, 3, SIDE, SIDE])?.f_mul_scalar(LOW_RES_NOISE)?;
            conditioning.low_res = Some(clean.f_add(&spoilt)?);
        }
        let noise = normal(2, &[n, 3, SIDE, SIDE])?;
        Ok(Self { clean, noise, sigmas: Tensor::f_from_slice(&sigmas)?, conditioning })
    }

    /// `rows` rows from row `first` on, sharing storage.
    pub fn narrow(&self, first: i64, rows: i64) -> Result<Self> {
        let [clean, noise, sigmas] = [&self.clean, &self.noise, &self.sigmas].map(|x| x.f_narrow(0, first, rows));
        let conditioning = self.conditioning.rows(first, rows)?;
        Ok(Self { clean: clean?, noise: noise?, sigmas: sigmas?, conditioning })
    }

    /// All tensors by name.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let own = [("clean", &self.clean), ("noise", &self.noise), ("sigmas", &self.sigmas)];
        let all = own.into_iter().chain(self.conditioning.named());
        all.map(|(name, x)| (name.to_owned(), x.shallow_clone())).collect()
    }
}
