//! A white sheet on which examples put pictures and words.

use std::error::Error;
use std::path::Path;

use ediffi_core::files::write_atomic;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use plotters::backend::BitMapBackend;
use plotters::prelude::IntoDrawingArea;
use plotters::style::{FontStyle, IntoFont, RGBColor, TextStyle, register_font};

use crate::palette::indexed;

const FONT: &str = "sans-serif";

/// A picture in the making.
pub(crate) struct Sheet {
    picture: RgbImage,
}

impl Sheet {
    pub(crate) fn new(width: u32, height: u32) -> Result<Self, Box<dyn Error>> {
        register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).map_err(|_| "the font cannot be read")?;
        Ok(Self { picture: RgbImage::from_pixel(width, height, Rgb([u8::MAX; 3])) })
    }

    /// Puts a picture into the square of `side` whose upper left corner is at (x, y), as large as it fits. Pixels of a small
    /// one stay sharp.
    pub(crate) fn place(&mut self, picture: &RgbImage, x: u32, y: u32, side: u32) {
        let (width, height) = picture.dimensions();
        let scaled = |length: u32| (length * side / width.max(height).max(1)).max(1);
        let filter = if side > width.max(height) { FilterType::Nearest } else { FilterType::Triangle };
        let fitted = imageops::resize(picture, scaled(width), scaled(height), filter);
        imageops::replace(&mut self.picture, &fitted, x.into(), y.into());
    }

    /// Writes words from (x, y), the upper left corner, breaking lines at `width`; says where the next line would begin.
    pub(crate) fn words(
        &mut self,
        text: &str,
        (x, y): (u32, u32),
        width: u32,
        size: u32,
        [red, green, blue]: [u8; 3],
    ) -> Result<u32, Box<dyn Error>> {
        let font = || (FONT, f64::from(size)).into_font();
        let fits = |line: &str| font().box_size(line).is_ok_and(|(length, _)| length <= width);
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if fits(&format!("{line} {word}")) => *line = format!("{line} {word}"),
                _ => lines.push(word.to_owned()),
            }
        }
        let mut top = y;
        let dimensions = self.picture.dimensions();
        let area = BitMapBackend::with_buffer(&mut self.picture, dimensions).into_drawing_area();
        let colour = RGBColor(red, green, blue);
        for line in &lines {
            let style = TextStyle::from(font()).color(&colour);
            let place = (i32::try_from(x)?, i32::try_from(top)?);
            area.draw_text(line, &style, place).map_err(|error| error.to_string())?;
            top += size * 5 / 4;
        }
        area.present().map_err(|error| error.to_string())?;
        Ok(top)
    }

    /// Writes the sheet as PNG.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        Ok(write_atomic(path, &indexed(&self.picture)?)?)
    }
}
