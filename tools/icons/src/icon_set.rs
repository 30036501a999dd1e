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
    /// Every icon set.
    pub const ALL: [Self; 4] = [Self::Noto, Self::Flat, Self::Ink, Self::Vintage];

    /// The word that names the style in captions ("noto style", "ink style").
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Noto => "noto",
            Self::Flat => "flat",
            Self::Ink => "ink",
            Self::Vintage => "vintage",
        }
    }

    /// The npm package that holds the drawings.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::Noto => "@iconify-json/noto",
            Self::Flat => "@iconify-json/fluent-emoji-flat",
            Self::Ink => "@iconify-json/fluent-emoji-high-contrast",
            Self::Vintage => "@iconify-json/noto-v1",
        }
    }

    /// The pinned version of [`IconSet::package`]; the same as in `package.json` beside this crate.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::Noto => "1.2.9",
            Self::Flat | Self::Ink => "1.2.6",
            Self::Vintage => "1.2.5",
        }
    }

    /// The licence of the drawings, as an SPDX identifier.
    #[must_use]
    pub fn licence(self) -> &'static str {
        match self {
            Self::Noto | Self::Vintage => "Apache-2.0",
            Self::Flat | Self::Ink => "MIT",
        }
    }

    /// Whether the drawings have one colour, which the scene chooses.
    #[must_use]
    pub fn is_mono(self) -> bool {
        self == Self::Ink
    }
}
