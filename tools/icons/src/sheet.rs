//! Contact sheets: many pictures in one, to be looked at.

use std::path::Path;

use ediffi_core::files::write_atomic;

use crate::error::{IconsError, Result};

/// Lays square RGB pictures out in a grid with a narrow gray gap and writes a PNG. One that has not `size * size * 3` bytes is left out.
pub fn write(path: &Path, pictures: &[Vec<u8>], size: u32, columns: u32) -> Result<()> {
    let png = ediffi_trainer::sheet::png(pictures, size, columns);
    let png = png.map_err(|source| IconsError::Encode { path: path.to_owned(), source })?;
    Ok(write_atomic(path, &png)?)
}
