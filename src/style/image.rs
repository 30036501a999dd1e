//! A picture whose style a request takes.

use std::io::Cursor;
use std::path::Path;

use ediffi_core::files;
use image::imageops::{self, FilterType};
use image::{ImageFormat, ImageReader, Limits, RgbImage};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base64;
use crate::{Error, Result};

/// The longest shorter side that a style image keeps: CLIP looks at a square of 224 pixels (of 336 in its largest
/// model), and the picture travels in the request, and so in every picture made from it.
pub const STYLE_SIDE: u32 = 448;

/// The longest side that a style image may have, and the most memory that reading one may take.
const READ_LIMITS: (u32, u64) = (1 << 15, 1 << 30);

/// How many times as long as wide a style image may be: CLIP sees only the middle square.
const STRETCH: u32 = 50;

/// A picture whose style to take (eDiff-I, section 4.4).
///
/// A picture with a shorter side above [`STYLE_SIDE`] is scaled down to that. The scaled pixels are what CLIP sees and what a
/// stored request keeps. In JSON they are a PNG file in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct StyleImage {
    pixels: RgbImage,
}

impl StyleImage {
    /// A style image of these pixels.
    ///
    /// # Errors
    /// [`Error::StyleImage`] for a picture without a pixel, one that is too large, or a narrow strip.
    pub fn new(pixels: RgbImage) -> Result<Self> {
        let (width, height) = pixels.dimensions();
        let short = width.min(height);
        let long = width.max(height);
        if short == 0 || long > READ_LIMITS.0 || long / short > STRETCH {
            let reason = format!("{width}x{height} is empty, longer than {}, or too narrow", READ_LIMITS.0);
            return Err(Error::StyleImage(reason));
        }
        if short <= STYLE_SIDE {
            return Ok(Self { pixels });
        }
        let scaled = |side: u32| (u64::from(side) * u64::from(STYLE_SIDE)).div_ceil(u64::from(short)) as u32;
        let pixels = imageops::resize(&pixels, scaled(width), scaled(height), FilterType::CatmullRom);
        Ok(Self { pixels })
    }

    /// Reads a PNG or JPEG file.
    ///
    /// # Errors
    /// [`Error::ReadFile`], or [`Error::StyleImage`] for a file that is no picture.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = files::read_bytes(path)?;
        Self::from_bytes(&bytes).map_err(|error| match error {
            Error::StyleImage(reason) => Error::StyleImage(format!("{}: {reason}", path.display())),
            other => other,
        })
    }

    /// Reads the bytes of a PNG or JPEG file.
    ///
    /// # Errors
    /// [`Error::StyleImage`] for bytes that are no picture.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let unreadable = |reason: String| Error::StyleImage(reason);
        let mut reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|error| unreadable(error.to_string()))?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(READ_LIMITS.0);
        limits.max_image_height = Some(READ_LIMITS.0);
        limits.max_alloc = Some(READ_LIMITS.1);
        reader.limits(limits);
        Self::new(reader.decode().map_err(|error| unreadable(error.to_string()))?.into_rgb8())
    }

    /// The pixels that CLIP sees.
    #[must_use]
    pub fn pixels(&self) -> &RgbImage {
        &self.pixels
    }

    fn to_png(&self) -> std::result::Result<Vec<u8>, image::ImageError> {
        let mut bytes = Cursor::new(Vec::new());
        self.pixels.write_to(&mut bytes, ImageFormat::Png)?;
        Ok(bytes.into_inner())
    }
}

impl std::fmt::Debug for StyleImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StyleImage({}x{})", self.pixels.width(), self.pixels.height())
    }
}

impl Serialize for StyleImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let png = self.to_png().map_err(serde::ser::Error::custom)?;
        base64::serialize(&png, serializer)
    }
}

impl<'de> Deserialize<'de> for StyleImage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::from_bytes(&base64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]))
    }

    #[test]
    fn a_small_picture_is_kept_and_comes_back_from_json() {
        let style = StyleImage::new(picture(40, 30)).unwrap();
        assert_eq!(style.pixels(), &picture(40, 30));
        let json = serde_json::to_string(&style).unwrap();
        assert_eq!(serde_json::from_str::<StyleImage>(&json).unwrap(), style);
    }

    #[test]
    fn a_large_picture_is_scaled_once() {
        let style = StyleImage::new(picture(2 * STYLE_SIDE, 3 * STYLE_SIDE)).unwrap();
        assert_eq!(style.pixels().dimensions(), (STYLE_SIDE, STYLE_SIDE * 3 / 2));
        assert_eq!(StyleImage::new(style.pixels().clone()).unwrap(), style);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for (width, height) in [(0, 5), (1, 60), (READ_LIMITS.0 + 1, 1000)] {
            assert!(matches!(StyleImage::new(RgbImage::new(width, height)), Err(Error::StyleImage { .. })));
        }
        assert!(matches!(StyleImage::from_bytes(b"no picture"), Err(Error::StyleImage { .. })));
        assert!(matches!(StyleImage::open("no/such.png"), Err(Error::ReadFile { .. })));
        assert!(serde_json::from_str::<StyleImage>("\"Zm9v\"").is_err());
        assert!(serde_json::from_str::<StyleImage>("\"?\"").unwrap_err().to_string().contains("base64"));
    }
}
