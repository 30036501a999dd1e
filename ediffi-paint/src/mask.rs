//! A mask: a level of 0 to 255 for each pixel, and its stored form as text.

use std::fmt::Write as _;

use image::GrayImage;

use crate::{Error, MAX_SIDE, Result};

/// How much of each pixel is painted: 0 is nothing, 255 is all of it. The functions of [`Region`](crate::Region) make it.
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    levels: Vec<u8>,
}

impl std::fmt::Debug for Mask {
    /// Prints the size only: there may be millions of levels.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").field("width", &self.width).field("height", &self.height).finish_non_exhaustive()
    }
}

impl Mask {
    /// The width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The `width * height` levels, row after row from the upper left corner.
    #[must_use]
    pub fn levels(&self) -> &[u8] {
        &self.levels
    }

    /// Whether every level is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|&level| level == 0)
    }

    pub(crate) fn from_image(phrase: &str, image: &GrayImage) -> Result<Self> {
        let (width, height) = image.dimensions();
        check_sides(phrase, width, height)?;
        Ok(Self { width, height, levels: image.as_raw().clone() })
    }

    /// The mask whose level at (x, y) is `level(x, y)`.
    pub(crate) fn from_fn(phrase: &str, width: u32, height: u32, level: impl Fn(u32, u32) -> u8) -> Result<Self> {
        check_sides(phrase, width, height)?;
        let levels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| level(x, y)).collect();
        Ok(Self { width, height, levels })
    }

    /// The levels as runs with spaces between: `level*count`, or `level` for a run of one pixel.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for run in self.levels.chunk_by(|a, b| a == b) {
            let level = run.first().copied().unwrap_or_default();
            let gap = if text.is_empty() { "" } else { " " };
            // Writing into a String cannot fail.
            let _ = match run.len() {
                1 => write!(text, "{gap}{level}"),
                count => write!(text, "{gap}{level}*{count}"),
            };
        }
        text
    }

    /// Reads what [`to_text`](Self::to_text) wrote. The text may come from a file of unknown origin, so never more than
    /// `width * height` levels are held in memory.
    pub(crate) fn from_text(phrase: &str, width: u32, height: u32, text: &str) -> Result<Self> {
        check_sides(phrase, width, height)?;
        let expected = u64::from(width) * u64::from(height);
        let length = |pixels| Error::MaskLength { phrase: phrase.to_owned(), pixels, expected };
        let mut levels: Vec<u8> = Vec::new();
        for run in text.split_ascii_whitespace() {
            let (level, count) = run.split_once('*').unwrap_or((run, "1"));
            let (Ok(level), Ok(count)) = (level.parse::<u8>(), count.parse::<u32>()) else {
                return Err(Error::MaskRun { phrase: phrase.to_owned(), run: run.chars().take(32).collect() });
            };
            let pixels = levels.len() as u64 + u64::from(count);
            if pixels > expected {
                return Err(length(pixels));
            }
            levels.resize(pixels as usize, level);
        }
        if levels.len() as u64 != expected {
            return Err(length(levels.len() as u64));
        }
        Ok(Self { width, height, levels })
    }
}

fn check_sides(phrase: &str, width: u32, height: u32) -> Result<()> {
    let sides = 1..=MAX_SIDE;
    if sides.contains(&width) && sides.contains(&height) {
        return Ok(());
    }
    Err(Error::MaskSides { phrase: phrase.to_owned(), width, height })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_are_short_text() {
        let mask = Mask::from_fn("cat", 4, 2, |x, y| if (x, y) == (3, 1) { 7 } else { 255 * u8::from(x > 1) }).unwrap();
        assert_eq!(mask.to_text(), "0*2 255*2 0*2 255 7");
    }

    #[test]
    fn sides_are_limited() {
        for (width, height) in [(0, 4), (4, 0), (MAX_SIDE + 1, 1), (u32::MAX, u32::MAX)] {
            let error = Mask::from_text("cat", width, height, "0").unwrap_err();
            assert!(matches!(error, Error::MaskSides { .. }), "{error}");
        }
        assert!(Mask::from_fn("cat", MAX_SIDE, 1, |_, _| 0).is_ok());
    }

    #[test]
    fn bad_runs_are_errors() {
        for bad in ["256", "1*", "*3", "-1", "x", "1*2*3", "1*-1"] {
            let error = Mask::from_text("cat", 2, 2, bad).unwrap_err();
            assert!(matches!(error, Error::MaskRun { ref run, .. } if run == bad), "{error}");
        }
    }

    #[test]
    fn a_wrong_number_of_pixels_is_an_error() {
        for (bad, count) in [("", 0), ("0*3", 3), ("0*3 1*2", 5), ("0*4294967295 0*4294967295", 4_294_967_295)] {
            let error = Mask::from_text("cat", 2, 2, bad).unwrap_err();
            assert!(matches!(error, Error::MaskLength { pixels, expected: 4, .. } if pixels == count), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_gives_the_same_levels_back(
            width in 1_u32..9,
            levels in prop::collection::vec(prop_oneof![Just(0_u8), Just(255), any::<u8>()], 1..64),
        ) {
            let height = (levels.len() as u32).div_ceil(width);
            let level = |x, y| levels.get((y * width + x) as usize).copied().unwrap_or(0);
            let mask = Mask::from_fn("cat", width, height, level).unwrap();
            prop_assert_eq!(Mask::from_text("cat", width, height, &mask.to_text()).unwrap(), mask);
        }

        #[test]
        fn no_text_panics(text in "[0-9* ]{0,40}", width in 0_u32..5, height in 0_u32..5) {
            let _ = Mask::from_text("cat", width, height, &text);
        }
    }
}
