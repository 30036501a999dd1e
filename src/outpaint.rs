//! Outpainting: a picture on a larger canvas, and the mask of what is new.

use ediffi_encoders::PICTURE_SIDE;
use image::{GrayImage, ImageFormat, Luma, RgbImage};

use crate::{Edit, EditPicture, Error, Result};

/// How many pixels are added at each side of a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Margins {
    /// At the left.
    pub left: u32,
    /// At the top.
    pub top: u32,
    /// At the right.
    pub right: u32,
    /// At the bottom.
    pub bottom: u32,
}

impl Margins {
    /// Those that are no smaller, with which the picture has the proportions of what is drawn.
    ///
    /// `asked`: the size that a request sets, if it does. Else the shorter side is drawn as long as the last stage's `own`, and the other is a
    /// multiple of `unit`. It is widened only where it is wide; where that does not help, the margins stay as they are.
    pub(crate) fn widened(self, picture: (u32, u32), asked: Option<(u32, u32)>, unit: f64, own: f64) -> Self {
        let Self { left, top, right, bottom } = self;
        let extended = (left > 0 || right > 0, top > 0 || bottom > 0);
        let width = f64::from(picture.0) + f64::from(left) + f64::from(right);
        let height = f64::from(picture.1) + f64::from(top) + f64::from(bottom);
        let (drawn_width, drawn_height) = asked.map_or_else(
            || {
                let wide = width >= height;
                let steps = width.max(height) * own / width.min(height) / unit;
                let grows = if wide { extended.0 } else { extended.1 };
                // A share of a pixel is no step of its own.
                let longer = unit * if grows { (steps - 1e-6).ceil() } else { (steps + 1e-6).floor() };
                if wide { (longer, own) } else { (own, longer) }
            },
            |(width, height)| (f64::from(width), f64::from(height)),
        );
        let scale = (width / drawn_width).max(height / drawn_height);
        let more = |drawn: f64, side: f64| (drawn * scale - side).round().max(0.0) as u32;
        let (across, down) = (more(drawn_width, width), more(drawn_height, height));
        if (across > 0 && !extended.0) || (down > 0 && !extended.1) {
            return self;
        }
        let wider = |first: u32, second: u32, more: u32| match (first, second) {
            (_, 1..) => (first, second.saturating_add(more)),
            (_, 0) => (first.saturating_add(more), second),
        };
        let ((left, right), (top, bottom)) = (wider(left, right, across), wider(top, bottom, down));
        Self { left, top, right, bottom }
    }
}

/// Of the shorter side of a picture, one part in so many at an edge that is extended is drawn anew more and more, so that no seam shows.
const SEAM: u32 = 32;

/// The most pixels of a picture with its margins: four times what the limits of a pipeline allow by default.
const MOST_PIXELS: u64 = 1 << 26;

impl Edit {
    /// An edit that draws what lies around a picture: the picture with margins, and a mask that is white there. At an extended edge the mask
    /// is soft over a 32nd of the picture's shorter side; all else of the picture stays as it is.
    ///
    /// What a pipeline draws of it has sides that every stage can draw. [`Pipeline::margins`](crate::Pipeline::margins) widens the margins
    /// so that the proportions stay.
    ///
    /// ```no_run
    /// use ediffi::{Edit, EditPicture, Margins, Request};
    ///
    /// let photo = EditPicture::open("photo.jpg")?;
    /// let wider = Edit::outpaint(&photo, Margins { right: 128, ..Margins::default() })?;
    /// let request = Request::new("a cat on a white background").edit(wider);
    /// # Ok::<(), ediffi::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::EditPicture`] for damaged pixels, no margin at all, and margins that make it larger than [`PICTURE_SIDE`] or 2²⁶ pixels.
    pub fn outpaint(picture: &EditPicture, margins: Margins) -> Result<Self> {
        let Margins { left, top, right, bottom } = margins;
        if margins == Margins::default() {
            return Err(Error::EditPicture("there is no margin to be drawn".to_owned()));
        }
        let (width, height) = (picture.width(), picture.height());
        let side = |before: u32, own: u32, after: u32| before.checked_add(own)?.checked_add(after);
        let whole = side(left, width, right).zip(side(top, height, bottom));
        let fits = |&(w, h): &(u32, u32)| w.max(h) <= PICTURE_SIDE && u64::from(w) * u64::from(h) <= MOST_PIXELS;
        let Some((whole_width, whole_height)) = whole.filter(fits) else {
            let reason = format!(
                "{width}x{height} pixels and the margins are more than {PICTURE_SIDE} at a side, or {MOST_PIXELS} in all"
            );
            return Err(Error::EditPicture(reason));
        };
        let pixels = picture.pixels()?;
        let inside = |place: u32, before: u32, own: u32| place.saturating_sub(before).min(own - 1);
        let extended = RgbImage::from_fn(whole_width, whole_height, |x, y| {
            *pixels.get_pixel(inside(x, left, width), inside(y, top, height))
        });
        let seam = (width.min(height) / SEAM).max(1);
        let edges = |place, before, own, after| edge(place, (before, own, after), seam);
        let mask = GrayImage::from_fn(whole_width, whole_height, |x, y| {
            Luma([edges(x, left, width, right).max(edges(y, top, height, bottom))])
        });
        let mut png = std::io::Cursor::new(Vec::new());
        mask.write_to(&mut png, ImageFormat::Png).map_err(|error| Error::EditPicture(error.to_string()))?;
        Ok(Self::new(EditPicture::new(&extended)?).mask(EditPicture::from_bytes(png.into_inner())?))
    }
}

/// How white the mask is at a place of one axis, on which a picture of `own` pixels has margins.
fn edge(place: u32, (before, own, after): (u32, u32, u32), seam: u32) -> u8 {
    let (first, end) = (before, before + own);
    if place < first || place >= end {
        return u8::MAX;
    }
    // How far it is from an edge that is extended, in pixels.
    let from_start = (before > 0).then_some(place - first);
    let from_end = (after > 0).then_some(end - 1 - place);
    let near = from_start.into_iter().chain(from_end).min().filter(|distance| *distance < seam);
    near.map_or(0, |distance| (255.0 * (f64::from(seam - distance) - 0.5) / f64::from(seam)).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_lies_in_its_margins() {
        let pixels = RgbImage::from_fn(64, 96, |x, y| image::Rgb([x as u8, y as u8, 9]));
        let picture = EditPicture::new(&pixels).unwrap();
        let margins = Margins { left: 10, bottom: 5, ..Margins::default() };
        let edit = Edit::outpaint(&picture, margins).unwrap();
        let (extended, mask) = (edit.picture.pixels().unwrap(), edit.mask.unwrap().mask().unwrap());
        assert_eq!((extended.dimensions(), mask.dimensions()), ((74, 101), (74, 101)));
        for (x, y, pixel) in extended.enumerate_pixels() {
            let own = *pixels.get_pixel(x.saturating_sub(10), y.min(95));
            assert_eq!(*pixel, own, "{x} {y}");
            let white = mask.get_pixel(x, y).0[0];
            // The seam is two pixels wide.
            let expected = match (x, y) {
                (..10, _) | (_, 96..) => 255,
                (10, _) | (_, 95) => 191,
                (11, _) | (_, 94) => 64,
                _ => 0,
            };
            assert_eq!(white, expected, "{x} {y}");
        }
    }

    /// Stages that draw 1024 pixels, in steps of 128.
    #[test]
    fn margins_are_widened_to_what_can_be_drawn() {
        let widened = |margins: Margins, picture| margins.widened(picture, None, 128.0, 1024.0);
        let none = Margins::default();
        for (margins, picture, expected) in [
            (Margins { right: 32, ..none }, (1024, 1024), Margins { right: 128, ..none }),
            (Margins { right: 128, ..none }, (1024, 1024), Margins { right: 128, ..none }),
            (Margins { left: 32, ..none }, (1024, 1024), Margins { left: 128, ..none }),
            (Margins { left: 32, right: 8, ..none }, (1024, 1024), Margins { left: 32, right: 96, ..none }),
            // 1000x750 and 250 are 1706.7x1024; 14 steps are 1792.
            (Margins { right: 250, ..none }, (1000, 750), Margins { right: 313, ..none }),
            // The shorter side grows: 1280x1024 is drawn as 1152x1024 at 1280x1138, or as a square.
            (Margins { top: 100, ..none }, (1280, 1024), Margins { top: 114, ..none }),
            (Margins { top: 130, ..none }, (1280, 1024), Margins { top: 256, ..none }),
            // Squares.
            (Margins { left: 4, right: 4, ..none }, (8, 16), Margins { left: 4, right: 4, ..none }),
            (
                Margins { left: 1, top: 1, right: 1, bottom: 1 },
                (64, 64),
                Margins { left: 1, top: 1, right: 1, bottom: 1 },
            ),
            (Margins { top: 10, ..none }, (700, 1024), Margins { top: 26, ..none }),
            (Margins { left: 10, ..none }, (700, 1024), Margins { left: 45, ..none }),
            (none, (1000, 750), none),
        ] {
            assert_eq!(widened(margins, picture), expected, "{margins:?} of {picture:?}");
        }
        let asked = |margins: Margins, size| margins.widened((1024, 1024), Some(size), 128.0, 1024.0);
        assert_eq!(asked(Margins { right: 100, ..none }, (1280, 1024)), Margins { right: 256, ..none });
        // The height is off, and has no margin.
        assert_eq!(asked(Margins { right: 100, ..none }, (1024, 1280)), Margins { right: 100, ..none });
    }

    #[test]
    fn margins_that_make_no_picture_are_refused() {
        let picture = EditPicture::new(&RgbImage::new(4, 4)).unwrap();
        for (margins, culprit) in [
            (Margins::default(), "no margin"),
            (Margins { left: u32::MAX, ..Margins::default() }, "4x4"),
            (Margins { top: PICTURE_SIDE, ..Margins::default() }, "4x4"),
            (Margins { top: 10_000, left: 10_000, ..Margins::default() }, "4x4"),
        ] {
            let error = Edit::outpaint(&picture, margins).unwrap_err().to_string();
            assert!(error.contains(culprit), "{error}");
        }
        assert!(Edit::outpaint(&picture, Margins { top: 1, ..Margins::default() }).is_ok());
    }
}
