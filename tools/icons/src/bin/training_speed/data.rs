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
    /// Of a network that takes a reference picture.
    clip_image: Option<Tensor>,
    /// Of super-resolution: [n, 3, side, side].
    low_res: Option<Tensor>,
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
        let sigmas = NoiseLevels::new(levels, SigmaInterval::ALL).draw(rows, &mut stream(seed, 1));
        let sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        let clean = coarse.f_upsample_nearest2d([SIDE, SIDE], None, None)?;
        let spoiled =
            || -> Result<Tensor> { Ok(clean.f_add(&normal(7, &[n, 3, SIDE, SIDE])?.f_mul_scalar(LOW_RES_NOISE)?)?) };
        Ok(Self {
            low_res: config.0.low_res.then(spoiled).transpose()?,
            clean,
            noise: normal(2, &[n, 3, SIDE, SIDE])?,
            sigmas: Tensor::f_from_slice(&sigmas)?,
            t5: normal(3, &[n, t5.tokens, t5.width])?,
            clip_text: normal(4, &[n, text.tokens, text.width])?,
            clip_text_pooled: normal(5, &[n, text.pooled])?,
            clip_image: context.clip_image.map(|width| normal(6, &[n, width])).transpose()?,
        })
    }

    /// `rows` rows from row `first` on, sharing storage.
    pub fn narrow(&self, first: i64, rows: i64) -> Result<Self> {
        let narrow = |x: &Tensor| x.f_narrow(0, first, rows);
        let narrow_given = |x: &Option<Tensor>| x.as_ref().map(narrow).transpose();
        Ok(Self {
            clean: narrow(&self.clean)?,
            noise: narrow(&self.noise)?,
            sigmas: narrow(&self.sigmas)?,
            t5: narrow(&self.t5)?,
            clip_text: narrow(&self.clip_text)?,
            clip_text_pooled: narrow(&self.clip_text_pooled)?,
            clip_image: narrow_given(&self.clip_image)?,
            low_res: narrow_given(&self.low_res)?,
        })
    }

    /// What the network is told.
    pub fn conditioning(&self) -> Conditioning {
        let share = |x: &Tensor| Some(x.shallow_clone());
        Conditioning {
            t5: share(&self.t5),
            clip_text: share(&self.clip_text),
            clip_text_pooled: share(&self.clip_text_pooled),
            clip_image: self.clip_image.as_ref().and_then(share),
            low_res: self.low_res.as_ref().and_then(share),
            noise_level: None,
        }
    }

    /// All of it by name, for a file.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let tensors = [
            ("clean", Some(&self.clean)),
            ("noise", Some(&self.noise)),
            ("sigmas", Some(&self.sigmas)),
            ("t5", Some(&self.t5)),
            ("clip_text", Some(&self.clip_text)),
            ("clip_text_pooled", Some(&self.clip_text_pooled)),
            ("clip_image", self.clip_image.as_ref()),
            ("low_res", self.low_res.as_ref()),
        ];
        let given = tensors.into_iter().filter_map(|(name, tensor)| Some((name, tensor?)));
        given.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect()
    }
}
