//! A mask: a level of 0 to 255 for each pixel, and its stored form as text.

use std::fmt::Write as _;
use std::sync::Arc;

use image::GrayImage;

use crate::{Error, MAX_SIDE, Result};

/// How much of each pixel is painted: 0 is nothing, 255 is all of it. The functions of [`Region`](crate::Region) make it.
///
/// A mask of few colours takes as much memory as its stored form, whatever its size. A copy shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    levels: Arc<Levels>,
}

/// The levels, row after row from the upper left corner, in the shorter of two forms. Equal levels have equal forms.
#[derive(PartialEq, Eq)]
enum Levels {
    /// Pixels of one level each that follow each other: no two neighbours have the same level, and none has no pixel.
    Runs(Vec<(u8, u32)>),
    /// A level for each pixel.
    Pixels(Vec<u8>),
}

impl Levels {
    /// Runs whose neighbours may have one level, of `pixels` in all. They are gone through twice, so that nothing is larger than
    /// the form that is kept.
    fn of(pixels: usize, runs: impl Iterator<Item = (u8, u32)> + Clone) -> Self {
        let (mut count, mut last) = (0_usize, None);
        for (level, _) in runs.clone().filter(|(_, pixels)| *pixels > 0) {
            count += usize::from(last.replace(level) != Some(level));
        }
        if count >= pixels / size_of::<(u8, u32)>() {
            let mut levels = Vec::with_capacity(pixels);
            runs.for_each(|(level, count)| levels.resize(levels.len() + count as usize, level));
            return Self::Pixels(levels);
        }
        let mut merged: Vec<(u8, u32)> = Vec::with_capacity(count);
        for (level, count) in runs.filter(|(_, pixels)| *pixels > 0) {
            match merged.last_mut() {
                Some((last, total)) if *last == level => *total += count,
                _ => merged.push((level, count)),
            }
        }
        Self::Runs(merged)
    }
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

    /// The `width * height` levels, row after row from the upper left corner, unpacked.
    #[must_use]
    pub fn levels(&self) -> Vec<u8> {
        self.runs().flat_map(|(level, pixels)| std::iter::repeat_n(level, pixels)).collect()
    }

    /// The levels as runs: a level, and how many pixels that follow each other have it, row after row from the upper left corner.
    pub fn runs(&self) -> impl Iterator<Item = (u8, usize)> {
        let (runs, pixels) = match &*self.levels {
            Levels::Runs(runs) => (runs.as_slice(), &[][..]),
            Levels::Pixels(pixels) => (&[][..], pixels.as_slice()),
        };
        let of_pixels = pixels.chunk_by(|a, b| a == b).filter_map(|run| Some((*run.first()?, run.len())));
        runs.iter().map(|&(level, count)| (level, count as usize)).chain(of_pixels)
    }

    /// Whether every level is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs().all(|(level, _)| level == 0)
    }

    fn new(width: u32, height: u32, runs: impl Iterator<Item = (u8, u32)> + Clone) -> Self {
        Self { width, height, levels: Arc::new(Levels::of(width as usize * height as usize, runs)) }
    }

    fn from_levels(width: u32, height: u32, levels: &[u8]) -> Self {
        // A mask has at most MAX_SIDE² pixels, which fits.
        let runs = levels.chunk_by(|a, b| a == b).filter_map(|run| Some((*run.first()?, run.len() as u32)));
        Self::new(width, height, runs)
    }

    pub(crate) fn from_image(phrase: &str, image: &GrayImage) -> Result<Self> {
        let (width, height) = image.dimensions();
        check_sides(phrase, width, height)?;
        Ok(Self::from_levels(width, height, image.as_raw()))
    }

    /// The mask whose level at (x, y) is `level(x, y)`.
    pub(crate) fn from_fn(phrase: &str, width: u32, height: u32, level: impl Fn(u32, u32) -> u8) -> Result<Self> {
        check_sides(phrase, width, height)?;
        let levels: Vec<u8> =
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| level(x, y)).collect();
        Ok(Self::from_levels(width, height, &levels))
    }

    /// The levels as runs with spaces between: `level*count`, or `level` for a run of one pixel.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for (level, count) in self.runs() {
            let gap = if text.is_empty() { "" } else { " " };
            // Writing into a String cannot fail.
            let _ = match count {
                1 => write!(text, "{gap}{level}"),
                count => write!(text, "{gap}{level}*{count}"),
            };
        }
        text
    }

    /// Reads what [`to_text`](Self::to_text) wrote. The text may come from a file of unknown origin, so a short one takes little
    /// memory, however many pixels it stands for.
    pub(crate) fn from_text(phrase: &str, width: u32, height: u32, text: &str) -> Result<Self> {
        check_sides(phrase, width, height)?;
        let expected = u64::from(width) * u64::from(height);
        let length = |pixels| Error::MaskLength { phrase: phrase.to_owned(), pixels, expected };
        let mut pixels = 0_u64;
        for run in text.split_ascii_whitespace() {
            let Some((_, count)) = parse(run) else {
                return Err(Error::MaskRun { phrase: phrase.to_owned(), run: run.chars().take(32).collect() });
            };
            pixels += u64::from(count);
            if pixels > expected {
                return Err(length(pixels));
            }
        }
        if pixels != expected {
            return Err(length(pixels));
        }
        Ok(Self::new(width, height, text.split_ascii_whitespace().filter_map(parse)))
    }
}

/// One run of a stored mask.
fn parse(run: &str) -> Option<(u8, u32)> {
    let (level, count) = run.split_once('*').unwrap_or((run, "1"));
    Some((level.parse().ok()?, count.parse().ok()?))
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

    /// 64 masks of 2048² came out of a request of 2.8 kilobytes, and took 256 megabytes, once for each picture.
    #[test]
    fn a_mask_takes_the_memory_of_its_text_and_is_shared() {
        let all = MAX_SIDE * MAX_SIDE;
        let large = Mask::from_text("cat", MAX_SIDE, MAX_SIDE, &format!("0*7 0*3 255*{} 0*0", all - 10)).unwrap();
        let Levels::Runs(runs) = &*large.levels else { panic!("runs") };
        assert_eq!(runs[..], [(0, 10), (255, all - 10)]);
        let copy = large.clone();
        assert!(Arc::ptr_eq(&copy.levels, &large.levels));
        // A level for each pixel is shorter where every pixel has its own.
        let grain = Mask::from_fn("cat", 64, 64, |x, y| (x * 7 + y) as u8).unwrap();
        assert!(matches!(&*grain.levels, Levels::Pixels(levels) if levels.len() == 4096));
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
