//! A palette: which colour of a picture stands for which phrase.

use ediffi_core::interval::SigmaInterval;
use serde::{Deserialize, Serialize};

use crate::Occurrence;
use crate::region::{default_weight, every_sigma};

/// Default for [`Palette::tolerance`]. It is wide enough for the noise of a JPEG file, and narrow enough to keep the
/// twelve strongest colours apart.
const DEFAULT_TOLERANCE: u32 = 40;

/// One colour and the phrase it stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PaletteEntry {
    /// Red, green and blue.
    pub colour: [u8; 3],
    /// Words of the prompt.
    pub phrase: String,
    /// The weight of the region (default: 1).
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Which occurrences of the phrase are painted (default: all).
    #[serde(default)]
    pub occurrence: Occurrence,
    /// The noise levels at which the region acts (default: all).
    #[serde(default = "every_sigma")]
    pub sigma: SigmaInterval,
}

impl PaletteEntry {
    /// The colour `[red, green, blue]` stands for `phrase`.
    #[must_use]
    pub fn new(colour: [u8; 3], phrase: impl Into<String>) -> Self {
        let (weight, occurrence, sigma) = (default_weight(), Occurrence::All, every_sigma());
        Self { colour, phrase: phrase.into(), weight, occurrence, sigma }
    }

    /// Sets the weight of the region.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Paints only the `nth` occurrence of the phrase, counted from 1.
    #[must_use]
    pub fn occurrence(mut self, nth: usize) -> Self {
        self.occurrence = Occurrence::Nth(nth);
        self
    }

    /// Sets the noise levels at which the region acts.
    #[must_use]
    pub fn sigma(mut self, sigma: SigmaInterval) -> Self {
        self.sigma = sigma;
        self
    }
}

/// The colours of a picture and the phrases they stand for. [`Canvas::from_colours`](crate::Canvas::from_colours) makes a canvas of
/// the picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Palette {
    pub(crate) entries: Vec<PaletteEntry>,
    #[serde(default = "white")]
    pub(crate) background: Vec<[u8; 3]>,
    #[serde(default = "default_tolerance")]
    pub(crate) tolerance: u32,
}

fn white() -> Vec<[u8; 3]> {
    vec![[u8::MAX; 3]]
}

fn default_tolerance() -> u32 {
    DEFAULT_TOLERANCE
}

impl Palette {
    /// A palette of these entries, with a white background and a tolerance of 40.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = PaletteEntry>) -> Self {
        Self { entries: entries.into_iter().collect(), background: white(), tolerance: DEFAULT_TOLERANCE }
    }

    /// Sets the colours of the background: pixels that stay unpainted (default: white). The list may be empty.
    #[must_use]
    pub fn background(mut self, colours: impl IntoIterator<Item = [u8; 3]>) -> Self {
        self.background = colours.into_iter().collect();
        self
    }

    /// Sets how far the colour of a pixel may lie from that of the palette (default: 40). It is the Euclidean distance in
    /// 8-bit RGB; 0 takes exact colours only.
    #[must_use]
    pub fn tolerance(mut self, tolerance: u32) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// The entries, in the order in which they were given.
    #[must_use]
    pub fn entries(&self) -> &[PaletteEntry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_palette_is_read_from_json() {
        let text = r#"{ "entries": [{ "colour": [255, 0, 0], "phrase": "apple, green" }] }"#;
        let palette: Palette = serde_json::from_str(text).unwrap();
        assert_eq!(palette, Palette::new([PaletteEntry::new([255, 0, 0], "apple, green")]));
    }
}
