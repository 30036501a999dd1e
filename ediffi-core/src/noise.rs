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
    fn shapes_that_do_not_fit_are_refused() {
        for shape in [&[][..], &[3, 4], &[-2, 4], &[2, -1], &[2, i64::MAX, i64::MAX], &[2, i64::MAX / 8]] {
            let result = Noise::new(&[7, 8], 0).normal(shape);
            assert!(matches!(result, Err(Error::InvalidNoiseShape { .. })), "{shape:?}");
        }
    }
}
