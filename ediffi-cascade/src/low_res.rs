//! The smaller picture as a condition of super-resolution.
//!
//! A super-resolution network sees the smaller picture, enlarged, beside the noisy one. In training the smaller picture
//! is made from a real one and spoiled at random ([`Corruption`]), so that the network learns to remove what the stage
//! before it gets wrong (eDiff-I, appendix A). In sampling it is only enlarged.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Limits that keep a mistyped number from asking for all memory.
const MAX_RADIUS: i64 = 256;
const MAX_FACTOR: f64 = 16.0;

/// Half the range of pixels in 8-bit units: a noise of 1 there is one of 1 / 127.5 in [-1, 1].
const HALF_RANGE: f64 = 127.5;

/// Enlarges pictures with a bicubic filter (a = -0.75, pixel centres at half integers), and keeps them in [-1, 1], which
/// the filter overshoots.
///
/// # Shapes
/// `x`: [n, 3, h, w] → [n, 3, height, width] f32
///
/// # Errors
/// A tensor that is not four-dimensional, or sizes that are not positive.
pub fn enlarge(x: &Tensor, height: i64, width: i64) -> Result<Tensor> {
    let _no_grad = tch::no_grad_guard();
    Ok(bicubic(x, height, width)?)
}

/// [`enlarge`] with the errors of the core.
pub(crate) fn bicubic(x: &Tensor, height: i64, width: i64) -> ediffi_core::Result<Tensor> {
    let x = x.f_to_kind(Kind::Float)?;
    Ok(x.f_upsample_bicubic2d([height, width], false, None, None)?.f_clamp(-1.0, 1.0)?)
}

/// How a smaller picture is spoiled in training: twice blur, resize and noise, then back to its size.
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

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Corruption`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field, reason| Err(Error::Corruption { field, reason });
        let (smallest, largest) = self.resize_range;
        if !(0.0..=1.0).contains(&self.blur_probability) {
            return wrong("blur_probability", "it is not between 0 and 1");
        }
        if !(self.blur_sigma > 0.0 && self.blur_sigma.is_finite()) {
            return wrong("blur_sigma", "it is not positive and finite");
        }
        if !(0..=MAX_RADIUS).contains(&self.blur_radius) {
            return wrong("blur_radius", "it is not between 0 and 256");
        }
        if !(0.0..=0.5).contains(&self.resize_probability) {
            return wrong("resize_probability", "it is not between 0 and 0.5, which leaves as much for making it smaller");
        }
        if !(smallest > 0.0 && smallest <= 1.0 && (1.0..=MAX_FACTOR).contains(&largest)) {
            return wrong("resize_range", "it is not a factor in (0, 1] and one in [1, 16]");
        }
        if !self.noise_sigma.iter().all(|sigma| *sigma >= 0.0 && sigma.is_finite()) {
            return wrong("noise_sigma", "one is not finite and at least 0");
        }
        Ok(())
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
    /// Those of [`Corruption::validate`], or a tensor that is not four-dimensional.
    pub fn corrupt(&self, x: &Tensor, rng: &mut (impl Rng + ?Sized)) -> Result<Tensor> {
        self.validate()?;
        let _no_grad = tch::no_grad_guard();
        Ok(self.rows(x, rng)?)
    }

    fn rows(&self, x: &Tensor, rng: &mut (impl Rng + ?Sized)) -> ediffi_core::Result<Tensor> {
        let x = x.f_to_kind(Kind::Float)?;
        let (n, _, height, width) = x.size4()?;
        let mut spoiled = x.f_empty_like()?;
        for row in 0..n {
            let mut rng = ChaCha8Rng::seed_from_u64(rng.next_u64());
            let picture = self.picture(&x.f_narrow(0, row, 1)?, (height, width), &mut rng)?;
            spoiled.f_narrow(0, row, 1)?.f_copy_(&picture)?;
        }
        Ok(spoiled.f_clamp_(-1.0, 1.0)?)
    }

    fn picture(&self, x: &Tensor, size: (i64, i64), rng: &mut ChaCha8Rng) -> ediffi_core::Result<Tensor> {
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
        let (which, how_much) = (rng.random::<f64>(), rng.random::<f64>());
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

/// An even number in (0, 1].
fn positive(rng: &mut ChaCha8Rng) -> f64 {
    1.0 - rng.random::<f64>()
}

/// Gaussian blur of standard deviation `sigma` pixels, cut off at `radius`; the border pixels go on outside.
fn blur(x: &Tensor, sigma: f64, radius: i64) -> ediffi_core::Result<Tensor> {
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

fn resize(x: &Tensor, height: i64, width: i64, bicubic: bool) -> ediffi_core::Result<Tensor> {
    let (_, _, h, w) = x.size4()?;
    Ok(if (h, w) == (height, width) {
        x.shallow_clone()
    } else if bicubic {
        x.f_upsample_bicubic2d([height, width], false, None, None)?
    } else {
        x.f_upsample_bilinear2d([height, width], false, None, None)?
    })
}

fn add_noise(x: &Tensor, sigma: f64, rng: &mut ChaCha8Rng) -> ediffi_core::Result<Tensor> {
    let noise: Vec<f32> = (0..x.numel())
        .map(|_| {
            // Drawn as f64 on purpose: rand_distr announces another way to draw an f32.
            let z: f64 = StandardNormal.sample(rng);
            (z * sigma) as f32
        })
        .collect();
    Ok(x.f_add(&Tensor::f_from_slice(&noise)?.f_view_as(x)?.f_to_device(x.device())?)?)
}
