//! *Specks*: connected spots that stand alone.

use image::{GrayImage, Luma};
use imageproc::distance_transform::euclidean_squared_distance_transform;
use imageproc::region_labelling::{Connectivity, connected_components};

use super::views::{Field, OBJECT};

/// The smallest spot that is seen, as a part of the picture: a square of 0.4 % of its side, 4 pixels at 1024.
const SEEN: f64 = 0.004 * 0.004;
/// What covers more of the picture is an object, or a part of one. The smallest objects of the data cover ten times as much.
const SPECK: f64 = 0.003;
/// A spot stands alone if all of it is at least this far from every object, in sides of the picture.
const ALONE: f64 = 0.012;

/// How many specks a picture has.
///
/// A spot is a set of pixels that touch each other, also at corners, each further from the background than [`OBJECT`]. A
/// speck is a spot that covers 0.0016 to 0.3 % of the picture and is 1.2 % of the side or more away from everything larger.
/// A picture's specks beside those of its render are those that are too many.
pub fn specks(apart: &Field) -> usize {
    let side = apart.side as u32;
    let spots = GrayImage::from_fn(side, side, |x, y| Luma([u8::from(apart.at(x as isize, y as isize) > OBJECT)]));
    let labels = connected_components(&spots, Connectivity::Eight, Luma([0]));
    let mut areas = Vec::new();
    for Luma([label]) in labels.pixels() {
        let label = *label as usize;
        if areas.len() <= label {
            areas.resize(label + 1, 0_usize);
        }
        if let Some(area) = areas.get_mut(label) {
            *area += 1;
        }
    }
    let whole = f64::from(side) * f64::from(side);
    let part = |label: u32| areas.get(label as usize).map_or(0.0, |&area| area as f64 / whole);
    let large = |label: u32| label > 0 && part(label) > SPECK;
    let objects = GrayImage::from_fn(side, side, |x, y| Luma([u8::from(large(labels.get_pixel(x, y).0[0]))]));
    let mut alone: Vec<bool> =
        (0..areas.len() as u32).map(|label| label > 0 && !large(label) && part(label) >= SEEN).collect();
    if areas.iter().zip(0_u32..).any(|(_, label)| large(label)) {
        let near = (ALONE * f64::from(side)).powi(2);
        let squares = euclidean_squared_distance_transform(&objects);
        for (Luma([label]), Luma([square])) in labels.pixels().zip(squares.pixels()) {
            if let (true, Some(alone)) = (*square < near, alone.get_mut(*label as usize)) {
                *alone = false;
            }
        }
    }
    alone.into_iter().filter(|alone| *alone).count()
}

/// How many specks a picture has that its renders do not have: more than the median of theirs.
pub fn too_many(picture: usize, renders: &[usize]) -> f64 {
    let mut counts = renders.to_vec();
    counts.sort_unstable();
    picture.saturating_sub(counts.get(counts.len() / 2).copied().unwrap_or(0)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Discs, each of a centre and a radius in pixels of 512.
    fn discs(discs: &[(f32, f32, f32)]) -> Field {
        let value = |place: i32| {
            let (x, y) = ((place % 512) as f32, (place / 512) as f32);
            let inside = discs.iter().any(|(a, b, radius)| (x - a).hypot(y - b) <= *radius);
            if inside { 200.0 } else { 5.0 }
        };
        Field { side: 512, values: (0..512 * 512).map(value).collect() }
    }

    const OBJECT_DISC: (f32, f32, f32) = (200.0, 200.0, 80.0);

    #[test]
    fn a_planted_speck_is_counted() {
        let count = |planted: &[(f32, f32, f32)]| specks(&discs(&[&[OBJECT_DISC], planted].concat()));
        let render = count(&[]);
        assert_eq!(render, 0);
        assert_eq!(too_many(render, &[render]), 0.0);
        let one = [(400.0, 400.0, 5.0)];
        assert_eq!(count(&one), 1);
        assert_eq!(count(&[one[0], (450.0, 100.0, 8.0), (30.0, 480.0, 3.0)]), 3);
        // Too small to be seen: one pixel of 512 × 512. Another object: 0.5 % of the picture.
        assert_eq!(count(&[(400.0, 400.0, 0.5)]), 0);
        assert_eq!(count(&[(400.0, 400.0, 21.0)]), 0);
        // 6.14 pixels around the object belong to it.
        assert_eq!((count(&[(200.0, 289.0, 4.0)]), count(&[(200.0, 292.0, 4.0)])), (0, 1));
    }

    #[test]
    fn specks_that_the_render_has_are_none() {
        assert_eq!(
            (too_many(3, &[1]), too_many(1, &[3]), too_many(3, &[0, 2, 9]), too_many(2, &[])),
            (2.0, 0.0, 1.0, 2.0)
        );
        // Without an object every spot stands alone.
        assert_eq!(specks(&discs(&[(100.0, 100.0, 5.0), (300.0, 100.0, 5.0)])), 2);
        assert_eq!(specks(&discs(&[])), 0);
    }
}
