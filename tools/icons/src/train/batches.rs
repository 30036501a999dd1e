//! Batches: pure functions of the seed and the batch's number, made on all cores.

use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use tch::{Kind, Tensor};
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;
use train_icons::scene::Scene;
use train_icons::split::Split;

use super::Result;

/// The data set and how many pictures a batch has.
pub struct Data {
    /// Draws scenes.
    pub sampler: Arc<Sampler>,
    /// Draws pictures.
    pub renderer: Arc<Renderer>,
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
        let references = if with.is_empty() { None } else { Some((with, tensor(&references, i64::from(size))?)) };
        Ok(Pictures { pictures: tensor(&pictures, i64::from(size))?, captions, references })
    }

    /// Batch `number` of crops of `crop` pixels out of pictures of `full` pixels, with the same part of the picture drawn a
    /// quarter the size. Three quarters are of an object or its surroundings, where there is something to learn; the rest
    /// come from anywhere.
    pub fn crops(&self, number: u64, full: u32, crop: u32) -> Result<Crops> {
        let rows: Vec<(Vec<u8>, Vec<u8>, String)> = (0..self.rows)
            .into_par_iter()
            .map(|row| {
                let index = number * self.rows + row;
                let scene = self.sampler.scene(self.seed, index, Split::Train)?;
                let mut rng = dice(self.seed ^ 0xC409, index);
                let (x, y) = crop_corner(&scene, f64::from(crop) / f64::from(full), &mut rng);
                // On whole pixels of the small picture, so that both crops show the same part.
                let pixel = |place: f64| ((place * f64::from(full / 4)).round() as u32).min((full - crop) / 4);
                let (x, y) = (pixel(x), pixel(y));
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

/// Upper left corner of a crop of side `side`, in sides of the picture.
fn crop_corner(scene: &Scene, side: f64, rng: &mut ChaCha8Rng) -> (f64, f64) {
    let room = 1.0 - side;
    if uniform(rng) < 0.25 || scene.objects.is_empty() {
        return (uniform(rng) * room, uniform(rng) * room);
    }
    let object = &scene.objects[(uniform(rng) * scene.objects.len() as f64) as usize];
    // The middle of the crop lies in a square a little larger than the object.
    let reach = 1.1 * f64::from(object.size);
    let place = |centre: f32, rng: &mut ChaCha8Rng| {
        (f64::from(centre) + (uniform(rng) - 0.5) * reach - side / 2.0).clamp(0.0, room)
    };
    (place(object.x, rng), place(object.y, rng))
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
        let values: Vec<f32> =
            (0..count.div_ceil(2)).map(|_| ((rng.next_u32() >> 8) as f32 + 0.5) / 16_777_216.0).collect();
        Ok(Tensor::f_from_slice(&values)?)
    };
    let radius = draw(rng)?.f_log()?.f_mul_scalar(-2.0)?.f_sqrt()?;
    let angle = draw(rng)?.f_mul_scalar(2.0 * std::f64::consts::PI)?;
    let both = Tensor::f_cat(&[radius.f_mul(&angle.f_cos()?)?, radius.f_mul(&angle.f_sin()?)?], 0)?;
    Ok(both.f_narrow(0, 0, count as i64)?.f_reshape(shape)?)
}

#[cfg(test)]
#[path = "../../tests/common/mod.rs"]
mod common;

#[cfg(test)]
mod tests {
    use train_icons::config::SamplerConfig;

    use super::common::{only_tiny, pack};
    use super::*;

    fn data(seed: u64) -> Data {
        Data {
            sampler: Arc::new(Sampler::new(only_tiny(SamplerConfig::small())).unwrap()),
            renderer: Arc::new(Renderer::new(&pack()).unwrap()),
            seed,
            rows: 6,
        }
    }

    #[test]
    fn a_batch_is_a_pure_function_of_seed_and_number() {
        let first = data(1).pictures(3, 32, 0.5).unwrap();
        let again = data(1).pictures(3, 32, 0.5).unwrap();
        assert_eq!((&first.pictures, &first.captions), (&again.pictures, &again.captions));
        assert_eq!(first.references.unwrap().0, again.references.unwrap().0);
        assert_ne!(first.pictures, data(1).pictures(4, 32, 0.5).unwrap().pictures);
        assert_ne!(first.pictures, data(2).pictures(3, 32, 0.5).unwrap().pictures);
        assert_eq!(first.pictures.size(), [6, 3, 32, 32]);
        assert!(first.pictures.abs().max().double_value(&[]) <= 1.0);
    }

    #[test]
    fn style_references_come_as_often_as_asked() {
        assert!(data(1).pictures(0, 16, 0.0).unwrap().references.is_none());
        let (rows, references) = data(1).pictures(0, 16, 1.0).unwrap().references.unwrap();
        assert_eq!((rows, references.size()), ((0..6).collect(), vec![6, 3, 16, 16]));
        let counts =
            (0..20).map(|n| data(1).pictures(n, 16, 0.5).unwrap().references.map_or(0, |(rows, _)| rows.len()));
        let share = counts.sum::<usize>() as f64 / 120.0;
        // Five standard deviations of 120 throws.
        assert!((share - 0.5).abs() < 0.23, "{share}");
    }

    #[test]
    fn both_crops_show_the_same_part() {
        let crops = data(1).crops(0, 256, 64).unwrap();
        assert_eq!((crops.large.size(), crops.small.size()), (vec![6, 3, 64, 64], vec![6, 3, 16, 16]));
        let reduced = crops.large.avg_pool2d([4, 4], [4, 4], [0, 0], false, true, None);
        let apart = (&reduced - &crops.small).abs().mean(Kind::Float).double_value(&[]);
        // The same rows in another order are the measure of another part.
        let other = (reduced.roll([1], [0]) - &crops.small).abs().mean(Kind::Float).double_value(&[]);
        assert!(apart < 0.05 && other > 4.0 * apart, "{apart} {other}");
    }

    /// Over 400 crops of a tenth of the picture: more than half show part of an object, and some lie far from any.
    #[test]
    fn most_crops_show_an_object() {
        let data = data(1);
        let (mut near, mut far) = (0, 0);
        for index in 0..400 {
            let scene = data.sampler.scene(1, index, Split::Train).unwrap();
            let (x, y) = crop_corner(&scene, 0.1, &mut dice(9, index));
            assert!((0.0..=0.9).contains(&x) && (0.0..=0.9).contains(&y));
            let apart = |object: &train_icons::scene::Object| {
                let axis =
                    |corner: f64, centre: f32| (corner + 0.05 - f64::from(centre)).abs() / f64::from(object.size);
                axis(x, object.x).max(axis(y, object.y))
            };
            let nearest = scene.objects.iter().map(apart).fold(f64::INFINITY, f64::min);
            near += u32::from(nearest < 0.5);
            far += u32::from(nearest > 0.6);
        }
        assert!(near > 200 && far > 5, "{near} near an object, {far} far from any");
    }

    #[test]
    fn bytes_survive_the_way_to_a_tensor_and_back() {
        let picture: Vec<u8> = (0..48).map(|i| i * 5).collect();
        let x = tensor(&[&picture, &picture], 4).unwrap();
        assert_eq!(x.size(), [2, 3, 4, 4]);
        assert_eq!(x.double_value(&[0, 1, 0, 0]), f64::from(5.0_f32 / 127.5 - 1.0));
        assert_eq!(bytes(&x).unwrap(), [picture.clone(), picture]);
        assert_eq!(bytes(&(x * 0.0 + 9.0)).unwrap()[0], [255; 48]);
    }

    #[test]
    fn noise_is_normal_and_repeats_with_its_generator() {
        let draw = |number| normal(&mut dice(4, number), &[101, 99]).unwrap();
        let x = draw(0);
        assert_eq!(x, draw(0));
        assert_ne!(x, draw(1));
        // Five standard deviations of the mean, the variance and the fourth moment of 9999 normal numbers.
        for (power, expected, deviation) in [(1, 0.0, 1.0_f64), (2, 1.0, 2.0), (4, 3.0, 96.0)] {
            let moment = x.pow_tensor_scalar(power).mean(Kind::Double).double_value(&[]);
            assert!((moment - expected).abs() < 5.0 * (deviation / 9999.0).sqrt(), "moment {power}: {moment}");
        }
        // The two halves come from the same pair of uniforms, yet are independent.
        let x = x.reshape([-1]);
        let (cosines, sines) = (x.narrow(0, 0, 4999), x.narrow(0, 5000, 4999));
        assert!((cosines * sines).mean(Kind::Double).double_value(&[]).abs() < 5.0 / 4999.0_f64.sqrt());
    }
}
