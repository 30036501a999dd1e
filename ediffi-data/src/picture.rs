//! The pictures of a data set, from their bytes: PNG and JPEG as everywhere in ediffi, and WebP.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ediffi_encoders::{PICTURE_BYTES, PICTURE_SIDE, Picture, PictureError};
use image::error::{DecodingError, ImageFormatHint};
use image::metadata::Orientation;
use image::{DynamicImage, ImageError, ImageFormat, RgbImage, RgbaImage};
use image_webp::WebPDecoder;

/// The endings of the files that are read as pictures, in small letters.
const READ: [&str; 4] = ["jpeg", "jpg", "png", "webp"];

/// The endings of other pictures.
const OTHERS: [&str; 9] = ["avif", "bmp", "gif", "heic", "heif", "jp2", "jxl", "tif", "tiff"];

/// Enough of most files to tell the size of their pictures.
const BEGINNING: u64 = 1 << 16;

/// Whether files with this ending are read as pictures.
pub(crate) fn is_read(ending: &str) -> bool {
    READ.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// Whether files with this ending are pictures that are not read.
pub(crate) fn is_other(ending: &str) -> bool {
    OTHERS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// The upright picture, on white where it is transparent. A picture that is too large is refused by its header, before its pixels are
/// decoded.
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    // A broken picture is passed over: not even a fault of a decoder may end a training.
    catch_unwind(AssertUnwindSafe(|| -> Result<_, PictureError> {
        if !is_webp(bytes) {
            return Ok(Picture::from_bytes(bytes)?.into_rgb());
        }
        let (mut decoder, orientation) = webp(bytes)?;
        let (width, height) = decoder.dimensions();
        let mut pixels = vec![0; decoder.output_buffer_size().unwrap_or_default()];
        decoder.read_image(&mut pixels).map_err(webp_error)?;
        let picture = if decoder.has_alpha() {
            RgbaImage::from_raw(width, height, pixels).map(|rgba| DynamicImage::from(on_white(&rgba)))
        } else {
            RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
        };
        let mut picture = picture.ok_or_else(|| webp_error("its pixels have another size than its header"))?;
        picture.apply_orientation(orientation);
        Ok(picture.into_rgb8())
    }))
    .unwrap_or_else(|_| Err(webp_error("the decoder panicked")))
}

/// Height and width of the upright picture in a file, of which `read` reads the first bytes. Its pixels are not decoded.
pub(crate) fn size<E: From<PictureError>>(read: impl Fn(u64) -> Result<Vec<u8>, E>) -> Result<(u32, u32), E> {
    let size = |bytes: &[u8]| {
        let size = catch_unwind(AssertUnwindSafe(|| -> Result<_, PictureError> {
            if !is_webp(bytes) {
                return Picture::size_of(bytes);
            }
            let (decoder, orientation) = webp(bytes)?;
            let (width, height) = decoder.dimensions();
            Ok(if is_turned(orientation) { (height, width) } else { (width, height) })
        }));
        size.unwrap_or_else(|_| Err(webp_error("the decoder panicked"))).map(|(width, height)| (height, width))
    };
    match size(&read(BEGINNING)?) {
        Ok(found) => Ok(found),
        // Long metadata may come first, and the list of a WebP's parts goes on to its end.
        Err(_) => Ok(size(&read(u64::MAX)?)?),
    }
}

/// A decoder of bytes.
type WebP<'a> = WebPDecoder<Cursor<&'a [u8]>>;

fn is_webp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
}

/// A decoder that has read the header, and how the picture is to be turned.
fn webp(bytes: &[u8]) -> Result<(WebP<'_>, Orientation), PictureError> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(webp_error)?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > PICTURE_SIDE {
        return Err(PictureError::Side { width, height });
    }
    // What is decoded, what it is decoded from, and a turned or converted copy, of up to four channels each.
    let needed = u64::from(width) * u64::from(height) * 12;
    if needed > PICTURE_BYTES {
        return Err(PictureError::Memory { width, height, bytes: needed });
    }
    decoder.set_memory_limit(PICTURE_BYTES as usize);
    let exif = decoder.exif_metadata().map_err(webp_error)?;
    let orientation = exif.as_deref().and_then(Orientation::from_exif_chunk);
    Ok((decoder, orientation.unwrap_or(Orientation::NoTransforms)))
}

fn webp_error(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PictureError {
    ImageError::Decoding(DecodingError::new(ImageFormatHint::Exact(ImageFormat::WebP), source)).into()
}

/// Whether width and height change places.
fn is_turned(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// The pixels on white, as on a blank page.
fn on_white(rgba: &RgbaImage) -> RgbImage {
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [red, green, blue, alpha] = rgba.get_pixel(x, y).0.map(u32::from);
        // At most 255 * 255 / 255, the nearest of 8 bits.
        image::Rgb([red, green, blue].map(|level| ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    })
}

#[cfg(test)]
mod tests {
    use image_webp::{ColorType, WebPEncoder};

    use super::*;

    fn file(pixels: &[u8], width: u32, color: ColorType, turned: Option<u8>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let channels = if color == ColorType::Rgba8 { 4 } else { 3 };
        let mut encoder = WebPEncoder::new(&mut bytes);
        // Little-endian TIFF with one entry: orientation, a short.
        let tiff =
            |turned| [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[turned, 0, 0, 0, 0, 0, 0, 0][..]].concat();
        if let Some(turned) = turned {
            encoder.set_exif_metadata(tiff(turned));
        }
        encoder.encode(pixels, width, pixels.len() as u32 / channels / width, color).unwrap();
        bytes
    }

    #[test]
    fn a_webp_is_read_upright_and_on_white() {
        let pixels: Vec<u8> = (0..18).map(|i| i * 14).collect();
        let plain = file(&pixels, 3, ColorType::Rgb8, None);
        assert_eq!(decode(&plain).unwrap(), RgbImage::from_raw(3, 2, pixels.clone()).unwrap());
        let turned = decode(&file(&pixels, 3, ColorType::Rgb8, Some(6))).unwrap();
        assert_eq!(turned.dimensions(), (2, 3));
        // Turned by a quarter to the right: the first row is the left column from below.
        assert_eq!(&turned.as_raw()[..6], [&pixels[9..12], &pixels[..3]].concat());
        let clear = file(&[200, 100, 0, 255, 200, 100, 0, 0], 2, ColorType::Rgba8, None);
        assert_eq!(decode(&clear).unwrap().into_raw(), [200, 100, 0, 255, 255, 255]);
    }

    #[test]
    fn the_size_is_told_by_the_header() {
        let pixels = [9; 18];
        for (turned, expected) in [(None, (2, 3)), (Some(6), (3, 2))] {
            let bytes = file(&pixels, 3, ColorType::Rgb8, turned);
            let read = |most: u64| Ok::<_, PictureError>(bytes[..bytes.len().min(most as usize)].to_vec());
            assert_eq!(size(read).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_damaged_or_too_large_is_an_error() {
        let whole = file(&[9; 18], 3, ColorType::Rgb8, None);
        assert!(decode(&whole[..whole.len() - 4]).is_err());
        assert!(matches!(decode(b"GIF89a"), Err(PictureError::Format)));
        // A header of 16383 x 16383 pixels, and next to nothing behind it.
        let mut bomb = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f".to_vec();
        bomb.extend((16_382_u32 | 16_382 << 14).to_le_bytes());
        bomb.extend([0; 8]);
        assert!(matches!(decode(&bomb), Err(PictureError::Memory { width: 16383, height: 16383, .. })));
    }
}
