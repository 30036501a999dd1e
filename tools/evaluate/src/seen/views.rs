//! How a picture is looked at: its small view, its lightness, and how far each pixel is from the background.

use image::RgbImage;
use train_icons::colour::Rgb;

/// Side of the small view, in pixels.
pub const SMALL: u32 = 256;

/// What is further from the background than this is an object, in levels of 255.
pub const OBJECT: f32 = 24.0;

/// The part of the side that the border is wide.
const BORDER: f32 = 0.02;
/// A pixel of the border is of a tone of the background if it is no further from it than this.
const NEAR: f32 = 64.0;

/// Numbers of the pixels of a square picture, rows from the top.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Pixels of a side.
    pub side: usize,
    /// The numbers.
    pub values: Vec<f32>,
}

impl Field {
    /// The number of a pixel; outside of the picture that of the nearest one.
    pub fn at(&self, x: isize, y: isize) -> f32 {
        let inside = |place: isize| place.clamp(0, self.side as isize - 1) as usize;
        self.values.get(inside(y) * self.side + inside(x)).copied().unwrap_or(0.0)
    }

    /// The number at a place between pixels, bilinearly. The centre of the first pixel is (0, 0).
    pub fn between(&self, x: f32, y: f32) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (u, v) = (x - left, y - top);
        let (left, top) = (left as isize, top as isize);
        let row = |y: isize| self.at(left, y) * (1.0 - u) + self.at(left + 1, y) * u;
        row(top) * (1.0 - v) + row(top + 1) * v
    }
}

/// A picture made smaller: the mean of the pixels that fall into one. `side` divides that of the picture.
pub fn reduced(picture: &RgbImage, side: u32) -> RgbImage {
    let part = (picture.width() / side).max(1);
    RgbImage::from_fn(side, side, |x, y| {
        let pixels = (0..part * part).map(|place| picture.get_pixel(x * part + place % part, y * part + place / part));
        let sums = pixels.fold([0_u32; 3], |sums, pixel| std::array::from_fn(|c| sums[c] + u32::from(pixel.0[c])));
        image::Rgb(sums.map(|sum| ((sum + part * part / 2) / (part * part)) as u8))
    })
}

/// Lightness in [0, 1]: the luma of ITU-R BT.601.
pub fn lightness(picture: &RgbImage) -> Field {
    let luma = |[r, g, b]: Rgb| (0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b)) / 255.0;
    Field { side: picture.width() as usize, values: picture.pixels().map(|pixel| luma(pixel.0)).collect() }
}

/// How far each pixel's colour is from the background, from 0 to 255 (black from white).
///
/// The background is the straight line between its two tones (one point where it is plain), so that the smoothed edges of a
/// pattern lie on it. The tones are those that the picture shows at its border: the median of the border's pixels near each
/// of `tones`, or of all of them if the background is left open or plain. So a shade that is off by a little is no object.
pub fn apart(picture: &RgbImage, tones: Option<[Rgb; 2]>) -> Field {
    let side = picture.width();
    let width = ((side as f32 * BORDER) as u32).max(1);
    let outside = |x: u32, y: u32| x.min(y).min(side - 1 - x).min(side - 1 - y) < width;
    let border: Vec<[f32; 3]> = picture
        .enumerate_pixels()
        .filter(|(x, y, _)| outside(*x, *y))
        .map(|(_, _, pixel)| pixel.0.map(f32::from))
        .collect();
    let [a, b] = match tones.filter(|[a, b]| a != b) {
        None => [median(&border).unwrap_or_default(); 2],
        Some(tones) => {
            let tones = tones.map(|tone| tone.map(f32::from));
            let near = |of: usize| {
                let mine = |pixel: &&[f32; 3]| {
                    let [first, second] = tones.map(|tone| length(minus(**pixel, tone)));
                    let (own, other) = if of == 0 { (first, second) } else { (second, first) };
                    own <= other && own <= NEAR
                };
                median(&border.iter().filter(mine).copied().collect::<Vec<_>>()).unwrap_or(tones[of])
            };
            [near(0), near(1)]
        }
    };
    let along = minus(b, a);
    let square = dot(along, along);
    let value = |pixel: &image::Rgb<u8>| {
        let from = minus(pixel.0.map(f32::from), a);
        let part = if square > 0.0 { (dot(from, along) / square).clamp(0.0, 1.0) } else { 0.0 };
        length(minus(from, along.map(|channel| channel * part)))
    };
    Field { side: side as usize, values: picture.pixels().map(value).collect() }
}

fn minus(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    std::array::from_fn(|channel| a[channel] - b[channel])
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    (0..3).map(|channel| a[channel] * b[channel]).sum()
}

/// Length of a difference of colours, so that white is 255 from black.
fn length(difference: [f32; 3]) -> f32 {
    (dot(difference, difference) / 3.0).sqrt()
}

/// The median of each channel.
fn median(pixels: &[[f32; 3]]) -> Option<[f32; 3]> {
    let middle = |channel: usize| {
        let mut values: Vec<f32> = pixels.iter().map(|pixel| pixel[channel]).collect();
        values.sort_by(f32::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some([middle(0)?, middle(1)?, middle(2)?])
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn the_small_view_is_the_mean_of_what_falls_into_a_pixel() {
        let picture =
            RgbImage::from_fn(8, 8, |x, y| Rgb([(x * 10) as u8, (y * 10) as u8, if x % 2 == 0 { 0 } else { 255 }]));
        let small = reduced(&picture, 2);
        assert_eq!((small.get_pixel(0, 0).0, small.get_pixel(1, 0).0), ([15, 15, 128], [55, 15, 128]));
        assert_eq!(reduced(&picture, 8), picture);
    }

    #[test]
    fn places_between_pixels_are_interpolated() {
        let field = Field { side: 2, values: vec![0.0, 1.0, 2.0, 5.0] };
        assert_eq!((field.between(0.5, 0.0), field.between(0.0, 0.5), field.between(0.5, 0.5)), (0.5, 1.0, 2.0));
        assert_eq!((field.between(-3.0, 0.0), field.between(9.0, 9.0)), (0.0, 5.0));
    }

    #[test]
    fn stripes_with_soft_edges_are_background_and_an_object_is_not() {
        let [a, b]: [[u8; 3]; 2] = [[200, 40, 40], [240, 160, 160]];
        let picture = RgbImage::from_fn(64, 64, |x, y| {
            let part = [0.0, 0.5, 1.0, 0.5][x as usize % 4];
            let mixed = std::array::from_fn(|c| f32::from(a[c]) * (1.0_f32 - part) + f32::from(b[c]) * part);
            // A shade that is off by 6, and an object.
            if (24..40).contains(&x) && (24..40).contains(&y) {
                Rgb([30, 60, 220])
            } else {
                Rgb(mixed.map(|c: f32| c as u8 + 6))
            }
        });
        let field = apart(&picture, Some([a, b]));
        assert!(field.at(3, 3) < 1.0 && field.at(1, 60) < 1.0, "{} {}", field.at(3, 3), field.at(1, 60));
        assert!(field.at(30, 30) > 60.0);
        let plain = apart(&RgbImage::from_fn(64, 64, |x, _| Rgb([if x == 32 { 0 } else { 255 }; 3])), None);
        assert_eq!((plain.at(0, 0), plain.at(32, 5)), (0.0, 255.0));
    }
}
