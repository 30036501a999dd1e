//! Named colours: what captions call them and how they look.

use serde::{Deserialize, Serialize};

/// An sRGB colour, eight bits a channel.
pub type Rgb = [u8; 3];

/// A colour with a name that captions use.
///
/// As a background it is drawn a little paler than as an ink, so that objects stand out on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the variants are the colour words themselves")]
pub enum Colour {
    White,
    Black,
    Gray,
    Red,
    Orange,
    Yellow,
    Green,
    Teal,
    Blue,
    Purple,
    Pink,
    Brown,
}

impl Colour {
    /// Every colour, each at its number.
    pub const ALL: [Self; 12] = [
        Self::White,
        Self::Black,
        Self::Gray,
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Teal,
        Self::Blue,
        Self::Purple,
        Self::Pink,
        Self::Brown,
    ];

    /// The word in captions.
    pub fn word(self) -> &'static str {
        self.row().0
    }

    /// How a background of this colour is drawn.
    pub fn background(self) -> Rgb {
        self.row().1
    }

    /// How an object in this ink is drawn.
    pub fn ink(self) -> Rgb {
        self.row().2
    }

    /// Word, background and ink.
    fn row(self) -> (&'static str, Rgb, Rgb) {
        match self {
            Self::White => ("white", [255, 255, 255], [255, 255, 255]),
            Self::Black => ("black", [24, 24, 28], [16, 16, 18]),
            Self::Gray => ("gray", [176, 180, 186], [96, 100, 108]),
            Self::Red => ("red", [240, 98, 100], [206, 24, 32]),
            Self::Orange => ("orange", [255, 178, 96], [222, 110, 8]),
            Self::Yellow => ("yellow", [255, 226, 106], [250, 204, 20]),
            Self::Green => ("green", [122, 206, 130], [12, 124, 48]),
            Self::Teal => ("teal", [92, 200, 196], [6, 118, 122]),
            Self::Blue => ("blue", [112, 172, 246], [22, 68, 204]),
            Self::Purple => ("purple", [178, 140, 230], [110, 30, 168]),
            Self::Pink => ("pink", [255, 184, 212], [226, 44, 130]),
            Self::Brown => ("brown", [178, 132, 96], [112, 64, 26]),
        }
    }
}

/// Relative luminance of an sRGB colour, in [0, 1] (WCAG 2.2, "relative luminance").
fn luminance(colour: Rgb) -> f64 {
    let linear = |channel: u8| {
        let value = f64::from(channel) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
}

/// Contrast ratio of two sRGB colours, in [1, 21] (WCAG 2.2, "contrast ratio").
pub fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}
