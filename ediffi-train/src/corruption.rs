//! Spoiling the smaller pictures that super-resolution is trained on.
//!
//! A network that only saw clean smaller pictures would trust them. Trained on spoilt ones, it learns to remove what the stage
//! before it gets wrong (eDiff-I, appendix A).

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;
use crate::error::{expect_not_negative, expect_positive, expect_setting, expect_share};
use crate::random::{draws, uniform};

/// Limits that keep a mistyped number from asking for all memory.
const MAX_RADIUS: i64 = 256;
const MAX_FACTOR: f64 = 16.0;

/// Half the range of pixels in 8-bit units: a noise of 1 there is one of 1 / 127.5 in [-1, 1].
const HALF_RANGE: f64 = 127.5;

/// How a smaller picture is spoilt in training: twice blur, resize and noise, then back to its size.
///
/// The scheme is Real-ESRGAN's (Wang et al. 2021, section 3); the numbers are those of NVIDIA's open relative of eDiff-I
/// (NeMo, `sr256-600m-edm.yaml`), which leaves JPEG artefacts out as well. eDiff-I itself publishes none. Choices made
/// here: strengths of blur and noise and factors of resizes are drawn evenly from their ranges, a resize is bilinear or
/// bicubic with even odds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Corruption {
    /// How likely each of the two blurs is.
    pub blur_probability: f64,
    /// The highest standard deviation of a blur's Gaussian, in pixels.
    pub blur_sigma: f64,
    /// How far that Gaussian is followed, in pixels.
    pub blur_radius: i64,
    /// How likely each of the two resizes makes the picture larger; as likely it makes it smaller.
    pub resize_probability: f64,
    /// The smallest and the largest factor of a resize.
    pub resize_range: (f64, f64),
    /// The highest standard deviation of the first and of the second noise, in steps of 8-bit pixels.
    pub noise_sigma: [f64; 2],
}

impl Default for Corruption {
    fn default() -> Self {
        Self::for_64()
    }
}

impl Corruption {
    /// For pictures of 64 pixels, the input of a stage to 256.
    #[must_use]
    pub fn for_64() -> Self {
        Self {
            blur_probability: 0.2,
            blur_sigma: 1.5,
            blur_radius: 6,
            resize_probability: 0.2,
            resize_range: (0.8, 1.2),
            noise_sigma: [3.0, 2.5],
        }
    }

    /// For pictures of 256 pixels, the input of a stage to 1024.
    #[must_use]
    pub fn for_256() -> Self {
        Self { blur_sigma: 6.0, blur_radius: 22, ..Self::for_64() }
    }

    /// Leaves pictures as they are.
    #[must_use]
    pub fn none() -> Self {
        Self { blur_probability: 0.0, resize_probability: 0.0, noise_sigma: [0.0, 0.0], ..Self::for_64() }
    }

    /// Fails with the first field that makes no sense.
    fn validate(&self) -> Result<()> {
        let (smallest, largest) = self.resize_range;
        let (radius, likely) = (self.blur_radius, self.resize_probability);
        expect_share("blur_probability", self.blur_probability)?;
        expect_positive("blur_sigma", self.blur_sigma)?;
        expect_setting((0..=MAX_RADIUS).contains(&radius), "blur_radius", radius as f64, "is not in [0, 256]")?;
        // One half leaves as much for making the picture smaller.
        expect_setting((0.0..=0.5).contains(&likely), "resize_probability", likely, "is not in [0, 0.5]")?;
        expect_setting(smallest > 0.0 && smallest <= 1.0, "resize_range", smallest, "is not in (0, 1]")?;
        expect_setting((1.0..=MAX_FACTOR).contains(&largest), "resize_range", largest, "is not in [1, 16]")?;
        self.noise_sigma.iter().try_for_each(|&sigma| expect_not_negative("noise_sigma", sigma))
    }

    /// Spoils a batch, each picture in its own way.
    ///
    /// `rng` gives one number for each picture, from which all else about that picture follows: the result depends on
    /// nothing else, and no picture on another.
    ///
    /// # Shapes
    /// `x`: [n, 3, h, w] in [-1, 1] → the same, f32
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) naming the first field that makes no sense; a tensor that is not four-dimensional.
    pub fn corrupt(&self, x: &Tensor, rng: &mut (impl Rng + ?Sized)) -> Result<Tensor> {
        self.validate()?;
        let _no_grad = tch::no_grad_guard();
        let x = x.f_to_kind(Kind::Float)?;
        let (n, _, height, width) = x.size4()?;
        let mut spoilt = x.f_empty_like()?;
        for row in 0..n {
            let mut rng = ChaCha8Rng::seed_from_u64(rng.next_u64());
            let picture = self.picture(&x.f_narrow(0, row, 1)?, (height, width), &mut rng)?;
            spoilt.f_narrow(0, row, 1)?.f_copy_(&picture)?;
        }
        Ok(spoilt.f_clamp_(-1.0, 1.0)?)
    }

    fn picture(&self, x: &Tensor, size: (i64, i64), rng: &mut ChaCha8Rng) -> Result<Tensor> {
        let mut x = x.shallow_clone();
        for noise in self.noise_sigma {
            if rng.random_bool(self.blur_probability) {
                x = blur(&x, self.blur_sigma * positive(rng), self.blur_radius)?;
            }
            let (height, width) = self.resized(size, rng);
            x = resize(&x, height, width, rng.random_bool(0.5))?;
            x = add_noise(&x, noise * positive(rng) / HALF_RANGE, rng)?;
        }
        resize(&x, size.0, size.1, true)
    }

    /// The size after one resize.
    fn resized(&self, (height, width): (i64, i64), rng: &mut ChaCha8Rng) -> (i64, i64) {
        let (smallest, largest) = self.resize_range;
        let (which, how_much) = (uniform(rng), uniform(rng));
        let factor = if which < self.resize_probability {
            1.0 + how_much * (largest - 1.0)
        } else if which < 2.0 * self.resize_probability {
            1.0 - how_much * (1.0 - smallest)
        } else {
            1.0
        };
        let scaled = |side: i64| ((side as f64 * factor).round() as i64).max(1);
        (scaled(height), scaled(width))
    }
}

/// A uniform draw from (0, 1].
fn positive(rng: &mut ChaCha8Rng) -> f64 {
    1.0 - uniform(rng)
}

/// Gaussian blur of standard deviation `sigma` pixels, cut off at `radius`; the border pixels go on outside.
fn blur(x: &Tensor, sigma: f64, radius: i64) -> Result<Tensor> {
    let weights: Vec<f64> = (-radius..=radius).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let weights: Vec<f32> = weights.iter().map(|weight| (weight / sum) as f32).collect();
    let channels = x.size4()?.1;
    let side = 2 * radius + 1;
    let weights = Tensor::f_from_slice(&weights)?.f_to_device(x.device())?.f_view([1, 1, side, 1])?;
    let down = weights.f_expand([channels, 1, side, 1], false)?;
    let across = down.f_transpose(2, 3)?;
    let padded = x.f_replication_pad2d([radius, radius, radius, radius])?;
    let blurred = padded.f_conv2d(&down, None::<Tensor>, [1], [0], [1], channels)?;
    Ok(blurred.f_conv2d(&across, None::<Tensor>, [1], [0], [1], channels)?)
}

fn resize(x: &Tensor, height: i64, width: i64, bicubic: bool) -> Result<Tensor> {
    let (_, _, h, w) = x.size4()?;
    Ok(if (h, w) == (height, width) {
        x.shallow_clone()
    } else if bicubic {
        x.f_upsample_bicubic2d([height, width], false, None, None)?
    } else {
        x.f_upsample_bilinear2d([height, width], false, None, None)?
    })
}

fn add_noise(x: &Tensor, sigma: f64, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    // Drawn as f64 on purpose: rand_distr announces another way to draw an f32.
    let noise = draws(x.numel(), || (Distribution::<f64>::sample(&StandardNormal, rng) * sigma) as f32)?;
    Ok(x.f_add(&Tensor::f_from_slice(&noise)?.f_view_as(x)?.f_to_device(x.device())?)?)
}

#[cfg(test)]
mod tests {
    use ediffi_core::noise::NoiseSource;
    use ediffi_core::seed::Noise;
    use tch::Device;

    use super::*;
    use crate::Error;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    fn pictures(seeds: &[u64], height: i64, width: i64) -> Tensor {
        Noise::new(seeds, 0).normal(&[seeds.len() as i64, 3, height, width]).unwrap().tanh()
    }

    fn grey(height: i64, width: i64) -> Tensor {
        Tensor::full([1, 3, height, width], 0.25, (Kind::Float, Device::Cpu))
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        f64::try_from((a - b).abs().max()).unwrap()
    }

    /// Everything happens, at every size of batch.
    fn strong() -> Corruption {
        Corruption { blur_probability: 0.5, resize_probability: 0.5, ..Corruption::for_64() }
    }

    #[test]
    fn shapes_that_are_no_pictures_are_errors() {
        let flat = Tensor::zeros([4, 4], (Kind::Float, Device::Cpu));
        assert!(matches!(strong().corrupt(&flat, &mut rng(1)), Err(Error::Core { .. })));
        assert_eq!(strong().corrupt(&pictures(&[], 4, 4), &mut rng(1)).unwrap().size(), [0, 3, 4, 4]);
    }

    #[test]
    fn the_same_generator_spoils_alike_and_another_does_not() {
        let x = pictures(&[1, 2, 3], 17, 12);
        let spoil = |seed| strong().corrupt(&x, &mut rng(seed)).unwrap();
        assert!(spoil(1).equal(&spoil(1)));
        assert!(difference(&spoil(1), &spoil(2)) > 1e-3);
        assert!(difference(&spoil(1), &x) > 1e-3);
        assert!(f64::try_from(spoil(1).abs().max()).unwrap() <= 1.0);
    }

    #[test]
    fn a_picture_does_not_depend_on_the_others() {
        let (x, other) = (pictures(&[1, 2, 3, 4], 16, 16), pictures(&[5, 2, 7, 8], 16, 16));
        let [x, other] = [x, other].map(|x| strong().corrupt(&x, &mut rng(9)).unwrap());
        assert!(x.narrow(0, 1, 1).equal(&other.narrow(0, 1, 1)));
        assert!(!x.narrow(0, 0, 1).equal(&other.narrow(0, 0, 1)));
        // Each has its own luck.
        let same = grey(16, 16).expand([2, 3, 16, 16], false);
        let spoilt = strong().corrupt(&same, &mut rng(9)).unwrap();
        assert!(!spoilt.narrow(0, 0, 1).equal(&spoilt.narrow(0, 1, 1)));
    }

    #[test]
    fn without_corruption_nothing_changes() {
        let x = pictures(&[1, 2], 16, 16);
        assert!(Corruption::none().corrupt(&x, &mut rng(1)).unwrap().equal(&x));
    }

    /// Blur and resizes keep a grey picture, so what is left is the noise: two of standard deviations u·3 and v·2.5 for
    /// even u and v, of mean square (9 + 6.25) / 3 in steps of 8 bits.
    #[test]
    fn the_noise_is_as_strong_as_it_says() {
        let flat = Corruption { blur_probability: 0.0, resize_probability: 0.0, ..Corruption::for_64() };
        let x = grey(16, 16).expand([2000, 3, 16, 16], false);
        let noise = (flat.corrupt(&x, &mut rng(3)).unwrap() - &x) * HALF_RANGE;
        let mean_square = f64::try_from(noise.square().mean(Kind::Double)).unwrap();
        // Its standard error over 2000 pictures is 0.073.
        assert!((mean_square - 15.25 / 3.0).abs() < 0.3, "{mean_square}");
        assert!(f64::try_from(noise.mean(Kind::Double)).unwrap().abs() < 0.02);
    }

    #[test]
    fn blur_spreads_a_point_by_its_sigma_and_keeps_its_sum() {
        let point = grey(33, 33).zeros_like();
        let _ = point.narrow(2, 16, 1).narrow(3, 16, 1).fill_(1.0);
        let blurred = blur(&point, 1.5, 8).unwrap();
        assert!(
            difference(
                &blurred.sum_dim_intlist([2, 3].as_slice(), false, Kind::Float),
                &Tensor::ones([1, 3], (Kind::Float, Device::Cpu))
            ) < 1e-5
        );
        let row = blurred.sum_dim_intlist([2].as_slice(), false, Kind::Float);
        let variance: f64 = (0..33).map(|k| row.double_value(&[0, 0, k]) * (k as f64 - 16.0).powi(2)).sum();
        assert!((variance - 2.25).abs() < 1e-3, "{variance}");
        // The border goes on outside: a constant stays.
        assert!(difference(&blur(&grey(5, 7), 6.0, 22).unwrap(), &grey(5, 7)) < 1e-5);
    }

    #[test]
    fn resizes_are_as_likely_and_as_far_as_they_say() {
        let (corruption, mut rng) = (Corruption::for_64(), rng(4));
        let sides: Vec<_> = (0..5000).map(|_| corruption.resized((100, 50), &mut rng)).collect();
        let share = |test: &dyn Fn(i64) -> bool| sides.iter().filter(|(side, _)| test(*side)).count() as f64 / 5000.0;
        // Five standard errors, and the one in twenty that rounds to 100.
        assert!((share(&|side| side > 100) - 0.2).abs() < 0.04);
        assert!((share(&|side| side < 100) - 0.2).abs() < 0.04);
        assert!(sides.iter().all(|(h, w)| (80..=120).contains(h) && (40..=60).contains(w)));
        assert!(sides.iter().any(|(h, _)| *h > 118) && sides.iter().any(|(h, _)| *h < 82));
    }

    #[test]
    fn impossible_numbers_are_named() {
        let good = Corruption::for_64();
        for (bad, name) in [
            (Corruption { blur_probability: 1.5, ..good }, "blur_probability"),
            (Corruption { blur_sigma: 0.0, ..good }, "blur_sigma"),
            (Corruption { blur_radius: -1, ..good }, "blur_radius"),
            (Corruption { resize_probability: 0.6, ..good }, "resize_probability"),
            (Corruption { blur_radius: 257, ..good }, "blur_radius"),
            (Corruption { resize_range: (1.1, 1.2), ..good }, "resize_range"),
            (Corruption { resize_range: (0.8, f64::INFINITY), ..good }, "resize_range"),
            (Corruption { noise_sigma: [1.0, f64::NAN], ..good }, "noise_sigma"),
        ] {
            let error = bad.corrupt(&grey(4, 4), &mut rng(1)).unwrap_err();
            assert!(matches!(error, Error::Setting { field, .. } if field == name), "{error}");
        }
        for good in [good, Corruption::for_256(), Corruption::none()] {
            good.validate().unwrap();
        }
    }

    #[test]
    fn a_file_may_leave_out_what_is_usual() {
        let corruption: Corruption = toml::from_str("blur_sigma = 6.0").unwrap();
        assert_eq!(corruption, Corruption { blur_sigma: 6.0, ..Corruption::for_64() });
        let error = toml::from_str::<Corruption>("jpeg = 1").unwrap_err();
        assert!(error.to_string().contains("jpeg"), "{error}");
    }
}
