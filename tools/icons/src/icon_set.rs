//! The icon sets: each has a drawing style of its own, and is one npm package.

use serde::{Deserialize, Serialize};

/// An icon set, which is a drawing style.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IconSet {
    /// Noto Emoji: glossy, with gradients.
    Noto,
    /// Fluent Emoji, flat: few plain colours.
    Flat,
    /// Fluent Emoji, high contrast: one ink, any colour.
    Ink,
    /// The first Noto Emoji: an early flat look.
    Vintage,
}

impl IconSet {
    /// Every icon set, each at its number.
    pub const ALL: [Self; 4] = [Self::Noto, Self::Flat, Self::Ink, Self::Vintage];

    /// The word that names the style in captions ("noto style", "ink style").
    pub fn word(self) -> &'static str {
        self.row().0
    }

    /// The npm package that holds the drawings.
    pub fn package(self) -> &'static str {
        self.row().1
    }

    /// The pinned version of [`IconSet::package`]; the same as in `package.json` beside this crate.
    pub fn version(self) -> &'static str {
        self.row().2
    }

    /// The licence of the drawings, as an SPDX identifier.
    pub fn licence(self) -> &'static str {
        self.row().3
    }

    /// Word, package, version and licence.
    fn row(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Noto => ("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0"),
            Self::Flat => ("flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
            Self::Ink => ("ink", "@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT"),
            Self::Vintage => ("vintage", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0"),
        }
    }

    /// Whether the drawings have one colour, which the scene chooses.
    pub fn is_mono(self) -> bool {
        self == Self::Ink
    }
}
