//! Noise as tensors. [`crate::seed`] says where it comes from.

use tch::Tensor;

use crate::seed::Noise;
use crate::{Error, Result};

/// A source of standard normal noise for a solver.
pub trait NoiseSource {
    /// The next noise, f32 on the CPU.
    ///
    /// # Shapes
    /// The result has `shape`, whose first entry is the number of images.
    ///
    /// # Errors
    /// [`Error::InvalidNoiseShape`] if `shape` does not fit.
    fn normal(&mut self, shape: &[i64]) -> Result<Tensor>;
}

/// Noise between that of one seed and those of the images: turned from the one to the other, as far as two noises of different seeds stand
/// apart, which is a right angle. It is standard normal itself.
#[derive(Debug, Clone)]
pub struct Between {
    from: Noise,
    to: Noise,
    /// How much of each is in the noise of an image.
    parts: Vec<[f32; 2]>,
}

impl Between {
    /// The noise of the images with these seeds in stage number `stage`, turned from that of the seed `from`; a `strength` of 0 is that of
    /// `from` to the bit, and 1 that of each image.
    #[must_use]
    pub fn new(from: u64, image_seeds: &[u64], stage: u64, strength: f64) -> Self {
        let parts = |&seed: &u64| match strength {
            // The same noise twice is at no angle.
            ..=0.0 => [1.0, 0.0],
            _ if seed == from => [1.0, 0.0],
            1.0.. => [0.0, 1.0],
            _ => {
                let (sin, cos) = (strength * std::f64::consts::FRAC_PI_2).sin_cos();
                [cos as f32, sin as f32]
            }
        };
        let parts = image_seeds.iter().map(parts).collect();
        Self { from: Noise::new(&vec![from; image_seeds.len()], stage), to: Noise::new(image_seeds, stage), parts }
    }
}

impl NoiseSource for Between {
    fn normal(&mut self, shape: &[i64]) -> Result<Tensor> {
        let (from, to) = (self.from.normal(shape)?, self.to.normal(shape)?);
        let part = |which: usize| -> Result<Tensor> {
            let parts: Vec<f32> = self.parts.iter().filter_map(|parts| parts.get(which).copied()).collect();
            let mut sides = vec![1; shape.len()];
            sides.iter_mut().take(1).for_each(|rows| *rows = -1);
            Ok(Tensor::f_from_slice(&parts)?.f_reshape(sides)?)
        };
        Ok(from.f_mul(&part(0)?)?.f_add(&to.f_mul(&part(1)?)?)?)
    }
}

impl NoiseSource for Noise {
    fn normal(&mut self, shape: &[i64]) -> Result<Tensor> {
        let wrong = |reason| Error::InvalidNoiseShape { shape: shape.to_vec(), reason };
        let images = self.images();
        let (&rows, rest) = shape.split_first().ok_or_else(|| wrong("it has no dimensions".to_owned()))?;
        if usize::try_from(rows) != Ok(images) {
            return Err(wrong(format!("this is the noise of {images} images")));
        }
        let per_image = rest
            .iter()
            .try_fold(1_usize, |count, &side| count.checked_mul(usize::try_from(side).ok()?))
            .ok_or_else(|| wrong("its number of elements is negative or too large".to_owned()))?;
        let values = self.draw(per_image).map_err(|error| wrong(error.to_string()))?;
        Ok(Tensor::f_from_slice(&values)?.f_reshape(shape)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_images_in_order() {
        let noise = Noise::new(&[7, 8], 0).normal(&[2, 3, 4, 5]).unwrap();
        assert_eq!((noise.size(), noise.kind()), (vec![2, 3, 4, 5], tch::Kind::Float));
        let alone = Noise::new(&[8], 0).normal(&[1, 3, 4, 5]).unwrap();
        assert!(noise.narrow(0, 1, 1).equal(&alone));
    }

    #[test]
    fn between_two_seeds_is_noise_at_an_angle() {
        let shape = [3, 3, 64, 64];
        let own = Noise::new(&[7, 8, 9], 2).normal(&shape).unwrap();
        let from = Noise::new(&[7, 7, 7], 2).normal(&shape).unwrap();
        let between = |strength| Between::new(7, &[7, 8, 9], 2, strength).normal(&shape).unwrap();
        assert!(between(0.0).equal(&from) && between(1.0).equal(&own));
        let third = between(1.0 / 3.0);
        // The seed itself is at no angle.
        assert!(third.narrow(0, 0, 1).equal(&from.narrow(0, 0, 1)));
        let rest = |x: &Tensor| x.narrow(0, 1, 2);
        let expected = rest(&from) * 0.75_f64.sqrt() + rest(&own) * 0.5;
        assert!(f64::try_from((rest(&third) - expected).abs().max()).unwrap() < 1e-6);
        // 24576 numbers: five standard errors.
        let mean = |x: Tensor| f64::try_from(x.mean(tch::Kind::Double)).unwrap();
        assert!((mean(rest(&third).square()) - 1.0).abs() < 0.045);
        assert!((mean(rest(&third) * rest(&from)) - 0.75_f64.sqrt()).abs() < 0.045);
        // The draws go on alike.
        let mut two = Between::new(7, &[8], 0, 0.0);
        let mut one = Noise::new(&[7], 0);
        for side in [2, 5] {
            assert!(two.normal(&[1, side]).unwrap().equal(&one.normal(&[1, side]).unwrap()));
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for shape in [&[][..], &[3, 4], &[-2, 4], &[2, -1], &[2, i64::MAX, i64::MAX], &[2, i64::MAX / 8]] {
            let result = Noise::new(&[7, 8], 0).normal(shape);
            assert!(matches!(result, Err(Error::InvalidNoiseShape { .. })), "{shape:?}");
        }
    }
}
