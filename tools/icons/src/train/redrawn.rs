//! Smaller pictures as the base draws them.

use std::path::Path;

use ediffi_train::random::{batch_rng, uniform};
use tch::Tensor;

use super::Result;
use super::stages::BASE;

/// What tells draws of the plan's seed for these pictures from others.
pub const LEVELS: u64 = 0x2ED2_0A11;

/// The only tensor of the file: bytes of RGB, [pictures, side, side, 3].
pub const TENSOR: &str = "pictures";

/// The smaller pictures of the first scenes of the data, redrawn.
pub struct RedrawnPictures {
    pictures: Vec<Vec<u8>>,
    share: f64,
}

impl RedrawnPictures {
    /// Reads what was drawn. `share` of the samples see it.
    pub fn read(path: &Path, share: f64) -> Result<Self> {
        let tensors = Tensor::read_safetensors(path)?;
        let bytes = tensors.iter().find(|(name, _)| name == TENSOR);
        let (_, bytes) = bytes.ok_or_else(|| format!("{} has no pictures", path.display()))?;
        let picture = |row| Ok(Vec::<u8>::try_from(bytes.f_select(0, row)?.f_reshape([-1])?)?);
        Ok(Self { pictures: (0..bytes.size4()?.0).map(picture).collect::<Result<_>>()?, share })
    }

    /// The scene that sample `index` of the data sees redrawn, if it does.
    pub fn scene(&self, seed: u64, index: u64) -> Option<u64> {
        let rng = &mut batch_rng(seed ^ LEVELS, index);
        let (seen, which) = (uniform(rng) < self.share, uniform(rng));
        seen.then_some((which * self.pictures.len() as f64) as u64)
    }

    /// The square of `side` pixels at (x, y) of the picture of a scene.
    pub fn crop(&self, scene: u64, (x, y): (u32, u32), side: u32) -> Option<Vec<u8>> {
        let picture = self.pictures.get(scene as usize).filter(|_| x + side <= BASE)?;
        let line = |y: u32| {
            let begin = 3 * (y * BASE + x) as usize;
            picture.get(begin..begin + 3 * side as usize)
        };
        (y..y + side).map(line).collect::<Option<Vec<_>>>().map(|lines| lines.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redrawn(share: f64) -> RedrawnPictures {
        // Red counts columns, green lines, blue pictures.
        let picture = |n: u8| (0..BASE as u8).flat_map(move |y| (0..BASE as u8).flat_map(move |x| [x, y, n])).collect();
        RedrawnPictures { pictures: (0..5).map(picture).collect(), share }
    }

    #[test]
    fn a_crop_is_a_part_of_its_picture() {
        assert_eq!(redrawn(1.0).crop(3, (9, 20), 2).unwrap(), [9, 20, 3, 10, 20, 3, 9, 21, 3, 10, 21, 3]);
        assert_eq!(redrawn(1.0).crop(3, (63, 0), 2), None);
        assert_eq!(redrawn(1.0).crop(5, (0, 0), 2), None);
    }

    #[test]
    fn as_many_samples_as_asked_see_pictures_and_all_of_them() {
        let scenes = |share| (0..400).filter_map(|index| redrawn(share).scene(7, index)).collect::<Vec<_>>();
        assert!(scenes(0.0).is_empty());
        assert_eq!(scenes(1.0).len(), 400);
        let mut seen = scenes(0.75);
        // Five standard deviations of 400 throws.
        assert!((seen.len() as f64 - 300.0).abs() < 44.0, "{}", seen.len());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_was_drawn_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let bytes = Tensor::from_slice(&redrawn(1.0).pictures.concat()).reshape([5, 64, 64, 3]);
        Tensor::write_safetensors(&[(TENSOR, bytes)], &path).unwrap();
        assert_eq!(RedrawnPictures::read(&path, 1.0).unwrap().pictures, redrawn(1.0).pictures);
    }
}
