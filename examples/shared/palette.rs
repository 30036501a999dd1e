//! Sheets and plots as PNG files of 256 colours: a third of the bytes, and no difference that an eye sees on flat pictures.

use std::error::Error;

use color_quant::NeuQuant;
use image::{RgbImage, RgbaImage};

/// A PNG file of the colours that stand best for all of a picture's.
pub(crate) fn indexed(picture: &RgbImage) -> Result<Vec<u8>, Box<dyn Error>> {
    let opaque: RgbaImage = image::DynamicImage::from(picture.clone()).into_rgba8();
    // Every tenth pixel of a large sheet is enough to choose from; the thin lines of a plot are few of its pixels.
    let every = if picture.width() * picture.height() > 1 << 20 { 10 } else { 1 };
    let colours = NeuQuant::new(every, 256, opaque.as_raw());
    let indices: Vec<u8> = opaque.pixels().map(|pixel| colours.index_of(&pixel.0) as u8).collect();
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(colours.color_map_rgb());
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header()?.write_image_data(&indices)?;
    Ok(png)
}
