//! A region: one painted phrase.

use std::ops::Range;

use ediffi_core::interval::SigmaInterval;
use image::GrayImage;
use serde::{Deserialize, Serialize};

use crate::{Mask, Result, Shape};

/// Which places of its phrase in the prompt a region paints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occurrence {
    /// Every place where the phrase stands.
    #[default]
    All,
    /// One place, counted from 1: `Nth(2)` is the second squirrel of "a squirrel beside a squirrel".
    Nth(usize),
    /// These characters of the prompt. The phrase then only names the region and need not stand in the prompt.
    Span {
        /// The first character, counted from 0.
        start: usize,
        /// One past the last character.
        end: usize,
    },
}

/// A phrase of the prompt and the place where it shall appear. [`Canvas::new`](crate::Canvas::new) checks it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct Region {
    /// Words of the prompt, in upper or lower case.
    pub phrase: String,
    /// Where the phrase shall appear.
    pub mask: Mask,
    /// Multiplies the strength of the canvas for this phrase; 0 to [`MAX_WEIGHT`](crate::MAX_WEIGHT) (default: 1).
    pub weight: f64,
    /// Which occurrences of the phrase are painted (default: all).
    pub occurrence: Occurrence,
    /// The noise levels at which the region acts (default: all). Those of the canvas's strength limit them further.
    pub sigma: SigmaInterval,
}

impl Region {
    fn new(phrase: String, mask: Mask) -> Self {
        Self { phrase, mask, weight: default_weight(), occurrence: Occurrence::All, sigma: every_sigma() }
    }

    /// A region from a grey picture. White is inside, black is outside, grey is painted in part.
    ///
    /// # Errors
    /// [`Error::MaskSides`](crate::Error::MaskSides) if a side is 0 or above [`MAX_SIDE`](crate::MAX_SIDE).
    pub fn from_image(phrase: impl Into<String>, mask: &GrayImage) -> Result<Self> {
        let phrase = phrase.into();
        let mask = Mask::from_image(&phrase, mask)?;
        Ok(Self::new(phrase, mask))
    }

    /// A rectangle of whole pixels on a canvas of `size` (width, height), cut off at the edge of the canvas.
    ///
    /// # Errors
    /// [`Error::MaskSides`](crate::Error::MaskSides).
    pub fn rectangle(phrase: impl Into<String>, size: (u32, u32), x: Range<u32>, y: Range<u32>) -> Result<Self> {
        let phrase = phrase.into();
        let inside = |px, py| if x.contains(&px) && y.contains(&py) { u8::MAX } else { 0 };
        let mask = Mask::from_fn(&phrase, size.0, size.1, inside)?;
        Ok(Self::new(phrase, mask))
    }

    /// A shape on a canvas of `size` (width, height).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) and [`Error::MaskSides`](crate::Error::MaskSides).
    pub fn shape(phrase: impl Into<String>, size: (u32, u32), shape: &Shape) -> Result<Self> {
        let phrase = phrase.into();
        let mask = shape.mask(&phrase, size)?;
        Ok(Self::new(phrase, mask))
    }

    /// Sets the weight.
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Paints only the `nth` occurrence of the phrase, counted from 1.
    pub fn occurrence(mut self, nth: usize) -> Self {
        self.occurrence = Occurrence::Nth(nth);
        self
    }

    /// Paints these characters of the prompt, counted from 0. The phrase is not looked for.
    pub fn span(mut self, characters: Range<usize>) -> Self {
        self.occurrence = Occurrence::Span { start: characters.start, end: characters.end };
        self
    }

    /// Sets the noise levels at which the region acts.
    pub fn sigma(mut self, sigma: SigmaInterval) -> Self {
        self.sigma = sigma;
        self
    }
}

/// The weight of a region that gives none.
pub(crate) fn default_weight() -> f64 {
    1.0
}

/// The noise levels of a region that gives none.
pub(crate) fn every_sigma() -> SigmaInterval {
    SigmaInterval::ALL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rectangle_is_cut_at_the_edge() {
        let region = Region::rectangle("cat", (3, 2), 1..9, 0..1).unwrap();
        assert_eq!(region.mask.levels(), [0, 255, 255, 0, 0, 0]);
    }

    #[test]
    fn a_picture_is_its_levels() {
        let region = Region::from_image("cat", &GrayImage::from_raw(3, 1, vec![0, 128, 255]).unwrap()).unwrap();
        assert_eq!((region.mask.width(), region.mask.height(), region.mask.levels()), (3, 1, vec![0, 128, 255]));
        assert_eq!((region.weight, region.occurrence), (1.0, Occurrence::All));
    }
}
