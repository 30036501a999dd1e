//! Contact sheets: many pictures in one, to be looked at.

use std::io::Cursor;
use std::path::Path;

use ediffi_core::files::write_atomic;
use image::{ImageFormat, RgbImage, imageops};

use crate::error::{IconsError, Result};

/// Lays square RGB pictures out in a grid with a narrow gray gap and writes a PNG. One that has not `size * size * 3` bytes is left out.
pub fn write(path: &Path, pictures: &[Vec<u8>], size: u32, columns: u32) -> Result<()> {
    const GAP: u32 = 2;
    let columns = columns.max(1);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let mut sheet =
        RgbImage::from_pixel(columns * (size + GAP) + GAP, rows * (size + GAP) + GAP, image::Rgb([128, 128, 128]));
    for (place, picture) in (0..).zip(pictures) {
        if let Some(picture) = RgbImage::from_raw(size, size, picture.clone()) {
            let (x, y) = (place % columns * (size + GAP) + GAP, place / columns * (size + GAP) + GAP);
            imageops::replace(&mut sheet, &picture, x.into(), y.into());
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|source| IconsError::Encode { path: path.to_owned(), source })?;
    Ok(write_atomic(path, png.get_ref())?)
}
