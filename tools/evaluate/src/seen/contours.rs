//! The outlines of the objects of a picture, between pixels.

use std::f64::consts::PI;

use contour::ContourBuilder;

use super::views::{Field, OBJECT};
use crate::error::{Error, Result};

/// Contours shorter than this, in sides of the picture, are specks and details, not outlines.
const SHORTEST: f64 = 0.3;
/// Distance of the points along a contour, in sides of the picture.
const POINTS: f64 = 1.0 / 1024.0;

/// A closed line.
#[derive(Debug, Clone, PartialEq)]
pub struct Contour {
    /// Its length, in sides of the picture.
    pub length: f64,
    /// Points at equal distances, 1/1024 of the side or a little more, along it; the last is not the first again.
    points: Vec<[f64; 2]>,
}

/// The long contours of equal distance ([`OBJECT`]) from the background (marching squares).
pub fn contours(apart: &Field) -> Result<Vec<Contour>> {
    let side = apart.side;
    let values: Vec<f64> = apart.values.iter().map(|&value| f64::from(value)).collect();
    let failed = |error: contour::Error| Error::Setting { what: "contours", reason: error.to_string() };
    let lines = ContourBuilder::new(side, side, true).lines(&values, &[f64::from(OBJECT)]).map_err(failed)?;
    let rings = lines.iter().flat_map(|line| line.geometry().0.iter()).map(|ring| {
        let points: Vec<[f64; 2]> = ring.coords().map(|point| [point.x / side as f64, point.y / side as f64]).collect();
        let length = points.windows(2).map(distance).sum();
        Contour { length, points: resampled(&points, length) }
    });
    Ok(rings.filter(|contour| contour.length >= SHORTEST).collect())
}

impl Contour {
    /// Its points after a Gaussian along it, whose standard deviation is `sigma` sides of the picture; then the first again.
    pub fn smoothed(&self, sigma: f64) -> Vec<[f64; 2]> {
        let count = self.points.len().max(1);
        let sigma = sigma / POINTS;
        let reach = (3.0 * sigma).ceil() as usize;
        let weight = |far: usize| (-0.5 * (far as f64 / sigma).powi(2)).exp() / (sigma * (2.0 * PI).sqrt());
        let weights: Vec<f64> = (0..=reach).map(weight).collect();
        let total = weights.iter().sum::<f64>() * 2.0 - weight(0);
        let at = |place: usize, axis: usize| self.points.get(place % count).map_or(0.0, |point| point[axis]);
        let mean = |place: usize, axis: usize| {
            let pair = |(far, weight): (usize, &f64)| {
                let back = place + (reach / count + 1) * count - far;
                let both = at(place + far, axis) + at(back, axis);
                weight * if far == 0 { both / 2.0 } else { both }
            };
            weights.iter().enumerate().map(pair).sum::<f64>() / total
        };
        (0..=count).map(|place| [mean(place % count, 0), mean(place % count, 1)]).collect()
    }
}

/// The length of a line.
pub fn length(points: &[[f64; 2]]) -> f64 {
    points.windows(2).map(distance).sum()
}

fn distance(pair: &[[f64; 2]]) -> f64 {
    match pair {
        [a, b] => (a[0] - b[0]).hypot(a[1] - b[1]),
        _ => 0.0,
    }
}

/// Points at equal distances along a closed line of this length.
fn resampled(points: &[[f64; 2]], length: f64) -> Vec<[f64; 2]> {
    let count = (length / POINTS).floor().max(3.0);
    let step = length / count;
    let mut found = Vec::with_capacity(count as usize);
    let mut passed = 0.0;
    for pair in points.windows(2) {
        let [a, b] = pair else { continue };
        let here = distance(pair);
        while found.len() < count as usize && found.len() as f64 * step <= passed + here {
            let part = if here > 0.0 { (found.len() as f64 * step - passed) / here } else { 0.0 };
            found.push([0, 1].map(|axis| a[axis] + (b[axis] - a[axis]) * part));
        }
        passed += here;
    }
    found
}

/// Shapes whose contours have a closed form.
#[cfg(test)]
pub mod shapes {
    use super::*;

    /// A shape of 256 pixels whose edge is `radius` (in sides) from the middle at each angle.
    pub fn shape(radius: impl Fn(f64) -> f64) -> Field {
        let value = |place: i32| {
            let (x, y) = (f64::from(place % 256) - 127.5, f64::from(place / 256) - 127.5);
            let inside = radius(y.atan2(x)) * 256.0 - x.hypot(y);
            OBJECT + 15.0 * (inside as f32).clamp(-1.5, 1.5)
        };
        Field { side: 256, values: (0..256 * 256).map(value).collect() }
    }

    /// A circle whose radius wobbles by a part of itself, so many waves around.
    pub fn wobbling(radius: f64, part: f64, waves: f64) -> Field {
        shape(|angle| radius * (1.0 + part * (waves * angle).cos()))
    }

    /// The integral of a function of the angle around the circle.
    pub fn around(of: impl Fn(f64) -> f64) -> f64 {
        let steps = 20_000;
        let step = 2.0 * PI / f64::from(steps);
        (0..steps).map(|number| of(step * f64::from(number))).sum::<f64>() * step
    }

    /// The length of [`wobbling`]: the integral of √(r² + r'²).
    pub fn long(radius: f64, part: f64, waves: f64) -> f64 {
        around(|angle| {
            let slope = radius * part * waves * (waves * angle).sin();
            (radius * (1.0 + part * (waves * angle).cos())).hypot(slope)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::shapes::{long, shape, wobbling};
    use super::*;

    #[test]
    fn lengths_are_those_of_geometry() {
        let [circle] = &contours(&shape(|_| 0.3)).unwrap()[..] else { panic!() };
        assert!((circle.length / (2.0 * PI * 0.3) - 1.0).abs() < 3e-3);
        let [wobbling] = &contours(&wobbling(0.3, 0.03, 12.0)).unwrap()[..] else { panic!() };
        assert!((wobbling.length / long(0.3, 0.03, 12.0) - 1.0).abs() < 5e-3);
        assert!(contours(&shape(|_| 0.02)).unwrap().is_empty() && contours(&shape(|_| 0.0)).unwrap().is_empty());
    }

    /// A Gaussian of σ leaves exp(−½ (σ / R)²) of a circle.
    #[test]
    fn smoothing_shrinks_a_circle_as_it_should() {
        for (radius, sigma) in [(0.1, 0.02), (0.3, 0.02), (0.06, 0.15)] {
            let [circle] = &contours(&shape(|_| radius)).unwrap()[..] else { panic!() };
            let left = length(&circle.smoothed(sigma)) / circle.length;
            // Beyond three σ nothing is weighed.
            assert!((left - (-0.5 * (sigma / radius).powi(2)).exp()).abs() < 6e-3, "{radius} {sigma}: {left}");
        }
    }
}
