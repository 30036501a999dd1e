//! Shapes for regions that are drawn in code.

use crate::{Error, Mask, Result};

/// Samples along each side of a pixel. The level of the pixel is the share of its samples that lie inside the shape.
const SAMPLES: u32 = 4;

/// A shape on a canvas. Points are (x, y) in pixels, from the upper left corner of the canvas to the right and down. A
/// pixel on the edge is painted in part. What lies outside the canvas is cut off.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Shape {
    /// A rectangle between two corners.
    Rectangle {
        /// The upper left corner.
        from: (f32, f32),
        /// The lower right corner.
        to: (f32, f32),
    },
    /// An ellipse whose axes lie along x and y.
    Ellipse {
        /// Its middle.
        centre: (f32, f32),
        /// Half its width and half its height.
        radii: (f32, f32),
    },
    /// The inside of the closed line through these points, by the even-odd rule: where the line crosses itself, a place
    /// that it encloses twice is outside.
    Polygon(Vec<(f32, f32)>),
    /// A brush stroke: everything within `radius` of the line through the points. One point makes a dot.
    Stroke {
        /// The points that the brush passes.
        points: Vec<(f32, f32)>,
        /// Half the width of the stroke.
        radius: f32,
    },
}

impl Shape {
    /// The mask of the shape on a canvas of `size` (width, height).
    pub(crate) fn mask(&self, phrase: &str, size: (u32, u32)) -> Result<Mask> {
        self.check(phrase)?;
        let (from, to) = self.bounds();
        let offset = |sample: u32| (f64::from(sample) + 0.5) / f64::from(SAMPLES);
        Mask::from_fn(phrase, size.0, size.1, |x, y| {
            let (left, upper) = (f64::from(x), f64::from(y));
            if left + 1.0 < from.0 || left > to.0 || upper + 1.0 < from.1 || upper > to.1 {
                return 0;
            }
            let inside = |&(i, j): &(u32, u32)| self.contains(left + offset(i), upper + offset(j));
            let samples = (0..SAMPLES).flat_map(|j| (0..SAMPLES).map(move |i| (i, j)));
            let count = samples.filter(inside).count() as f64;
            // At most 255.
            (count * f64::from(u8::MAX) / f64::from(SAMPLES * SAMPLES)).round() as u8
        })
    }

    fn check(&self, phrase: &str) -> Result<()> {
        let wrong = |reason| Err(Error::Shape { phrase: phrase.to_owned(), reason });
        let (points, sizes, least) = match self {
            Self::Rectangle { from, to } => (vec![*from, *to], [to.0 - from.0, to.1 - from.1], 2),
            Self::Ellipse { centre, radii } => (vec![*centre], [radii.0, radii.1], 1),
            Self::Polygon(points) => (points.clone(), [1.0, 1.0], 3),
            Self::Stroke { points, radius } => (points.clone(), [*radius, *radius], 1),
        };
        if points.len() < least {
            return wrong("it has too few points");
        }
        if points.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
            return wrong("a coordinate is not finite");
        }
        if sizes.iter().any(|size| !(*size > 0.0 && size.is_finite())) {
            return wrong("its width, height or radius is not positive and finite");
        }
        Ok(())
    }

    /// The upper left and the lower right corner of the smallest rectangle around the shape.
    fn bounds(&self) -> ((f64, f64), (f64, f64)) {
        let around = |points: &[(f32, f32)], radii: (f32, f32)| {
            let least = |at: fn(&(f32, f32)) -> f32| points.iter().map(at).fold(f32::INFINITY, f32::min);
            let most = |at: fn(&(f32, f32)) -> f32| points.iter().map(at).fold(f32::NEG_INFINITY, f32::max);
            let from = (f64::from(least(|p| p.0) - radii.0), f64::from(least(|p| p.1) - radii.1));
            (from, (f64::from(most(|p| p.0) + radii.0), f64::from(most(|p| p.1) + radii.1)))
        };
        match self {
            Self::Rectangle { from, to } => around(&[*from, *to], (0.0, 0.0)),
            Self::Ellipse { centre, radii } => around(&[*centre], *radii),
            Self::Polygon(points) => around(points, (0.0, 0.0)),
            Self::Stroke { points, radius } => around(points, (*radius, *radius)),
        }
    }

    fn contains(&self, x: f64, y: f64) -> bool {
        match self {
            Self::Rectangle { from, to } => {
                (f64::from(from.0)..f64::from(to.0)).contains(&x) && (f64::from(from.1)..f64::from(to.1)).contains(&y)
            }
            Self::Ellipse { centre, radii } => {
                let along = |place: f64, middle: f32, radius: f32| (place - f64::from(middle)) / f64::from(radius);
                along(x, centre.0, radii.0).hypot(along(y, centre.1, radii.1)) <= 1.0
            }
            Self::Polygon(points) => {
                // From a place inside, a ray to the right crosses the line an odd number of times.
                let crossed = |(a, b): &((f64, f64), (f64, f64))| {
                    (a.1 > y) != (b.1 > y) && x < a.0 + (y - a.1) / (b.1 - a.1) * (b.0 - a.0)
                };
                sides(points, true).filter(crossed).count() % 2 == 1
            }
            Self::Stroke { points, radius } => {
                let near = |(a, b)| distance((x, y), a, b) <= f64::from(*radius);
                sides(points, false).any(near)
            }
        }
    }
}

/// The segments of the line through the points; a closed line ends where it began. A single point gives one segment of
/// length 0.
fn sides(points: &[(f32, f32)], closed: bool) -> impl Iterator<Item = ((f64, f64), (f64, f64))> {
    let wide = |(x, y): (f32, f32)| (f64::from(x), f64::from(y));
    let count = if closed { points.len() } else { points.len().saturating_sub(1).max(1) };
    let ends = points.iter().cycle().skip(if points.len() == 1 { 0 } else { 1 });
    points.iter().zip(ends).take(count).map(move |(&a, &b)| (wide(a), wide(b)))
}

/// The distance from a point to the segment from `a` to `b`.
fn distance(point: (f64, f64), a: (f64, f64), b: (f64, f64)) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = dx * dx + dy * dy;
    let along = if length > 0.0 { ((point.0 - a.0) * dx + (point.1 - a.1) * dy) / length } else { 0.0 };
    let along = along.clamp(0.0, 1.0);
    (point.0 - a.0 - along * dx).hypot(point.1 - a.1 - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Painted area in pixels.
    fn area(shape: &Shape, size: (u32, u32)) -> f64 {
        let mask = shape.mask("cat", size).unwrap();
        mask.levels().iter().map(|&level| f64::from(level) / 255.0).sum()
    }

    fn level(shape: &Shape, x: u32, y: u32) -> u8 {
        shape.mask("cat", (64, 48)).unwrap().levels()[(y * 64 + x) as usize]
    }

    #[test]
    fn areas_are_those_of_geometry() {
        let size = (64, 48);
        let square = Shape::Rectangle { from: (8.0, 8.5), to: (24.0, 20.0) };
        assert!((area(&square, size) - 16.0 * 11.5).abs() < 0.1);
        let ellipse = Shape::Ellipse { centre: (30.0, 24.0), radii: (20.0, 10.0) };
        assert!((area(&ellipse, size) / (std::f64::consts::PI * 200.0) - 1.0).abs() < 0.01);
        let triangle = Shape::Polygon(vec![(4.0, 4.0), (44.0, 4.0), (4.0, 34.0)]);
        assert!((area(&triangle, size) / 600.0 - 1.0).abs() < 0.01);
        let stroke = Shape::Stroke { points: vec![(10.0, 24.0), (50.0, 24.0)], radius: 5.0 };
        assert!((area(&stroke, size) / (400.0 + std::f64::consts::PI * 25.0) - 1.0).abs() < 0.01);
        let dot = Shape::Stroke { points: vec![(10.0, 24.0)], radius: 5.0 };
        assert!((area(&dot, size) / (std::f64::consts::PI * 25.0) - 1.0).abs() < 0.02);
    }

    #[test]
    fn shapes_stand_where_they_were_put() {
        let ellipse = Shape::Ellipse { centre: (30.0, 24.0), radii: (20.0, 10.0) };
        assert_eq!([level(&ellipse, 30, 24), level(&ellipse, 12, 24), level(&ellipse, 30, 12)], [255, 255, 0]);
        // A bent stroke: the inside of the bend is free.
        let stroke = Shape::Stroke { points: vec![(10.0, 40.0), (10.0, 10.0), (50.0, 10.0)], radius: 3.0 };
        assert_eq!([level(&stroke, 10, 30), level(&stroke, 40, 10), level(&stroke, 30, 30)], [255, 255, 0]);
    }

    /// A five-pointed star drawn in one line encloses its middle twice.
    #[test]
    fn what_is_enclosed_twice_is_outside() {
        let corner = |k: u32| {
            let turn = f64::from(k) * 0.8 * std::f64::consts::PI;
            ((32.0 + 20.0 * turn.sin()) as f32, (24.0 - 20.0 * turn.cos()) as f32)
        };
        let star = Shape::Polygon((0..5).map(corner).collect());
        assert_eq!([level(&star, 32, 24), level(&star, 32, 8)], [0, 255]);
    }

    #[test]
    fn edges_are_soft_and_the_canvas_cuts() {
        let half = Shape::Rectangle { from: (-5.0, -5.0), to: (1.5, 90.0) };
        assert_eq!([level(&half, 0, 0), level(&half, 1, 47), level(&half, 2, 0)], [255, 128, 0]);
    }

    #[test]
    fn shapes_that_are_none_are_errors() {
        let bad = [
            Shape::Rectangle { from: (3.0, 3.0), to: (3.0, 9.0) },
            Shape::Ellipse { centre: (f32::NAN, 1.0), radii: (1.0, 1.0) },
            Shape::Ellipse { centre: (1.0, 1.0), radii: (-1.0, 1.0) },
            Shape::Polygon(vec![(0.0, 0.0), (1.0, 1.0)]),
            Shape::Stroke { points: vec![], radius: 1.0 },
            Shape::Stroke { points: vec![(1.0, 1.0)], radius: 0.0 },
        ];
        for shape in bad {
            let error = shape.mask("cat", (8, 8)).unwrap_err();
            assert!(matches!(&error, Error::Shape { phrase, .. } if phrase == "cat"), "{error}");
        }
    }
}
