//! The smaller picture as a condition of super-resolution.
//!
//! A super-resolution network sees the smaller picture, enlarged, beside the noisy one.

mod condition;

use tch::{Kind, Tensor};

pub use condition::{Enlarging, LowRes};

use crate::Result;

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

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::Error;

    fn grey(height: i64, width: i64) -> Tensor {
        Tensor::full([1, 3, height, width], 0.25, (Kind::Float, Device::Cpu))
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        f64::try_from((a - b).abs().max()).unwrap()
    }

    #[test]
    fn enlarging_is_bicubic_and_keeps_the_range() {
        assert!(difference(&enlarge(&grey(4, 6), 16, 18).unwrap(), &grey(16, 18)) < 1e-6);
        // A line of the picture becomes Keys' kernel: pixel k of the enlarged lies at (k + 1/2) / 2 - 1/2 of the smaller.
        let line = grey(8, 8).zeros_like();
        let _ = line.narrow(3, 3, 1).fill_(1.0);
        let wide = enlarge(&line, 16, 16).unwrap();
        let a = -0.75_f64;
        for k in 0..16 {
            let d = ((k as f64 + 0.5) / 2.0 - 0.5 - 3.0).abs();
            let expected = match d {
                ..1.0 => (a + 2.0) * d.powi(3) - (a + 3.0) * d.powi(2) + 1.0,
                ..2.0 => a * (d.powi(3) - 5.0 * d.powi(2) + 8.0 * d - 4.0),
                _ => 0.0,
            };
            assert!((wide.double_value(&[0, 0, 8, k]) - expected).abs() < 1e-6, "{k}");
        }
        // It overshoots at an edge, and the result does not.
        let edge = Tensor::cat(&[grey(8, 4).full_like(-1.0), grey(8, 4).full_like(1.0)], 3);
        let raw = edge.upsample_bicubic2d([32, 32], false, None, None);
        assert!(f64::try_from(raw.max()).unwrap() > 1.05);
        assert_eq!(f64::try_from(enlarge(&edge, 32, 32).unwrap().abs().max()).unwrap(), 1.0);
    }

    #[test]
    fn shapes_that_are_no_pictures_are_errors() {
        let flat = Tensor::zeros([4, 4], (Kind::Float, Device::Cpu));
        assert!(matches!(enlarge(&flat, 8, 8), Err(Error::Core { .. })));
        assert!(matches!(enlarge(&grey(4, 4), 0, 8), Err(Error::Core { .. })));
    }
}
