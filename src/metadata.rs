//! What a PNG file says about how its picture was made, and reading and writing it.
//!
//! It stands in text chunks (iTXt, which is UTF-8) before the pixels: `ediffi:request`, `ediffi:seed`, `ediffi:plan`,
//! `ediffi:version`, and the standard `Software`.

use std::io::Cursor;
use std::path::Path;

use ediffi_core::files;
use image::RgbImage;
use png::text_metadata::ITXtChunk;

use crate::{Error, Request, Result};

const REQUEST: &str = "ediffi:request";
const SEED: &str = "ediffi:seed";
const PLAN: &str = "ediffi:plan";
const VERSION: &str = "ediffi:version";

/// Longer texts are compressed.
const COMPRESS_FROM: usize = 1024;

/// The longest text that is unpacked: a request with a style image and a canvas of 64 regions stays far below.
const LONGEST_TEXT: usize = 64 << 20;

/// What is stored in a picture beside its pixels. It holds nothing that changes from one run to the next, such as times, so
/// that the same request gives the same file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metadata {
    /// JSON of the request that has this image alone.
    pub(crate) request: String,
    /// The image's seed.
    pub(crate) seed: u64,
    /// Which expert ran which step, for each stage.
    pub(crate) plan: String,
}

impl Request {
    /// The request stored in a PNG file that [`GeneratedImage::save`](crate::GeneratedImage::save) wrote. It asks for this
    /// one image, whatever others were made with it.
    ///
    /// # Errors
    /// [`Error::ReadFile`], [`Error::PngDecode`], [`Error::PngWithoutRequest`] and [`Error::PngRequest`].
    pub fn from_png(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_png_bytes(&files::read_bytes(path.as_ref())?)
    }

    /// The request stored in the bytes of a PNG file.
    ///
    /// # Errors
    /// As [`Request::from_png`].
    pub fn from_png_bytes(bytes: &[u8]) -> Result<Self> {
        serde_json::from_str(&Metadata::read(bytes)?.request).map_err(Error::PngRequest)
    }
}

impl Metadata {
    /// Reads the bytes of a file. Its pixels are not looked at.
    pub(crate) fn read(png: &[u8]) -> Result<Self> {
        let damaged = Error::PngDecode;
        let reader = png::Decoder::new(Cursor::new(png)).read_info().map_err(damaged)?;
        let text = |keyword: &str| -> Result<Option<String>> {
            let chunk = reader.info().utf8_text.iter().find(|chunk| chunk.keyword == keyword);
            chunk
                .map(|chunk| {
                    let mut chunk = chunk.clone();
                    chunk.decompress_text_with_limit(LONGEST_TEXT)?;
                    chunk.get_text()
                })
                .transpose()
                .map_err(damaged)
        };
        let request = text(REQUEST)?.ok_or(Error::PngWithoutRequest)?;
        let seed = text(SEED)?.and_then(|seed| seed.parse().ok()).ok_or(Error::PngWithoutRequest)?;
        Ok(Self { request, seed, plan: text(PLAN)?.unwrap_or_default() })
    }

    /// The bytes of a PNG file with these pixels.
    pub(crate) fn write(&self, pixels: &RgbImage) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.encode(pixels, &mut bytes).map_err(Error::PngEncode)?;
        Ok(bytes)
    }

    fn encode(&self, pixels: &RgbImage, bytes: &mut Vec<u8>) -> std::result::Result<(), png::EncodingError> {
        let mut encoder = png::Encoder::new(bytes, pixels.width(), pixels.height());
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        let version = env!("CARGO_PKG_VERSION");
        let seed = self.seed.to_string();
        for (keyword, text) in [
            ("Software", format!("ediffi {version}").as_str()),
            (VERSION, version),
            (SEED, &seed),
            (PLAN, &self.plan),
            (REQUEST, &self.request),
        ] {
            let mut chunk = ITXtChunk::new(keyword, text);
            chunk.compressed = text.len() >= COMPRESS_FROM;
            writer.write_text_chunk(&chunk)?;
        }
        writer.write_image_data(pixels.as_raw())?;
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(prompt: &str) -> Metadata {
        let request = serde_json::to_string(&Request::new(prompt).seed(u64::MAX)).unwrap();
        Metadata { request, seed: u64::MAX, plan: "base: expert 0: step 1".to_owned() }
    }

    fn picture() -> RgbImage {
        RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]))
    }

    #[test]
    fn texts_and_pixels_come_back() {
        // Long enough to be compressed, and in another script.
        let long = "ein Äpfelchen, 一只猫 ".repeat(200);
        for prompt in ["a red apple", &long] {
            let metadata = metadata(prompt);
            let png = metadata.write(&picture()).unwrap();
            assert_eq!(Metadata::read(&png).unwrap(), metadata);
            assert_eq!(Request::from_png_bytes(&png).unwrap(), Request::new(prompt).seed(u64::MAX));
            assert_eq!(image::load_from_memory(&png).unwrap().into_rgb8(), picture());
        }
        assert!(metadata(&long).write(&picture()).unwrap().len() < long.len());
    }

    #[test]
    fn a_picture_of_somebody_else_is_refused() {
        let mut plain = Cursor::new(Vec::new());
        picture().write_to(&mut plain, image::ImageFormat::Png).unwrap();
        assert!(matches!(Request::from_png_bytes(plain.get_ref()), Err(Error::PngWithoutRequest)));
        assert!(matches!(Request::from_png_bytes(b"GIF89a"), Err(Error::PngDecode { .. })));
        let whole = metadata("a").write(&picture()).unwrap();
        assert!(matches!(Request::from_png_bytes(&whole[..60]), Err(Error::PngDecode { .. })));
        assert!(matches!(Request::from_png("no/such.png"), Err(Error::ReadFile { .. })));
    }

    #[test]
    fn a_request_of_another_version_names_the_key() {
        let mut metadata = metadata("a");
        metadata.request = r#"{"prompt": "a", "lens": 3}"#.to_owned();
        let error = Request::from_png_bytes(&metadata.write(&picture()).unwrap()).unwrap_err();
        assert!(matches!(error, Error::PngRequest { .. }) && error.to_string().contains("lens"), "{error}");
    }
}
