//! A picture of the canvas.

use image::{Rgb, RgbImage};

use crate::Canvas;

/// The golden angle as a part of the full circle, (3 − √5) / 2. Hues that are a multiple of it apart stay distinct.
const GOLDEN_TURN: f64 = 0.381_966_011_250_105;

/// The colour of region `index` in [`Canvas::preview`].
#[must_use]
pub fn region_colour(index: usize) -> [u8; 3] {
    let hue = (index as f64 * GOLDEN_TURN).fract() * 6.0;
    // Regions of similar hue, such as 0 and 8, differ in brightness.
    let value = [235.0, 150.0, 90.0].get(index % 3).copied().unwrap_or(235.0);
    // HSV to RGB at full saturation: f(n) = v (1 − max(0, min(k, 4 − k, 1))) with k = (n + hue) mod 6, n = 5, 3, 1.
    [5.0, 3.0, 1.0].map(|offset| {
        let position = (offset + hue) % 6.0;
        let amount = position.min(4.0 - position).clamp(0.0, 1.0);
        (value * (1.0 - amount)).round() as u8
    })
}

impl Canvas {
    /// The regions in distinct colours on white; [`region_colour`] gives the colour of each. Later regions cover earlier
    /// ones. What lies below a half-painted pixel shines through.
    #[must_use]
    pub fn preview(&self) -> RgbImage {
        let mut picture = RgbImage::from_pixel(self.width(), self.height(), Rgb([u8::MAX; 3]));
        for (index, region) in self.regions().iter().enumerate() {
            let colour = region_colour(index);
            for (Rgb(pixel), level) in picture.pixels_mut().zip(region.mask.levels()) {
                for (channel, paint) in pixel.iter_mut().zip(colour) {
                    *channel = mix(*channel, paint, level);
                }
            }
        }
        picture
    }
}

/// A colour between `under` (`level` 0) and `over` (`level` 255).
fn mix(under: u8, over: u8, level: u8) -> u8 {
    let [under, over, level] = [under, over, level].map(u32::from);
    // At most 255 * 255 / 255.
    ((under * (255 - level) + over * level + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Palette, PaletteEntry, Region};

    #[test]
    fn colours_are_far_apart() {
        let far = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>();
        for first in 0..12 {
            assert!(far(region_colour(first), [255; 3]) > 60 * 60, "{first} against white");
            for second in 0..first {
                let distance = far(region_colour(first), region_colour(second));
                assert!(distance > 40 * 40, "{first} against {second}: {distance}");
            }
        }
    }

    #[test]
    fn a_preview_of_whole_pixels_reads_back_as_the_canvas() {
        let stripe = |k: u32| Region::rectangle(format!("phrase {k}"), (14, 2), k..k + 1, 0..2).unwrap();
        let canvas = Canvas::new((0..12).map(stripe)).unwrap();
        let entry = |(k, region): (usize, &Region)| PaletteEntry::new(region_colour(k), region.phrase.clone());
        let palette = Palette::new(canvas.regions().iter().enumerate().map(entry));
        let reading = Canvas::from_colours(&canvas.preview(), &palette).unwrap();
        assert_eq!((reading.canvas, reading.unmatched.pixels), (canvas, 0));
    }

    #[test]
    fn half_paint_is_half_way() {
        let half = Region::from_image("cat", &image::GrayImage::from_raw(3, 1, vec![0, 128, 255]).unwrap()).unwrap();
        let picture = Canvas::new([half]).unwrap().preview();
        assert_eq!(picture.get_pixel(0, 0).0, [255; 3]);
        assert_eq!(picture.get_pixel(1, 0).0, region_colour(0).map(|c| mix(255, c, 128)));
        assert_eq!(picture.get_pixel(2, 0).0, region_colour(0));
    }
}
