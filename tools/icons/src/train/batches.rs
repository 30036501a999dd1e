//! Batches: pure functions of the seed and the batch's number, made on all cores.

use std::sync::Arc;

use ediffi_train::batch::Batch;
use ediffi_train::pixels::from_rgb;
use ediffi_train::random::{batch_rng, uniform};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::Tensor;
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;
use train_icons::scene::Scene;
use train_icons::split::Split;

use super::Result;
use super::redrawn::RedrawnPictures;

/// The data set and how many pictures a batch has.
pub struct Data {
    pub sampler: Arc<Sampler>,
    pub renderer: Arc<Renderer>,
    /// Seed of the scenes.
    pub seed: u64,
    /// Pictures a batch.
    pub rows: u64,
}

/// What is said of the pictures of a batch.
#[derive(Debug)]
pub struct Captions {
    /// One caption a picture.
    pub captions: Vec<String>,
    /// Rows that get a style reference, and the references, [k, 3, size, size].
    pub references: Option<(Vec<i64>, Tensor)>,
}

impl Data {
    /// Batch `number` of whole pictures; each gets a style reference with probability `style`.
    pub fn pictures(&self, number: u64, size: u32, style: f64) -> Result<Batch<Captions>> {
        let rows = self.rows(number, |index| {
            let scene = self.scene(index)?;
            let picture = self.renderer.render(&scene, size)?;
            let reference = if uniform(&mut batch_rng(self.seed ^ 0x57F1E, index)) < style {
                let other = self.sampler.style_reference(self.seed, index, Split::Train)?;
                Some(self.renderer.render(&other, size)?)
            } else {
                None
            };
            Ok((picture, scene.caption, reference))
        })?;
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
        let references = if with.is_empty() { None } else { Some((with, squares(&references, size)?)) };
        Ok(Batch { pictures: squares(&pictures, size)?, smaller: None, text: Captions { captions, references } })
    }

    /// Batch `number` of crops of `crop` pixels out of pictures of `full` pixels, with the same part of the picture drawn a
    /// quarter the size. Three quarters are of an object or its surroundings, where there is something to learn; the rest
    /// come from anywhere. The smaller pictures of some scenes are `redrawn`.
    pub fn crops(
        &self,
        number: u64,
        full: u32,
        crop: u32,
        redrawn: Option<&RedrawnPictures>,
    ) -> Result<Batch<Captions>> {
        let rows = self.rows(number, |index| {
            let again = redrawn.and_then(|redrawn| Some((redrawn, redrawn.scene(self.seed, index)?)));
            let scene = self.scene(again.map_or(index, |(_, scene)| scene))?;
            let mut rng = batch_rng(self.seed ^ 0xC409, index);
            let (x, y) = crop_corner(&scene, f64::from(crop) / f64::from(full), &mut rng);
            // On whole pixels of the small picture, so that both crops show the same part.
            let pixel = |place: f64| ((place * f64::from(full / 4)).round() as u32).min((full - crop) / 4);
            let (x, y) = (pixel(x), pixel(y));
            let large = self.renderer.render_crop(&scene, full, 4 * x, 4 * y, crop)?;
            let small = match again {
                Some((redrawn, scene)) => {
                    redrawn.crop(scene, (x, y), crop / 4).ok_or("a crop outside of its picture")?
                }
                None => self.renderer.render_crop(&scene, full / 4, x, y, crop / 4)?,
            };
            Ok((large, small, scene.caption))
        })?;
        let large: Vec<_> = rows.iter().map(|(large, ..)| large.as_slice()).collect();
        let small: Vec<_> = rows.iter().map(|(_, small, _)| small.as_slice()).collect();
        let (pictures, smaller) = (squares(&large, crop)?, Some(squares(&small, crop / 4)?));
        let captions = rows.into_iter().map(|(.., caption)| caption).collect();
        Ok(Batch { pictures, smaller, text: Captions { captions, references: None } })
    }

    /// What `draw` makes of the numbers of batch `number`.
    fn rows<T: Send>(&self, number: u64, draw: impl Fn(u64) -> Result<T> + Send + Sync) -> Result<Vec<T>> {
        (number * self.rows..(number + 1) * self.rows).into_par_iter().map(draw).collect()
    }

    fn scene(&self, index: u64) -> Result<Scene> {
        Ok(self.sampler.scene(self.seed, index, Split::Train)?)
    }
}

fn squares<B: AsRef<[u8]>>(pictures: &[B], size: u32) -> Result<Tensor> {
    Ok(from_rgb(pictures, i64::from(size), i64::from(size))?)
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

#[cfg(test)]
#[path = "../../tests/common/mod.rs"]
mod common;

#[cfg(test)]
mod tests {
    use tch::Kind;
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
        assert_eq!((&first.pictures, &first.text.captions), (&again.pictures, &again.text.captions));
        assert_eq!(first.text.references.unwrap().0, again.text.references.unwrap().0);
        assert_ne!(first.pictures, data(1).pictures(4, 32, 0.5).unwrap().pictures);
        assert_ne!(first.pictures, data(2).pictures(3, 32, 0.5).unwrap().pictures);
        assert_eq!(first.pictures.size(), [6, 3, 32, 32]);
        assert!(first.pictures.abs().max().double_value(&[]) <= 1.0);
    }

    #[test]
    fn style_references_come_as_often_as_asked() {
        assert!(data(1).pictures(0, 16, 0.0).unwrap().text.references.is_none());
        let (rows, references) = data(1).pictures(0, 16, 1.0).unwrap().text.references.unwrap();
        assert_eq!((rows, references.size()), ((0..6).collect(), vec![6, 3, 16, 16]));
        let counts =
            (0..20).map(|n| data(1).pictures(n, 16, 0.5).unwrap().text.references.map_or(0, |(rows, _)| rows.len()));
        let share = counts.sum::<usize>() as f64 / 120.0;
        // Five standard deviations of 120 throws.
        assert!((share - 0.5).abs() < 0.23, "{share}");
    }

    #[test]
    fn both_crops_show_the_same_part() {
        let crops = data(1).crops(0, 256, 64, None).unwrap();
        let small = crops.smaller.unwrap();
        assert_eq!((crops.pictures.size(), small.size()), (vec![6, 3, 64, 64], vec![6, 3, 16, 16]));
        let reduced = crops.pictures.avg_pool2d([4, 4], [4, 4], [0, 0], false, true, None);
        let apart = (&reduced - &small).abs().mean(Kind::Float).double_value(&[]);
        // The same rows in another order are the measure of another part.
        let other = (reduced.roll([1], [0]) - &small).abs().mean(Kind::Float).double_value(&[]);
        assert!(apart < 0.05 && other > 4.0 * apart, "{apart} {other}");
    }

    /// Over 400 crops of a tenth of the picture: more than half show part of an object, and some lie far from any.
    #[test]
    fn most_crops_show_an_object() {
        let data = data(1);
        let (mut near, mut far) = (0, 0);
        for index in 0..400 {
            let scene = data.sampler.scene(1, index, Split::Train).unwrap();
            let (x, y) = crop_corner(&scene, 0.1, &mut batch_rng(9, index));
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
}
