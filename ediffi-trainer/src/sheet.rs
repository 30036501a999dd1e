//! Sheets: many pictures in one, to be looked at.

use std::io::Cursor;

use image::{ImageFormat, ImageResult, RgbImage, imageops};

/// Pixels between pictures.
const GAP: u32 = 2;

/// Width and height of a sheet of so many pictures a line.
pub(crate) fn size(side: u32, columns: u32, lines: u32) -> (u32, u32) {
    let of = |count: u32| count.saturating_mul(side.saturating_add(GAP)).saturating_add(GAP);
    (of(columns), of(lines))
}

/// Lays square RGB pictures out in a grid with a narrow gray gap, as a PNG. One that has not `size * size * 3` bytes is left out.
///
/// # Errors
/// A sheet that is too large for a PNG.
pub fn png(pictures: &[Vec<u8>], size: u32, columns: u32) -> ImageResult<Vec<u8>> {
    let columns = columns.max(1);
    let rows = u32::try_from(pictures.len()).unwrap_or(u32::MAX).div_ceil(columns);
    let (width, height) = self::size(size, columns, rows);
    let mut sheet = RgbImage::from_pixel(width, height, image::Rgb([128, 128, 128]));
    for (place, picture) in (0..).zip(pictures) {
        if let Some(picture) = RgbImage::from_raw(size, size, picture.clone()) {
            let (x, y) = (place % columns * (size + GAP) + GAP, place / columns * (size + GAP) + GAP);
            imageops::replace(&mut sheet, &picture, x.into(), y.into());
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet.write_to(&mut png, ImageFormat::Png)?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_in_lines_and_the_gap_is_gray() {
        let of = |value: u8| vec![value; 4 * 4 * 3];
        let sheet = image::load_from_memory(&png(&[of(10), of(20), of(30)], 4, 2).unwrap()).unwrap().into_rgb8();
        assert_eq!(sheet.dimensions(), size(4, 2, 2));
        let at = |x, y| sheet.get_pixel(x, y).0[0];
        assert_eq!([at(2, 2), at(8, 2), at(2, 8), at(8, 8), at(0, 0)], [10, 20, 30, 128, 128]);
    }
}
