//! A picture whose style a request takes.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use ediffi_core::files;
use ediffi_encoders::{PICTURE_BYTES, PICTURE_SIDE, Picture};
use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result, base64};

/// The longest shorter side that a style image keeps: CLIP looks at a square of 224 pixels (of 336 in its largest
/// model), and the picture travels in the request, and so in every picture made from it.
pub const STYLE_SIDE: u32 = 448;

/// How many times as long as wide a style image may be: CLIP sees only the middle square.
const STRETCH: u32 = 50;

/// A picture whose style to take (eDiff-I, section 4.4), as the bytes of a PNG or JPEG file.
///
/// A picture with a shorter side above [`STYLE_SIDE`] is scaled down to that before CLIP sees it. [`new`](Self::new) and
/// [`open`](Self::open) do so at once. One that comes in the JSON of a request is kept as it came: only its header is read, so that
/// the memory of a request follows its length. It is decoded, and scaled, when a pipeline has checked its
/// [`Limits`](crate::Limits). A copy shares the bytes. Two are equal if their files are.
#[derive(Clone, PartialEq, Eq)]
pub struct StyleImage {
    file: Arc<[u8]>,
    width: u32,
    height: u32,
}

impl StyleImage {
    /// A style image of these pixels.
    ///
    /// # Errors
    /// [`Error::StyleImage`] for a picture without a pixel, one that is too large, or a narrow strip.
    pub fn new(pixels: RgbImage) -> Result<Self> {
        let (width, height) = pixels.dimensions();
        check(width, height)?;
        let pixels = scaled(pixels);
        let (width, height) = pixels.dimensions();
        let mut bytes = Cursor::new(Vec::new());
        pixels.write_to(&mut bytes, ImageFormat::Png).map_err(|error| Error::StyleImage(error.to_string()))?;
        Ok(Self { file: bytes.into_inner().into(), width, height })
    }

    /// Reads a PNG or JPEG file: see [`Picture`].
    ///
    /// # Errors
    /// [`Error::ReadFile`], or [`Error::StyleImage`] for a file that is no picture or too large.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let length = std::fs::metadata(path).map_or(0, |file| file.len());
        if length > PICTURE_BYTES {
            let reason = format!("{}: the file has {length} bytes, the limit is {PICTURE_BYTES}", path.display());
            return Err(Error::StyleImage(reason));
        }
        let bytes = files::read_bytes(path)?;
        Self::from_bytes(&bytes).map_err(|error| match error {
            Error::StyleImage(reason) => Error::StyleImage(format!("{}: {reason}", path.display())),
            other => other,
        })
    }

    /// Reads the bytes of a PNG or JPEG file.
    ///
    /// # Errors
    /// [`Error::StyleImage`] for bytes that are no picture, or one that is too large.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (width, height) = size_of(bytes)?;
        check(width, height)?;
        Self::new(decode(bytes)?)
    }

    /// Keeps the bytes of a file of which only the header is read.
    fn from_header(file: Vec<u8>) -> Result<Self> {
        let (width, height) = size_of(&file)?;
        check(width, height)?;
        Ok(Self { file: file.into(), width, height })
    }

    /// The width of the picture in its file.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The height of the picture in its file.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Bytes of its file.
    pub(crate) fn length(&self) -> usize {
        self.file.len()
    }

    /// The pixels that CLIP sees: decoded, and scaled down if the picture is large.
    ///
    /// # Errors
    /// [`Error::StyleImage`] for damaged pixels.
    pub fn pixels(&self) -> Result<RgbImage> {
        Ok(scaled(decode(&self.file)?))
    }

    /// What a stored request keeps: the picture scaled down. `None` if it is small enough as it is.
    ///
    /// # Errors
    /// As [`pixels`](Self::pixels).
    pub(crate) fn settled(&self) -> Result<Option<Self>> {
        let pixels = decode(&self.file)?;
        if pixels.width().min(pixels.height()) <= STYLE_SIDE { Ok(None) } else { Self::new(pixels).map(Some) }
    }
}

fn size_of(bytes: &[u8]) -> Result<(u32, u32)> {
    Picture::size_of(bytes).map_err(|error| Error::StyleImage(error.to_string()))
}

fn decode(bytes: &[u8]) -> Result<RgbImage> {
    Ok(Picture::from_bytes(bytes).map_err(|error| Error::StyleImage(error.to_string()))?.into_rgb())
}

fn check(width: u32, height: u32) -> Result<()> {
    let (short, long) = (width.min(height), width.max(height));
    if short == 0 || long > PICTURE_SIDE || long / short > STRETCH {
        let reason = format!("{width}x{height} is empty, longer than {PICTURE_SIDE}, or too narrow");
        return Err(Error::StyleImage(reason));
    }
    Ok(())
}

fn scaled(pixels: RgbImage) -> RgbImage {
    let (width, height) = pixels.dimensions();
    let short = width.min(height);
    if short <= STYLE_SIDE {
        return pixels;
    }
    let scaled = |side: u32| (u64::from(side) * u64::from(STYLE_SIDE)).div_ceil(u64::from(short)) as u32;
    imageops::resize(&pixels, scaled(width), scaled(height), FilterType::CatmullRom)
}

impl std::fmt::Debug for StyleImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StyleImage({}x{})", self.width, self.height)
    }
}

impl Serialize for StyleImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        base64::serialize(&self.file, serializer)
    }
}

impl<'de> Deserialize<'de> for StyleImage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::from_header(base64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
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
        assert_eq!(style.pixels().unwrap(), picture(40, 30));
        let json = serde_json::to_string(&style).unwrap();
        assert_eq!(serde_json::from_str::<StyleImage>(&json).unwrap(), style);
    }

    #[test]
    fn a_large_picture_is_scaled_once() {
        let style = StyleImage::new(picture(2 * STYLE_SIDE, 3 * STYLE_SIDE)).unwrap();
        assert_eq!((style.width(), style.height()), (STYLE_SIDE, STYLE_SIDE * 3 / 2));
        assert_eq!(style.settled().unwrap(), None);
        assert_eq!(StyleImage::new(style.pixels().unwrap()).unwrap(), style);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for (width, height) in [(0, 5), (1, 60), (PICTURE_SIDE + 1, 1000)] {
            assert!(matches!(StyleImage::new(RgbImage::new(width, height)), Err(Error::StyleImage { .. })));
        }
        assert!(matches!(StyleImage::from_bytes(b"no picture"), Err(Error::StyleImage { .. })));
        assert!(matches!(StyleImage::open("no/such.png"), Err(Error::ReadFile { .. })));
        assert!(serde_json::from_str::<StyleImage>("\"Zm9v\"").is_err());
        assert!(serde_json::from_str::<StyleImage>("\"?\"").unwrap_err().to_string().contains("base64"));
    }
    /// The pixels of a request's picture are neither decoded nor scaled before a pipeline has checked it.
    #[test]
    fn a_picture_in_json_is_kept_as_it_came() {
        let mut large = Cursor::new(Vec::new());
        picture(2 * STYLE_SIDE, 2 * STYLE_SIDE).write_to(&mut large, ImageFormat::Png).unwrap();
        let json = serde_json::to_string(&base64::serialize(large.get_ref(), serde_json::value::Serializer).unwrap());
        let read: StyleImage = serde_json::from_str(&json.unwrap()).unwrap();
        assert_eq!((read.width(), &read.file[..]), (2 * STYLE_SIDE, &large.get_ref()[..]));
        let settled = read.settled().unwrap().unwrap();
        assert_eq!(settled, StyleImage::from_bytes(large.get_ref()).unwrap());
        assert_eq!((settled.width(), settled.pixels().unwrap()), (STYLE_SIDE, read.pixels().unwrap()));
        // A bomb, and damage behind the header.
        let whole = large.into_inner();
        let damaged = StyleImage::from_header(whole[..whole.len() / 2].to_vec()).unwrap();
        assert!(matches!(damaged.settled(), Err(Error::StyleImage(_))));
        let mut bomb = whole[..33].to_vec();
        bomb[16..24].copy_from_slice(&[0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20]);
        bomb.truncate(29);
        let mut crc = flate2::Crc::new();
        crc.update(&bomb[12..]);
        bomb.extend(crc.sum().to_be_bytes());
        bomb.extend(&whole[33..60]);
        for error in [StyleImage::from_bytes(&bomb), StyleImage::from_header(bomb)] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("20000x20000") && error.contains("536870912"), "{error}");
        }
    }
}
