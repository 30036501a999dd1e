//! *Roughness*: how much longer the contours of the objects are than the same contours smoothed. A ragged outline is longer than it
//! has to be; what corners and curves give away to the smoothing, a render gives away, too.
//!
//! It grows with the square of a wobble: [`curvature`](super::curvature) sees faint ones better.

use super::contours::{Contour, length};

/// Standard deviation of the smoothing along the contour, in sides of the picture. Of a wobble twice as long it leaves 1 %, of one four
/// times as long 29 %; the raggedness of a base of 64 pixels is two to six of its pixels long.
const SMOOTHED: f64 = 0.02;

/// The length of all contours over their length after the smoothing. `None` where there are none.
pub fn roughness(contours: &[Contour]) -> Option<f64> {
    let rough: f64 = contours.iter().map(|contour| contour.length).sum();
    let smooth: f64 = contours.iter().map(|contour| length(&contour.smoothed(SMOOTHED))).sum();
    (smooth > 0.0).then(|| rough / smooth)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::super::contours::contours;
    use super::super::contours::shapes::{long, shape, wobbling};
    use super::*;
    use crate::seen::views::Field;

    fn of(field: &Field) -> f64 {
        roughness(&contours(field).unwrap()).unwrap()
    }

    /// Along a circle of radius R a Gaussian of σ leaves exp(−½ (σ / R)²).
    fn left(radius: f64) -> f64 {
        (-0.5 * (SMOOTHED / radius).powi(2)).exp()
    }

    #[test]
    fn a_circle_is_as_long_as_its_smoothing_leaves_it() {
        for radius in [0.1, 0.3] {
            let got = of(&shape(|_| radius));
            assert!((got * left(radius) - 1.0).abs() < 4e-3, "{radius}: {got}");
        }
        assert_eq!(roughness(&[]), None);
    }

    /// The smoothing takes a short wobble away and leaves the circle.
    #[test]
    fn a_wobble_is_as_much_longer_as_the_integral_says() {
        let (radius, part, waves) = (0.3, 0.02, 40.0);
        let field = wobbling(radius, part, waves);
        let long = long(radius, part, waves);
        // The points of the circle lie along the longer way.
        let expected = long / (2.0 * PI * radius * left(long / 2.0 / PI));
        assert!(expected > 1.1 && (of(&field) / expected - 1.0).abs() < 0.01, "{} {expected}", of(&field));
        assert_eq!(of(&field) / of(&field), 1.0);
    }
}
