//! *Edge width*: how far it is across an edge from 10 to 90 % of its step, in pixels. Blur makes it larger.

use super::views::Field;

/// An edge rises at a rate of at least this many steps from black to white over the side of the picture: 1/128 a pixel at 1024.
const STEEP: f32 = 8.0;
/// The whole step of an edge is at least this part of that from black to white.
const STEP: f32 = 0.1;
/// The farthest that a side of an edge is followed, in sides of the picture.
const REACH: f32 = 0.06;
/// An edge ends where it rises by less than this part of its steepest rise.
const FLAT: f32 = 0.05;
/// Distance of the samples across an edge, in pixels.
const STRIDE: f32 = 0.5;
/// A picture with fewer places on edges than this tells nothing.
const FEWEST: usize = 32;

/// The mean over all places on edges of the 10–90 % width of the edge there, in pixels; `None` for a picture without edges.
///
/// A place on an edge is a pixel where the gradient of `lightness` (central differences) is steep and steepest along its own
/// direction. From there the edge is followed both ways along the gradient, for as long as it rises.
pub fn width(lightness: &Field) -> Option<f64> {
    let side = lightness.side as isize;
    let gradient = |x: isize, y: isize| {
        let dx = (lightness.at(x + 1, y) - lightness.at(x - 1, y)) / 2.0;
        let dy = (lightness.at(x, y + 1) - lightness.at(x, y - 1)) / 2.0;
        (dx, dy)
    };
    let values =
        (0..side * side).map(|place| gradient(place % side, place / side)).map(|(dx, dy)| dx.hypot(dy)).collect();
    let steepness = Field { side: lightness.side, values };
    let mut widths = Vec::new();
    // The outermost pixels have no neighbours to be steeper than.
    for y in 1..side - 1 {
        for x in 1..side - 1 {
            let here = steepness.at(x, y);
            if here * (side as f32) < STEEP {
                continue;
            }
            let (dx, dy) = gradient(x, y);
            let across = (dx / here, dy / here);
            let (px, py) = (x as f32, y as f32);
            let before = steepness.between(px - across.0, py - across.1);
            let after = steepness.between(px + across.0, py + across.1);
            if here > before && here >= after {
                widths.extend(across_edge(lightness, (px, py), across, here));
            }
        }
    }
    (widths.len() >= FEWEST).then(|| widths.iter().map(|&width| f64::from(width)).sum::<f64>() / widths.len() as f64)
}

/// The 10–90 % width of the edge through a place, if it is a step at all.
fn across_edge(lightness: &Field, (x, y): (f32, f32), (dx, dy): (f32, f32), steepest: f32) -> Option<f32> {
    let at = |distance: f32| lightness.between(x + distance * dx, y + distance * dy);
    let most = (lightness.side as f32 * REACH / STRIDE).ceil() as usize;
    // Samples from the middle outwards, up the edge or down.
    let side = |direction: f32| {
        let mut samples = vec![at(0.0)];
        for number in 1..=most {
            let value = at(direction * number as f32 * STRIDE);
            let last = samples.last().copied().unwrap_or(value);
            if (value - last) * direction < FLAT * steepest * STRIDE {
                break;
            }
            samples.push(value);
        }
        samples
    };
    let (up, down) = (side(1.0), side(-1.0));
    let (high, low) = (up.last().copied()?, down.last().copied()?);
    let step = high - low;
    if step < STEP {
        return None;
    }
    // Samples along the whole edge, from its foot to its top.
    let along: Vec<f32> = down.iter().rev().chain(up.iter().skip(1)).copied().collect();
    let crossing = |level: f32| {
        let place = along.windows(2).position(|pair| matches!(pair, [a, b] if *a <= level && level <= *b))?;
        let (a, b) = (along.get(place)?, along.get(place + 1)?);
        Some((place as f32 + if b > a { (level - a) / (b - a) } else { 0.0 }) * STRIDE)
    };
    Some(crossing(low + 0.9 * step)? - crossing(low + 0.1 * step)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disc of 80 pixels radius in 256, whose edge rises straight over `ramp` pixels.
    fn disc(ramp: f32, step: f32) -> Field {
        let value = |place: i32| {
            let (x, y) = ((place % 256) as f32 - 127.3, (place / 256) as f32 - 127.8);
            0.2 + step * ((x.hypot(y) - 80.0) / ramp + 0.5).clamp(0.0, 1.0)
        };
        Field { side: 256, values: (0..256 * 256).map(value).collect() }
    }

    /// Of an edge that rises straight over w pixels, 10 to 90 % are 0.8 w.
    #[test]
    fn a_straight_rise_has_eight_tenths_of_its_width() {
        for ramp in [6.0, 10.0, 14.0] {
            let width = width(&disc(ramp, 0.7)).unwrap();
            // The corners of the rise fall between pixels.
            assert!((width / f64::from(0.8 * ramp) - 1.0).abs() < 0.05, "{ramp}: {width}");
            assert_eq!(width / super::width(&disc(ramp, 0.7)).unwrap(), 1.0);
        }
        assert!(width(&disc(1.0, 0.7)).unwrap() < 1.6);
    }

    #[test]
    fn what_is_flat_or_faint_or_slow_has_no_edges() {
        assert_eq!(width(&disc(6.0, 0.0)), None);
        assert_eq!(width(&disc(2.0, 0.08)), None);
        assert_eq!(width(&disc(80.0, 0.7)), None);
    }
}
