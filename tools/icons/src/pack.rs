//! The sprite pack: the SVG text of every (concept, style), in one JSON file.

use std::io::ErrorKind;
use std::path::Path;

use ediffi_core::Error;
use ediffi_core::files::{read_json, write_atomic};
use serde::{Deserialize, Serialize};

use crate::error::{IconsError, Result};
use crate::icon_set::IconSet;

/// The format this program reads and writes.
pub const FORMAT: &str = "ediffi-icons/1";

/// Where `cargo xtask icons` puts the pack, from the repository's root.
pub const DEFAULT_PATH: &str = ".icons/pack.json";

/// Every drawing that scenes are made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// [`FORMAT`].
    pub format: String,
    /// Where the drawings come from.
    pub sources: Vec<Source>,
    /// The drawings.
    pub sprites: Vec<PackedSprite>,
}

/// A package that drawings were taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The style that it draws.
    pub style: IconSet,
    /// The npm package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The licence of its drawings (SPDX).
    pub licence: String,
}

/// One drawing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedSprite {
    /// A concept of the table in [`crate::concepts`].
    pub concept: String,
    /// The style.
    pub style: IconSet,
    /// Left, top, width and height of what the drawing covers (alpha > 0), in SVG units.
    pub bounds: [f32; 4],
    /// The whole SVG document.
    pub svg: String,
}

impl Pack {
    /// A pack of the given drawings.
    pub fn new(sources: Vec<Source>, sprites: Vec<PackedSprite>) -> Self {
        Self { format: FORMAT.to_owned(), sources, sprites }
    }

    /// Reads a pack.
    ///
    /// # Errors
    /// [`IconsError::PackMissing`] when there is no file, and errors for an unreadable, malformed or outdated one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // The format is looked at first: a pack of another format need not have the same fields.
        let format: FormatOnly = match read_json(path) {
            Err(Error::ReadFile { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Err(IconsError::PackMissing { path: path.to_owned() });
            }
            read => read?,
        };
        if format.format != FORMAT {
            return Err(IconsError::PackFormat { found: format.format, expected: FORMAT });
        }
        Ok(read_json(path)?)
    }

    /// Writes the pack.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let json = serde_json::to_vec(self).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        Ok(write_atomic(path, &json)?)
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    format: String,
}
