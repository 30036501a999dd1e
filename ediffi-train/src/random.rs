//! Random numbers of a training. Whatever is random in a batch follows from a seed and the number of the batch, so that a
//! resumed run draws what an unbroken one would have drawn.

use std::iter::repeat_with;

use ediffi_core::guard::guarded;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tch::Tensor;

use crate::{Error, Result};

/// The generator of batch `number`: the ChaCha8 stream of this number under the key of `seed`.
#[must_use]
pub fn batch_rng(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// A uniform draw from [0, 1), of 53 random bits.
pub fn uniform<R: Rng + ?Sized>(rng: &mut R) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Standard normal numbers on the CPU, by the transform of Box and Muller (1958). The uniform numbers come from `rng`, the
/// arithmetic is libtorch's; its global generator is not involved.
///
/// # Shapes
/// → `shape`, f32
///
/// # Errors
/// [`Error::RandomShape`] for a shape of negative sizes, or one that memory has no room for.
pub fn normal<R: Rng + ?Sized>(rng: &mut R, shape: &[i64]) -> Result<Tensor> {
    let count = elements(shape)?;
    let mut draw = || -> Result<Tensor> {
        let values = draws(count.div_ceil(2), || ((rng.next_u32() >> 8) as f32 + 0.5) / 16_777_216.0);
        let no_room = |_| Error::RandomShape { shape: shape.to_vec() };
        Ok(Tensor::f_from_slice(&values.map_err(no_room)?)?)
    };
    guarded(|| {
        let radius = draw()?.f_log()?.f_mul_scalar(-2.0)?.f_sqrt()?;
        let angle = draw()?.f_mul_scalar(2.0 * std::f64::consts::PI)?;
        let both = Tensor::f_cat(&[radius.f_mul(&angle.f_cos()?)?, radius.f_mul(&angle.f_sin()?)?], 0)?;
        Ok(both.f_narrow(0, 0, count as i64)?.f_reshape(shape)?)
    })
}

/// How many numbers a tensor of `shape` has.
pub(crate) fn elements(shape: &[i64]) -> Result<usize> {
    let times = |count: usize, &side: &i64| count.checked_mul(side.try_into().ok()?);
    shape.iter().try_fold(1, times).ok_or_else(|| Error::RandomShape { shape: shape.to_vec() })
}

/// `count` values of `draw`, or [`Error::RandomShape`] before any is drawn.
pub(crate) fn draws<T>(count: usize, draw: impl FnMut() -> T) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(count)
        .map_err(|_| Error::RandomShape { shape: vec![i64::try_from(count).unwrap_or(i64::MAX)] })?;
    values.extend(repeat_with(draw).take(count));
    Ok(values)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    /// If this test fails, a resumed training no longer draws what it drew before.
    #[test]
    fn the_streams_are_those_they_always_were() {
        let mut rng = batch_rng(7, 2);
        assert_eq!([uniform(&mut rng), uniform(&mut rng)], [0.300_128_380_904_711_4, 0.377_544_918_866_419_5]);
        // Box and Muller in f64: two radii, then two angles; all cosines come before all sines.
        let mut other = rng.clone();
        let u: Vec<f64> = (0..4).map(|_| (f64::from(other.next_u32() >> 8) + 0.5) / 16_777_216.0).collect();
        let (radius, angle) = (|i: usize| (-2.0 * u[i].ln()).sqrt(), |i: usize| std::f64::consts::TAU * u[2 + i]);
        let expected = [radius(0) * angle(0).cos(), radius(1) * angle(1).cos(), radius(0) * angle(0).sin()];
        let x = normal(&mut rng, &[3]).unwrap();
        for (index, expected) in (0..).zip(expected) {
            assert!((x.double_value(&[index]) - expected).abs() < 1e-5, "{index}: {x:?}");
        }
    }

    #[test]
    fn shapes_that_cannot_be_are_refused_before_anything_is_drawn() {
        let before = batch_rng(1, 0);
        let mut rng = before.clone();
        for shape in [&[-1][..], &[2, -3], &[-2, -2], &[i64::MAX], &[1 << 60], &[1 << 40, 1 << 40], &[2, i64::MAX]] {
            let error = normal(&mut rng, shape).unwrap_err();
            assert!(matches!(error, Error::RandomShape { .. }), "{shape:?}: {error}");
        }
        assert!(rng == before);
        assert_eq!(
            (normal(&mut rng, &[]).unwrap().size(), normal(&mut rng, &[0, 2]).unwrap().size()),
            (vec![], vec![0, 2])
        );
    }

    #[test]
    fn noise_is_normal_and_repeats_with_its_generator() {
        let draw = |number| normal(&mut batch_rng(4, number), &[101, 99]).unwrap();
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
