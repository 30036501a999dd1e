//! Finished pictures in the forms that clients ask for.

use std::io::Cursor;

use axum::body::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, RgbImage};

use crate::refusal::Refusal;

/// The pixels of a PNG file that this server wrote.
pub(crate) fn pixels(png: &[u8]) -> Result<RgbImage, Refusal> {
    let read = image::load_from_memory_with_format(png, ImageFormat::Png);
    read.map(image::DynamicImage::into_rgb8).map_err(|error| Refusal::Internal(format!("a finished picture: {error}")))
}

/// The PNG file without the request.
pub(crate) fn plain_png(png: &[u8]) -> Result<Bytes, Refusal> {
    written(&pixels(png)?, ImageFormat::Png)
}

/// A preview, a JPEG file of this server, as a PNG file.
pub(crate) fn png_of_jpeg(file: &[u8]) -> Result<Bytes, Refusal> {
    let read = image::load_from_memory_with_format(file, ImageFormat::Jpeg);
    let pixels = read.map_err(|error| Refusal::Internal(format!("a preview: {error}")))?.into_rgb8();
    written(&pixels, ImageFormat::Png)
}

/// A WebP file without loss.
pub(crate) fn webp(png: &[u8]) -> Result<Bytes, Refusal> {
    written(&pixels(png)?, ImageFormat::WebP)
}

/// A JPEG file of this quality, from 1 to 100.
pub(crate) fn jpeg(png: &[u8], quality: u8) -> Result<Bytes, Refusal> {
    let (pixels, mut file) = (pixels(png)?, Vec::new());
    JpegEncoder::new_with_quality(&mut file, quality.clamp(1, 100)).encode_image(&pixels).map_err(unwritten)?;
    Ok(file.into())
}

fn written(pixels: &RgbImage, format: ImageFormat) -> Result<Bytes, Refusal> {
    let mut file = Cursor::new(Vec::new());
    pixels.write_to(&mut file, format).map_err(unwritten)?;
    Ok(file.into_inner().into())
}

fn unwritten(error: image::ImageError) -> Refusal {
    Refusal::Internal(format!("the picture cannot be written: {error}"))
}
