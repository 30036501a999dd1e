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

/// Pictures with all that a training step needs besides them, by name: `clean`, `noise`, `low_res` (of super-resolution), each
/// [n, 3, side, side]; `sigmas`, \[n\]; and embeddings, [n, tokens, width] or [n, width].
pub struct Batch(pub Vec<(String, Tensor)>);

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
        let mut tensors = vec![
            ("noise", normal(2, &[n, 3, SIDE, SIDE])?),
            ("sigmas", Tensor::f_from_slice(&sigmas)?),
            ("t5", normal(3, &[n, t5.tokens, t5.width])?),
            ("clip_text", normal(4, &[n, text.tokens, text.width])?),
            ("clip_text_pooled", normal(5, &[n, text.pooled])?),
        ];
        if let Some(width) = context.clip_image {
            tensors.push(("clip_image", normal(6, &[n, width])?));
        }
        if config.0.low_res {
            let spoilt = normal(7, &[n, 3, SIDE, SIDE])?.f_mul_scalar(LOW_RES_NOISE)?;
            tensors.push(("low_res", clean.f_add(&spoilt)?));
        }
        tensors.push(("clean", clean));
        Ok(Self(tensors.into_iter().map(|(name, x)| (name.to_owned(), x)).collect()))
    }

    /// `rows` rows from row `first` on, sharing storage.
    pub fn narrow(&self, first: i64, rows: i64) -> Result<Self> {
        let narrow = |(name, x): &(String, Tensor)| Ok((name.clone(), x.f_narrow(0, first, rows)?));
        Ok(Self(self.0.iter().map(narrow).collect::<Result<_>>()?))
    }

    fn find(&self, name: &str) -> Option<Tensor> {
        Some(self.0.iter().find(|(other, _)| other == name)?.1.shallow_clone())
    }

    /// A tensor that every batch has.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        Ok(self.find(name).ok_or_else(|| format!("the batch has no {name}"))?)
    }

    /// What the network is told.
    pub fn conditioning(&self) -> Conditioning {
        Conditioning {
            t5: self.find("t5"),
            clip_text: self.find("clip_text"),
            clip_text_pooled: self.find("clip_text_pooled"),
            clip_image: self.find("clip_image"),
            low_res: self.find("low_res"),
            noise_level: None,
        }
    }
}
