//! *Curvature*: how much the contours of the objects turn on their way. A wobbly outline turns to and fro where its render runs
//! straight or in one curve. It grows with the height of a wobble, where the [roughness](super::roughness) grows with its square.

use super::contours::{Contour, length};

/// Standard deviation of the smoothing along the contour before its turns are measured, in sides of the picture: the steps between pixels
/// of a small view are gone, and of a wobble of two pixels of a base of 64 half is left.
const SMOOTHED: f64 = 0.006;

/// The mean of |κ| along all contours, lightly smoothed: the sum of their turns in radians over their length in sides. `None` where
/// there are none.
pub fn curvature(contours: &[Contour]) -> Option<f64> {
    let (mut turned, mut passed) = (0.0, 0.0);
    for contour in contours {
        let mut points = contour.smoothed(SMOOTHED);
        passed += length(&points);
        // Two more points close the last turn.
        points.extend(points.get(1).copied());
        turned += points.windows(3).map(turn).sum::<f64>();
    }
    (passed > 0.0).then(|| turned / passed)
}

/// The angle between the two pieces of a line.
fn turn(three: &[[f64; 2]]) -> f64 {
    let [a, b, c] = three else { return 0.0 };
    let (u, v) = ([b[0] - a[0], b[1] - a[1]], [c[0] - b[0], c[1] - b[1]]);
    (u[0] * v[1] - u[1] * v[0]).atan2(u[0] * v[0] + u[1] * v[1]).abs()
}

#[cfg(test)]
mod tests {
    use super::super::contours::contours;
    use super::super::contours::shapes::{around, shape, wobbling};
    use super::*;
    use crate::seen::views::Field;

    fn of(field: &Field) -> f64 {
        curvature(&contours(field).unwrap()).unwrap()
    }

    /// A circle's curvature is 1 / R.
    #[test]
    fn a_circle_turns_once() {
        for radius in [0.1, 0.3] {
            let got = of(&shape(|_| radius));
            assert!((got * radius - 1.0).abs() < 0.05, "{radius}: {got}");
        }
        assert_eq!(curvature(&[]), None);
    }

    /// The turn of r(φ) is the integral of |r² + 2 r'² − r r''| / (r² + r'²), its length that of √(r² + r'²).
    #[test]
    fn a_wobble_turns_as_the_integral_says() {
        let (radius, part, waves) = (0.3, 0.03, 12.0_f64);
        let field = wobbling(radius, part, waves);
        let parts = |angle: f64| {
            let (sin, cos) = (waves * angle).sin_cos();
            (radius * (1.0 + part * cos), -radius * part * waves * sin, -radius * part * waves * waves * cos)
        };
        let turned = around(|angle| {
            let (r, first, second) = parts(angle);
            (r * r + 2.0 * first * first - r * second).abs() / (r * r + first * first)
        });
        let passed = around(|angle| parts(angle).0.hypot(parts(angle).1));
        let expected = turned / passed;
        // The smoothing takes 3 % of waves of this length; a circle alone would be 3.3.
        assert!(expected > 8.0 && (of(&field) / expected - 1.0).abs() < 0.05, "{} {expected}", of(&field));
        assert_eq!(of(&field) / of(&field), 1.0);
    }
}
