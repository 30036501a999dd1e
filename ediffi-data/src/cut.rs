//! A picture brought to size: resized, cut, mirrored.

use ediffi_train::dataset::Sample;
use ediffi_train::random::uniform;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use rand::Rng;

use crate::{Error, Result};

/// Height and width.
pub(crate) type Size = (u32, u32);

/// How pictures are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cutting {
    /// The picture is resized until it just covers this.
    pub(crate) covers: Size,
    /// What is cut out of the resized picture.
    pub(crate) keeps: Size,
    /// Where chance says, instead of in the middle.
    pub(crate) random: bool,
    /// Mirrors every other picture.
    pub(crate) flip: bool,
}

/// A picture of the size that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Three bytes a pixel.
    pub(crate) pixels: Vec<u8>,
    /// Top and left of what was cut out, in pixels of the resized picture, before it was mirrored.
    pub(crate) crop: (u32, u32),
    pub(crate) flipped: bool,
}

impl Cutting {
    /// Cuts a picture out. As many numbers are drawn whatever is random, so that a setting does not change the others.
    pub(crate) fn cut<R: Rng + ?Sized>(&self, sample: &Sample, rng: &mut R) -> Result<Cut> {
        let failed = |error: String| Error::Pixels { reason: error };
        if sample.width == 0 || sample.height == 0 {
            return Err(failed(format!("it has {}x{} pixels", sample.width, sample.height)));
        }
        let source = ImageRef::new(sample.width, sample.height, &sample.pixels, PixelType::U8x3);
        let source = source.map_err(|error| failed(error.to_string()))?;
        let (height, width) = self.resized((sample.height, sample.width));
        let (kept_height, kept_width) = self.keeps;
        let mut place = |room: u32| {
            let drawn = (uniform(rng) * f64::from(room + 1)) as u32;
            if self.random { drawn.min(room) } else { room / 2 }
        };
        let (top, left) = (place(height - kept_height), place(width - kept_width));
        let flipped = uniform(rng) < 0.5 && self.flip;
        let (from_top, down) = part(top, kept_height, height, sample.height);
        let (from_left, across) = part(left, kept_width, width, sample.width);
        // A picture that has its size already is copied.
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
        let options = options.crop(from_left, from_top, across, down);
        let mut pixels = Image::new(kept_width, kept_height, PixelType::U8x3);
        Resizer::new().resize(&source, &mut pixels, &options).map_err(|error| failed(error.to_string()))?;
        let mut pixels = pixels.into_vec();
        if flipped {
            mirror(&mut pixels, kept_width as usize);
        }
        Ok(Cut { pixels, crop: (top, left), flipped })
    }

    /// The size at which a picture just covers what it has to, its sides in proportion.
    fn resized(&self, (height, width): Size) -> Size {
        let ((least_height, least_width), (h, w)) = (self.covers, (f64::from(height), f64::from(width)));
        let scale = (f64::from(least_height) / h).max(f64::from(least_width) / w);
        // At most 32768 times the side.
        (((h * scale).round() as u32).max(least_height), ((w * scale).round() as u32).max(least_width))
    }
}

/// Where a part of a side of `resized` pixels begins and how long it is, in pixels of the side as it was, `whole`.
fn part(begin: u32, length: u32, resized: u32, whole: u32) -> (f64, f64) {
    let whole = f64::from(whole);
    let [begin, end] = [begin, begin + length].map(|place| f64::from(place) * whole / f64::from(resized));
    let length = end - begin;
    // Rounding may lead out of the picture by the smallest step there is.
    (begin, if begin + length > whole { length.next_down() } else { length })
}

/// Mirrors rows of `width` pixels.
fn mirror(pixels: &mut [u8], width: usize) {
    for row in pixels.chunks_exact_mut(width * 3) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}

#[cfg(test)]
mod tests {
    use ediffi_train::random::batch_rng;

    use super::*;

    /// Red counts columns, green counts rows.
    fn sample(height: u32, width: u32, step: u32) -> Sample {
        let pixel = |y: u32, x: u32| [(x * step) as u8, (y * step) as u8, 7];
        let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(y, x))).collect();
        Sample { pixels, width, height, caption: String::new() }
    }

    fn cutting(covers: Size, keeps: Size) -> Cutting {
        Cutting { covers, keeps, random: false, flip: false }
    }

    #[test]
    fn a_picture_of_the_right_size_is_left_alone() {
        let picture = sample(4, 4, 1);
        let cut = cutting((4, 4), (4, 4)).cut(&picture, &mut batch_rng(0, 0)).unwrap();
        assert_eq!(cut, Cut { pixels: picture.pixels, crop: (0, 0), flipped: false });
    }

    #[test]
    fn the_middle_is_cut_without_chance_and_any_place_with_it() {
        let picture = sample(4, 10, 1);
        let cut = cutting((4, 4), (4, 4)).cut(&picture, &mut batch_rng(0, 0)).unwrap();
        assert_eq!((cut.crop, &cut.pixels[..3]), ((0, 3), &[3, 0, 7][..]));
        let random = Cutting { random: true, flip: true, ..cutting((4, 4), (2, 2)) };
        let (mut places, mut mirrored) = (std::collections::BTreeSet::new(), 0);
        for number in 0..400 {
            let cut = random.cut(&picture, &mut batch_rng(0, number)).unwrap();
            let (top, left) = cut.crop;
            let first = if cut.flipped { left + 1 } else { left };
            assert_eq!(cut.pixels[..2], [first as u8, top as u8]);
            places.insert(cut.crop);
            mirrored += u32::from(cut.flipped);
        }
        assert_eq!(places.len(), 3 * 9, "{places:?}");
        // Five standard deviations of 400 throws.
        assert!((150..=250).contains(&mirrored), "{mirrored}");
    }

    #[test]
    fn chance_in_one_setting_leaves_the_others_alone() {
        let picture = sample(9, 9, 1);
        let cut = |random, flip| {
            Cutting { random, flip, ..cutting((9, 9), (4, 4)) }.cut(&picture, &mut batch_rng(0, 5)).unwrap()
        };
        assert_eq!(cut(true, true).crop, cut(true, false).crop);
        assert_eq!(cut(true, true).flipped, cut(false, true).flipped);
    }

    #[test]
    fn a_picture_is_resized_by_its_shorter_side() {
        // A ramp stays a ramp: pixel x of the smaller picture is the middle of pixels 2x and 2x + 1.
        let cut = cutting((8, 8), (8, 8)).cut(&sample(16, 40, 6), &mut batch_rng(0, 0)).unwrap();
        assert_eq!(cut.crop, (0, 6));
        for (place, pixel) in cut.pixels.chunks(3).enumerate() {
            let (y, x) = (place / 8, place % 8 + 6);
            let expected = [x * 12 + 3, y * 12 + 3, 7];
            for (got, expected) in pixel.iter().zip(expected) {
                // The edges of the picture bend it.
                assert!(
                    usize::from(*got).abs_diff(expected) <= if y == 0 || y == 7 { 3 } else { 1 },
                    "{y} {x}: {pixel:?}"
                );
            }
        }
        let enlarged = cutting((8, 8), (8, 8)).cut(&sample(2, 3, 60), &mut batch_rng(0, 0)).unwrap();
        assert_eq!((enlarged.crop, enlarged.pixels.len()), ((0, 2), 192));
    }

    /// Parts of all sizes and places stay inside, however they are rounded.
    #[test]
    fn no_part_leads_out_of_the_picture() {
        for whole in [3, 7, 100, 1001, 32_768] {
            for resized in [4, 9, 64, 513] {
                for begin in 0..resized {
                    let (from, length) = part(begin, resized - begin, resized, whole);
                    assert!(from >= 0.0 && from + length <= f64::from(whole), "{begin} of {resized} of {whole}");
                }
            }
        }
    }

    #[test]
    fn pictures_that_are_none_are_errors() {
        for (height, width) in [(0, 4), (4, 0), (5, 4)] {
            let picture = Sample { height, width, ..sample(4, 4, 1) };
            let error = cutting((2, 2), (2, 2)).cut(&picture, &mut batch_rng(0, 0)).unwrap_err();
            assert!(matches!(error, Error::Pixels { .. }), "{error}");
        }
    }
}
