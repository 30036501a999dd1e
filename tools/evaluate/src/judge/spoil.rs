//! What generated pictures look like beside renders: a little blurred, noisy, too bright, and at times a jumble.

use ediffi_core::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;
use train_icons::dice::Dice;

use super::network::SIDE;

/// How often a picture is made a jumble that shows nothing.
const JUMBLED: f64 = 0.05;
/// Side of the pieces of a jumble, in pixels.
const PIECE: usize = 8;

/// Which rows of a batch are jumbled: see [`jumble`].
pub fn jumbled(rows: usize, dice: &mut Dice) -> Vec<bool> {
    (0..rows).map(|_| dice.chance(JUMBLED)).collect()
}

/// Shuffles the pieces of a picture (64 × 64 RGB bytes), so that parts of objects stay and no object does.
pub fn jumble(pixels: &mut [u8], dice: &mut Dice) {
    let side = SIDE as usize;
    let across = side / PIECE;
    let before = pixels.to_vec();
    let mut order: Vec<usize> = (0..across * across).collect();
    for place in (1..order.len()).rev() {
        order.swap(place, (dice.unit() * (place + 1) as f64) as usize);
    }
    for (to, from) in order.into_iter().enumerate() {
        let corner = |piece: usize| (piece % across * PIECE, piece / across * PIECE);
        let ((tx, ty), (fx, fy)) = (corner(to), corner(from));
        for line in 0..PIECE {
            let (t, f) = (((ty + line) * side + tx) * 3, ((fy + line) * side + fx) * 3);
            if let (Some(target), Some(source)) = (pixels.get_mut(t..t + PIECE * 3), before.get(f..f + PIECE * 3)) {
                target.copy_from_slice(source);
            }
        }
    }
}

/// Blurs, dims and adds noise, each picture by another degree; some are left nearly as they were.
///
/// # Shapes
/// `pictures`: [n, 3, h, w] in [-1, 1] → the same
pub fn spoil(pictures: &Tensor, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let rows = pictures.size4()?.0;
    let mut column = |of: &dyn Fn(f32) -> f32| -> Result<Tensor> {
        let values: Vec<f32> = (0..rows).map(|_| of((rng.next_u32() >> 8) as f32 / 16_777_216.0)).collect();
        Ok(Tensor::f_from_slice(&values)?.f_reshape([-1, 1, 1, 1])?)
    };
    // Squares, so that most pictures are spoilt little.
    let blur = column(&|u| u * u)?;
    let noise = column(&|u| 0.15 * u * u)?;
    let gain = column(&|u| 0.85 + 0.25 * u)?;
    let lift = column(&|u| 0.12 * (u - 0.5))?;
    let soft = pictures.f_replication_pad2d([1, 1, 1, 1])?.f_avg_pool2d([3, 3], [1, 1], [0, 0], false, true, None)?;
    let x = pictures.f_add(&soft.f_sub(pictures)?.f_mul(&blur)?)?;
    let grain = grain(&pictures.size(), rng)?;
    Ok(x.f_mul(&gain)?.f_add(&lift)?.f_add(&grain.f_mul(&noise)?)?.f_clamp(-1.0, 1.0)?)
}

/// Noise of variance 1 that is nearly normal: sums of four uniform bytes.
fn grain(shape: &[i64], rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let count = shape.iter().product::<i64>() as usize;
    let mut bytes = vec![0_u8; count * 4];
    rng.fill_bytes(&mut bytes);
    // The sum of four uniform bytes has the mean 510 and the variance 4 · (256² − 1) / 12.
    let values: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|four| (four.iter().map(|&byte| f32::from(byte)).sum::<f32>() - 510.0) / 147.8)
        .collect();
    Ok(Tensor::f_from_slice(&values)?.f_reshape(shape)?)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn a_jumble_has_the_same_pixels_elsewhere() {
        let before: Vec<u8> = (0..64 * 64 * 3).map(|place| (place / 7 % 251) as u8).collect();
        let mut after = before.clone();
        jumble(&mut after, &mut Dice::new(1, 2, 3));
        assert_ne!(before, after);
        let counts = |pixels: &[u8]| {
            let mut counts = [0; 256];
            pixels.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
            counts
        };
        assert_eq!(counts(&before), counts(&after));
        let rows = jumbled(4000, &mut Dice::new(1, 2, 4)).into_iter().filter(|&jumbled| jumbled).count();
        // Five standard deviations of 4000 throws.
        assert!((rows as f64 - 4000.0 * JUMBLED).abs() < 5.0 * (4000.0 * JUMBLED).sqrt(), "{rows}");
    }

    #[test]
    fn spoilt_pictures_stay_close_and_repeat_with_their_generator() {
        let x =
            (Tensor::arange(8 * 3 * 64 * 64, (Kind::Float, Device::Cpu)) * 0.01).sin().reshape([8, 3, 64, 64]) * 0.8;
        let spoilt = |seed| spoil(&x, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
        let first = spoilt(1);
        assert_eq!(first, spoilt(1));
        assert_ne!(first, spoilt(2));
        let apart = (&first - &x).abs().mean(Kind::Float).double_value(&[]);
        assert!(apart > 0.01 && apart < 0.2, "{apart}");
        assert!(first.abs().max().double_value(&[]) <= 1.0);
    }

    #[test]
    fn grain_has_mean_zero_and_variance_one() {
        let x = grain(&[100, 100], &mut ChaCha8Rng::seed_from_u64(3)).unwrap();
        let (mean, square) = (x.mean(Kind::Double).double_value(&[]), x.square().mean(Kind::Double).double_value(&[]));
        // Five standard errors of 10000 numbers.
        assert!(mean.abs() < 0.05 && (square - 1.0).abs() < 0.07, "{mean} {square}");
    }
}
