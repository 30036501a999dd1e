//! Batches: pure functions of the seed and the batch's number, made on all cores.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use tch::{Kind, Tensor};
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;
use train_icons::split::Split;

use super::Result;

/// The data set and how many pictures a batch has.
pub struct Data {
    /// Draws scenes.
    pub sampler: Sampler,
    /// Draws pictures.
    pub renderer: Renderer,
    /// Seed of the scenes.
    pub seed: u64,
    /// Pictures a batch.
    pub rows: u64,
}

/// Whole pictures with their captions.
pub struct Pictures {
    /// [n, 3, size, size] in [-1, 1].
    pub pictures: Tensor,
    /// One caption a picture.
    pub captions: Vec<String>,
    /// Rows that get a style reference, and the references, [k, 3, size, size].
    pub references: Option<(Vec<i64>, Tensor)>,
}

/// Crops of large pictures, with the same part of the picture a quarter the size.
pub struct Crops {
    /// [n, 3, crop, crop] in [-1, 1].
    pub large: Tensor,
    /// [n, 3, crop / 4, crop / 4] in [-1, 1].
    pub small: Tensor,
    /// One caption a picture.
    pub captions: Vec<String>,
}

/// The generator of everything random in batch `number`, apart from its scenes.
pub fn dice(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// A number in [0, 1).
pub fn uniform(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

impl Data {
    /// Batch `number` of whole pictures; each gets a style reference with probability `style`.
    pub fn pictures(&self, number: u64, size: u32, style: f64) -> Result<Pictures> {
        let rows: Vec<(Vec<u8>, String, Option<Vec<u8>>)> = (0..self.rows)
            .into_par_iter()
            .map(|row| {
                let index = number * self.rows + row;
                let scene = self.sampler.scene(self.seed, index, Split::Train)?;
                let picture = self.renderer.render(&scene, size)?;
                let reference = if uniform(&mut dice(self.seed ^ 0x57F1E, index)) < style {
                    let other = self.sampler.style_reference(self.seed, index, Split::Train)?;
                    Some(self.renderer.render(&other, size)?)
                } else {
                    None
                };
                Ok((picture, scene.caption, reference))
            })
            .collect::<Result<_>>()?;
        let mut pictures = Vec::new();
        let mut captions = Vec::new();
        let (mut with, mut references) = (Vec::new(), Vec::new());
        for (row, (picture, caption, reference)) in (0..).zip(rows) {
            pictures.push(picture);
            captions.push(caption);
            if let Some(reference) = reference {
                with.push(row);
                references.push(reference);
            }
        }
        let references =
            if with.is_empty() { None } else { Some((with, tensor(&references, i64::from(size))?)) };
        Ok(Pictures { pictures: tensor(&pictures, i64::from(size))?, captions, references })
    }

    /// Batch `number` of crops of `crop` pixels out of pictures of `full` pixels; half of the crops are centred on an
    /// object's edge region by taking them from the middle of the picture, where the objects are.
    pub fn crops(&self, number: u64, full: u32, crop: u32) -> Result<Crops> {
        let rows: Vec<(Vec<u8>, Vec<u8>, String)> = (0..self.rows)
            .into_par_iter()
            .map(|row| {
                let index = number * self.rows + row;
                let scene = self.sampler.scene(self.seed, index, Split::Train)?;
                let mut rng = dice(self.seed ^ 0xC409, index);
                // Corners on whole pixels of the small picture, so that both crops show the same part.
                let places = u64::from((full - crop) / 4 + 1);
                let corner = |rng: &mut ChaCha8Rng| (rng.next_u64() % places) as u32;
                let (x, y) = (corner(&mut rng), corner(&mut rng));
                let large = self.renderer.render_crop(&scene, full, 4 * x, 4 * y, crop)?;
                let small = self.renderer.render_crop(&scene, full / 4, x, y, crop / 4)?;
                Ok((large, small, scene.caption))
            })
            .collect::<Result<_>>()?;
        let large: Vec<_> = rows.iter().map(|(large, ..)| large.as_slice()).collect();
        let small: Vec<_> = rows.iter().map(|(_, small, _)| small.as_slice()).collect();
        Ok(Crops {
            large: tensor(&large, i64::from(crop))?,
            small: tensor(&small, i64::from(crop / 4))?,
            captions: rows.into_iter().map(|(.., caption)| caption).collect(),
        })
    }
}

/// RGB bytes to [n, 3, size, size] in [-1, 1].
pub fn tensor<B: AsRef<[u8]>>(pictures: &[B], size: i64) -> Result<Tensor> {
    let bytes: Vec<u8> = pictures.iter().flat_map(|p| p.as_ref().iter().copied()).collect();
    let x = Tensor::f_from_slice(&bytes)?.f_reshape([-1, size, size, 3])?.f_permute([0, 3, 1, 2])?;
    Ok(x.f_to_kind(Kind::Float)?.f_div_scalar(127.5)?.f_sub_scalar(1.0)?.f_contiguous()?)
}

/// [n, 3, size, size] in [-1, 1] to RGB bytes.
pub fn bytes(pictures: &Tensor) -> Result<Vec<Vec<u8>>> {
    let x = pictures.f_clamp(-1.0, 1.0)?.f_add_scalar(1.0)?.f_mul_scalar(127.5)?.f_round()?;
    let x = x.f_permute([0, 2, 3, 1])?.f_to_kind(Kind::Uint8)?.f_contiguous()?;
    (0..x.size4()?.0).map(|row| Ok(Vec::<u8>::try_from(x.f_select(0, row)?.f_reshape([-1])?)?)).collect()
}

/// Standard normal numbers from `rng`.
pub fn normal(rng: &mut ChaCha8Rng, shape: &[i64]) -> Result<Tensor> {
    // Box–Muller in libtorch: two uniforms drawn here, so that the global generator is not involved.
    let count = shape.iter().product::<i64>() as usize;
    let draw = |rng: &mut ChaCha8Rng| -> Result<Tensor> {
        let values: Vec<f32> = (0..count.div_ceil(2)).map(|_| ((rng.next_u32() >> 8) as f32 + 0.5) / 16_777_216.0).collect();
        Ok(Tensor::f_from_slice(&values)?)
    };
    let radius = draw(rng)?.f_log()?.f_mul_scalar(-2.0)?.f_sqrt()?;
    let angle = draw(rng)?.f_mul_scalar(2.0 * std::f64::consts::PI)?;
    let both = Tensor::f_cat(&[radius.f_mul(&angle.f_cos()?)?, radius.f_mul(&angle.f_sin()?)?], 0)?;
    Ok(both.f_narrow(0, 0, count as i64)?.f_reshape(shape)?)
}
