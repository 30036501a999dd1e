//! Seeds: where the noise of an image comes from.
//!
//! One image has one 64-bit seed, which makes a key of the cipher ChaCha20. The noise of the image in a stage is the stream
//! of that key with the stage's number. It is drawn on the CPU, so the same seed gives the same noise on every device. Each
//! image has its own stream, so an image does not change with the batch it is computed in. libtorch's global generator is
//! never used.
//!
//! The stream is a promise: a seed that someone wrote down gives the same noise in every later version. A test holds its
//! first values.

use std::collections::TryReserveError;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use rand_distr::{Distribution, StandardNormal};

/// The rest of the cipher key beside the seed. It separates this use of ChaCha from any other, and names its version.
const DOMAIN: [u8; 24] = *b"ediffi image noise v1\0\0\0";

/// The seeds of `count` images of one request: `seed`, `seed + 1`, ... After the highest number comes 0.
#[must_use]
pub fn image_seeds(seed: u64, count: usize) -> Vec<u64> {
    (0..count).map(|k| seed.wrapping_add(k as u64)).collect()
}

/// The generator of one image in one stage.
///
/// Its key is the seed in little-endian order, followed by a fixed text. `stage` is the number of the stream.
#[must_use]
pub fn stream(image_seed: u64, stage: u64) -> ChaCha20Rng {
    let mut key = [0; 32];
    let (seed, domain) = key.split_at_mut(8);
    seed.copy_from_slice(&image_seed.to_le_bytes());
    domain.copy_from_slice(&DOMAIN);
    let mut rng = ChaCha20Rng::from_seed(key);
    rng.set_stream(stage);
    rng
}

/// Standard normal noise for a batch of images in one stage, each image from its own [`stream`].
#[derive(Debug, Clone)]
pub struct Noise {
    streams: Vec<ChaCha20Rng>,
}

impl Noise {
    /// The noise of the images with these seeds in stage number `stage` of the cascade.
    #[must_use]
    pub fn new(image_seeds: &[u64], stage: u64) -> Self {
        Self { streams: image_seeds.iter().map(|&seed| stream(seed, stage)).collect() }
    }

    /// The number of images.
    #[must_use]
    pub fn images(&self) -> usize {
        self.streams.len()
    }

    /// The next `per_image` values of every image, one image after the other; an error if there is not enough memory.
    pub(crate) fn draw(&mut self, per_image: usize) -> Result<Vec<f32>, TryReserveError> {
        let mut values = Vec::new();
        values.try_reserve_exact(self.streams.len().saturating_mul(per_image))?;
        for stream in &mut self.streams {
            // Drawn as f64 on purpose: rand_distr announces another way to draw an f32.
            values.extend((0..per_image).map(|_| Distribution::<f64>::sample(&StandardNormal, stream) as f32));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    /// If this test fails, every seed that anybody wrote down has lost its picture: find what changed, and undo it.
    #[test]
    fn the_stream_is_the_one_it_always_was() {
        let expected = [1.557_005_6, 0.309_234_47, -0.773_365_44, -0.017_300_935, 1.835_658_9, 0.246_751_9];
        assert_eq!(Noise::new(&[7], 0).draw(6).unwrap(), expected);
        let expected = [-0.964_492_86, 0.277_474_94, -0.126_667_57];
        assert_eq!(Noise::new(&[u64::MAX], 2).draw(3).unwrap(), expected);
    }

    /// Key and stream number go where the cipher wants them: the words come from another implementation of ChaCha20
    /// (64-bit counter, 64-bit nonce), written from its specification.
    #[test]
    fn the_stream_is_plain_chacha20() {
        let mut stream = stream(7, 2);
        assert_eq!([stream.next_u64(), stream.next_u64()], [0x01b3_222d_efbc_41d4, 0xaaa0_7cbe_c25f_bc80]);
    }

    #[test]
    fn an_image_does_not_change_with_its_batch() {
        let mut batch = Noise::new(&[7, 8], 1);
        let mut alone = Noise::new(&[8], 1);
        for per_image in [5, 3] {
            assert_eq!(batch.draw(per_image).unwrap()[per_image..], alone.draw(per_image).unwrap());
        }
    }

    #[test]
    fn seeds_and_stages_give_different_noise() {
        let draw = |seed, stage| Noise::new(&[seed], stage).draw(4).unwrap();
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
    }

    #[test]
    fn the_noise_is_standard_normal() {
        let values = Noise::new(&[3], 0).draw(100_000).unwrap();
        let moment = |power| values.iter().map(|&v| f64::from(v).powi(power)).sum::<f64>() / values.len() as f64;
        // Five standard errors of each moment.
        assert!(moment(1).abs() < 0.016);
        assert!((moment(2) - 1.0).abs() < 0.023);
        assert!((moment(4) - 3.0).abs() < 0.16);
    }

    #[test]
    fn image_seeds_count_up_and_wrap() {
        assert_eq!(image_seeds(7, 3), [7, 8, 9]);
        assert_eq!(image_seeds(u64::MAX, 2), [u64::MAX, 0]);
    }
}
