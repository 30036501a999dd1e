//! Pictures of users, from files of unknown origin: the one place where they are read.

use std::fmt;
use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, Luma, RgbImage, RgbaImage};

use crate::{Error, PICTURE_BYTES, PICTURE_SIDE, PictureError, Result};

/// A picture as browsers show it: turned as its EXIF data say, with 8 bits a channel, its transparency kept.
#[derive(Clone, PartialEq)]
pub struct Picture {
    /// Of 8 bits a channel.
    pixels: DynamicImage,
}

impl Picture {
    /// Reads a PNG or JPEG file, whatever its name.
    ///
    /// # Errors
    /// [`Error::PictureFile`] if the file is missing, no picture, damaged, or too large.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let unreadable = |source: PictureError| Error::PictureFile { path: path.to_owned(), source };
        let io = |error: std::io::Error| unreadable(image::ImageError::from(error).into());
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length > PICTURE_BYTES {
            return Err(unreadable(PictureError::File(length)));
        }
        Self::from_bytes(&std::fs::read(path).map_err(io)?).map_err(unreadable)
    }

    /// Reads the bytes of a PNG or JPEG file. The header is read first, and a picture that is too large is refused before its
    /// pixels are decoded.
    ///
    /// # Errors
    /// [`PictureError`].
    pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, PictureError> {
        let (decoder, orientation) = decoder(bytes)?;
        let pixels = match DynamicImage::from_decoder(decoder)? {
            deep @ DynamicImage::ImageLuma16(_) => deep.into_luma8().into(),
            deep @ DynamicImage::ImageLumaA16(_) => deep.into_luma_alpha8().into(),
            deep @ (DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgb32F(_)) => deep.into_rgb8().into(),
            deep @ (DynamicImage::ImageRgba16(_) | DynamicImage::ImageRgba32F(_)) => deep.into_rgba8().into(),
            bytes => bytes,
        };
        let mut picture = Self { pixels };
        picture.pixels.apply_orientation(orientation);
        Ok(picture)
    }

    /// Width and height that a PNG or JPEG file has when it is read; its pixels are not decoded.
    ///
    /// # Errors
    /// As [`Picture::from_bytes`], except for damaged pixels.
    pub fn size_of(bytes: &[u8]) -> std::result::Result<(u32, u32), PictureError> {
        let (decoder, orientation) = decoder(bytes)?;
        let (width, height) = decoder.dimensions();
        Ok(if is_turned(orientation) { (height, width) } else { (width, height) })
    }

    /// Width and height in pixels.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.pixels.width(), self.pixels.height())
    }

    /// The pixels on white, as on a blank page.
    #[must_use]
    pub fn into_rgb(self) -> RgbImage {
        if !self.pixels.color().has_alpha() {
            return self.pixels.into_rgb8();
        }
        let rgba = self.pixels.into_rgba8();
        RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
            let [red, green, blue, alpha] = rgba.get_pixel(x, y).0;
            image::Rgb([red, green, blue].map(|level| over(level, u8::MAX, alpha)))
        })
    }

    /// The pixels with their transparency, which a painted canvas needs: what is transparent is unpainted.
    #[must_use]
    pub fn into_rgba(self) -> RgbaImage {
        self.pixels.into_rgba8()
    }

    /// The picture as a mask: white is inside. What is transparent is outside.
    #[must_use]
    pub fn into_mask(self) -> GrayImage {
        if !self.pixels.color().has_alpha() {
            return self.pixels.into_luma8();
        }
        let grey = self.pixels.into_luma_alpha8();
        GrayImage::from_fn(grey.width(), grey.height(), |x, y| {
            let [level, alpha] = grey.get_pixel(x, y).0;
            Luma([over(level, 0, alpha)])
        })
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.pixels.width(), self.pixels.height())
    }
}

/// A level over a ground, the nearest of 8 bits.
fn over(level: u8, ground: u8, alpha: u8) -> u8 {
    let [level, ground, alpha] = [level, ground, alpha].map(u32::from);
    // At most 255 * 255 / 255.
    ((level * alpha + ground * (255 - alpha) + 127) / 255) as u8
}

/// Whether width and height change places.
fn is_turned(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// A decoder that has read the header, and how the picture is to be turned.
fn decoder(bytes: &[u8]) -> std::result::Result<(impl ImageDecoder + '_, Orientation), PictureError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(image::ImageError::from)?;
    let format = reader.format();
    // A program may have other formats compiled into `image`, whose decoders were not looked at here.
    if !matches!(format, Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(PictureError::Format);
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(PICTURE_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > PICTURE_SIDE {
        return Err(PictureError::Side { width, height });
    }
    // A second copy has four channels of 8 bits at most: turned, or converted. A progressive JPEG is decoded from its frequencies,
    // of two bytes for each of up to four channels.
    let frequencies = if format == Some(ImageFormat::Jpeg) { 8 } else { 0 };
    let each = u64::from(decoder.color_type().bytes_per_pixel()) + 4 + frequencies;
    let bytes = u64::from(width) * u64::from(height) * each;
    if bytes > PICTURE_BYTES {
        return Err(PictureError::Memory { width, height, bytes });
    }
    let orientation = decoder.orientation()?;
    Ok((decoder, orientation))
}
