//! What a PNG file says about how its picture was made, and reading and writing it.
//!
//! It stands in text chunks (iTXt, which is UTF-8) before the pixels: `ediffi:request`, `ediffi:seed`, `ediffi:plan`,
//! `ediffi:made`, `ediffi:version`, and the standard `Software`. Readers of PNG refuse a chunk of more than a megabyte, so a long
//! request goes on in `ediffi:request:2` and so forth; `ediffi:parts` counts them.
//!
//! Other programs that write the file anew may move the chunks behind the pixels, or store them as tEXt or zTXt, some of them as
//! UTF-8 where Latin-1 is meant. All of that is read.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use ediffi_core::brief::told_json;
use ediffi_core::files;
use image::RgbImage;
use png::text_metadata::ITXtChunk;

use crate::bounds::LONGEST_REQUEST;
use crate::{Error, Request, Result};

const REQUEST: &str = "ediffi:request";
const PARTS: &str = "ediffi:parts";
const SEED: &str = "ediffi:seed";
const PLAN: &str = "ediffi:plan";
const MADE: &str = "ediffi:made";
const VERSION: &str = "ediffi:version";

/// Longer texts are compressed.
const COMPRESS_FROM: usize = 1024;

/// The longest text of one chunk, in bytes: Pillow refuses to open a file with one of more than 2^20.
const LONGEST_CHUNK: usize = 1 << 20;

/// The most bytes of text that are unpacked: a request, and what stands beside it.
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
    /// JSON of the provenance; older files have none.
    pub(crate) made: Option<String>,
}

impl Request {
    /// The request stored in a PNG file that [`GeneratedImage::save`](crate::GeneratedImage::save) wrote. It asks for this
    /// one image, whatever others were made with it. [`Provenance::from_png`](crate::Provenance::from_png) tells on what model.
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
        serde_json::from_str(&Metadata::read(bytes)?.request).map_err(|error| Error::PngRequest(told_json(error)))
    }
}

impl Metadata {
    /// Reads the bytes of a file. Its pixels are not looked at.
    pub(crate) fn read(png: &[u8]) -> Result<Self> {
        let damaged = Error::PngDecode;
        let limits = png::Limits { bytes: 2 * LONGEST_TEXT };
        let mut reader = png::Decoder::new_with_limits(Cursor::new(png), limits).read_info().map_err(damaged)?;
        if let Some(metadata) = Self::of(&texts(reader.info()).map_err(damaged)?) {
            return Ok(metadata);
        }
        // The chunks, or some of them, may stand behind the pixels, which are passed over.
        reader.finish().map_err(damaged)?;
        Self::of(&texts(reader.info()).map_err(damaged)?).ok_or(Error::PngWithoutRequest)
    }

    /// What these texts say, if they are whole.
    fn of(texts: &HashMap<String, String>) -> Option<Self> {
        let parts = texts.get(PARTS).map_or(Some(1), |parts| parts.parse::<usize>().ok())?;
        let mut request = texts.get(REQUEST)?.clone();
        for part in 2..=parts {
            request.push_str(texts.get(&part_of(part))?);
        }
        let seed = texts.get(SEED)?.parse().ok()?;
        let plan = texts.get(PLAN).cloned().unwrap_or_default();
        Some(Self { request, seed, plan, made: texts.get(MADE).cloned() })
    }

    /// The bytes of a PNG file with these pixels.
    pub(crate) fn write(&self, pixels: &RgbImage) -> Result<Vec<u8>> {
        if self.request.len() > LONGEST_REQUEST {
            return Err(Error::PngRequestTooLong(self.request.len()));
        }
        let parts = parts(&self.request);
        let (seed, count) = (self.seed.to_string(), parts.len().to_string());
        let mut texts = vec![(VERSION.to_owned(), env!("CARGO_PKG_VERSION")), (SEED.to_owned(), seed.as_str())];
        texts.push((PLAN.to_owned(), &self.plan));
        texts.extend(self.made.as_deref().map(|made| (MADE.to_owned(), made)));
        texts.extend((parts.len() > 1).then_some((PARTS.to_owned(), count.as_str())));
        texts.extend((1..).map(part_of).zip(parts));
        encode(pixels, &texts)
    }
}

/// The bytes of a PNG file with these pixels, which says nothing about how they were made.
pub(crate) fn plain(pixels: &RgbImage) -> Result<Vec<u8>> {
    encode(pixels, &[])
}

/// The keyword of a part of the request, counted from 1.
fn part_of(part: usize) -> String {
    if part == 1 { REQUEST.to_owned() } else { format!("{REQUEST}:{part}") }
}

/// A text in parts that a chunk can hold.
fn parts(mut text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while text.len() > LONGEST_CHUNK {
        let (part, rest) = text.split_at(text.floor_char_boundary(LONGEST_CHUNK));
        parts.push(part);
        text = rest;
    }
    parts.push(text);
    parts
}

/// The texts of a file by their keywords, as far as they are of this library; of several with one keyword the first.
fn texts(info: &png::Info<'_>) -> std::result::Result<HashMap<String, String>, png::DecodingError> {
    let mut texts = HashMap::new();
    let mut left = LONGEST_TEXT;
    let mut keep = |keyword: &str, text: String| {
        left = left.saturating_sub(text.len());
        texts.entry(keyword.to_owned()).or_insert(text);
        left
    };
    let ours = |keyword: &str| keyword.starts_with("ediffi:");
    let mut room = LONGEST_TEXT;
    for chunk in info.utf8_text.iter().filter(|chunk| ours(&chunk.keyword)) {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(room)?;
        room = keep(&chunk.keyword, chunk.get_text()?);
    }
    for chunk in info.compressed_latin1_text.iter().filter(|chunk| ours(&chunk.keyword)) {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(room)?;
        room = keep(&chunk.keyword, utf8(chunk.get_text()?));
    }
    for chunk in info.uncompressed_latin1_text.iter().filter(|chunk| ours(&chunk.keyword)) {
        keep(&chunk.keyword, utf8(chunk.text.clone()));
    }
    Ok(texts)
}

/// A text that was read as Latin-1 and may be UTF-8.
fn utf8(text: String) -> String {
    let bytes: Option<Vec<u8>> = text.chars().map(|character| u8::try_from(character).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(text)
}

fn encode(pixels: &RgbImage, texts: &[(String, &str)]) -> Result<Vec<u8>> {
    let write = || {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, pixels.width(), pixels.height());
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        let software = ("Software".to_owned(), concat!("ediffi ", env!("CARGO_PKG_VERSION")));
        for (keyword, text) in std::iter::once(&software).chain(texts) {
            let mut chunk = ITXtChunk::new(keyword.as_str(), *text);
            chunk.compressed = text.len() >= COMPRESS_FROM;
            writer.write_text_chunk(&chunk)?;
        }
        writer.write_image_data(pixels.as_raw())?;
        writer.finish()?;
        Ok(bytes)
    };
    write().map_err(Error::PngEncode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(prompt: &str) -> Metadata {
        let request = serde_json::to_string(&Request::new(prompt).seed(u64::MAX)).unwrap();
        Metadata { request, seed: u64::MAX, plan: "base: expert 0: step 1".to_owned(), made: None }
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
    /// A request of `bytes`, which does not become much shorter when it is compressed.
    fn long(bytes: usize) -> Metadata {
        let mut bits = 1_u64;
        let mut next = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + (bits >> 59) as u8 % 26)
        };
        // A character of three bytes now and then, so that some part would end within one.
        metadata(
            &(0..bytes / 9).flat_map(|_| [next(), next(), next(), next(), next(), next(), '猫']).collect::<String>(),
        )
    }

    /// Keywords and unpacked lengths of the texts of a file.
    fn lengths(png: &[u8]) -> Vec<(String, usize)> {
        let limits = png::Limits { bytes: usize::MAX };
        let reader = png::Decoder::new_with_limits(Cursor::new(png), limits).read_info().unwrap();
        let chunks = reader.info().utf8_text.iter();
        chunks.map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap().len())).collect()
    }

    /// A chunk of more than a megabyte is refused by Pillow, the whole file with it.
    #[test]
    fn a_long_request_is_parted_and_comes_back() {
        for (bytes, parts) in [(900_000, 1), (2_900_000, 3)] {
            let metadata = long(bytes);
            let png = metadata.write(&picture()).unwrap();
            let lengths = lengths(&png);
            assert!(lengths.iter().all(|(_, length)| *length <= 1 << 20), "{lengths:?}");
            assert_eq!(lengths.iter().filter(|(keyword, _)| keyword.starts_with(REQUEST)).count(), parts);
            assert_eq!(Metadata::read(&png).unwrap(), metadata);
        }
    }

    #[test]
    fn what_is_too_long_to_be_read_is_not_written() {
        let mut metadata = metadata("a");
        metadata.request = " ".repeat(LONGEST_REQUEST - metadata.request.len()) + &metadata.request;
        assert_eq!(Metadata::read(&metadata.write(&picture()).unwrap()).unwrap(), metadata);
        metadata.request.push(' ');
        let error = metadata.write(&picture()).unwrap_err();
        assert!(matches!(error, Error::PngRequestTooLong(bytes) if bytes == LONGEST_REQUEST + 1), "{error}");
        // A file of somebody else may hold a bomb.
        metadata.request = " ".repeat(LONGEST_TEXT + 1);
        let texts = [(SEED.to_owned(), "1"), (REQUEST.to_owned(), metadata.request.as_str())];
        let bomb = encode(&picture(), &texts).unwrap();
        assert!(bomb.len() < 1 << 20 && matches!(Metadata::read(&bomb), Err(Error::PngDecode(_))));
    }

    /// What other programs make of a file that they write anew.
    #[test]
    fn texts_are_read_wherever_and_however_they_stand() {
        use png::text_metadata::{TEXtChunk, ZTXtChunk};
        type Write = fn(&mut png::Writer<&mut Vec<u8>>, &str, &str);
        let forms: [Write; 4] = [
            |writer, keyword, text| writer.write_text_chunk(&ITXtChunk::new(keyword, text)).unwrap(),
            |writer, keyword, text| writer.write_text_chunk(&TEXtChunk::new(keyword, text)).unwrap(),
            |writer, keyword, text| writer.write_text_chunk(&ZTXtChunk::new(keyword, text)).unwrap(),
            // Bytes of UTF-8 in a chunk of Latin-1.
            |writer, keyword, text| {
                let bytes: Vec<u8> = keyword.bytes().chain([0]).chain(text.bytes()).collect();
                writer.write_chunk(png::chunk::tEXt, &bytes).unwrap();
            },
        ];
        for (index, write) in forms.into_iter().enumerate() {
            for behind in [false, true] {
                // Latin-1 has no cat.
                let prompt = if matches!(index, 0 | 3) { "une pomme, été, 猫" } else { "une pomme, été" };
                let expected = metadata(prompt);
                let mut bytes = Vec::new();
                let mut encoder = png::Encoder::new(&mut bytes, 5, 3);
                encoder.set_color(png::ColorType::Rgb);
                let mut writer = encoder.write_header().unwrap();
                if behind {
                    writer.write_image_data(picture().as_raw()).unwrap();
                }
                let (half, rest) = expected.request.split_at(10);
                let seed = expected.seed.to_string();
                let texts = [
                    (PLAN, expected.plan.as_str()),
                    (SEED, &seed),
                    (PARTS, "2"),
                    ("ediffi:request:2", rest),
                    (REQUEST, half),
                ];
                texts.into_iter().for_each(|(keyword, text)| write(&mut writer, keyword, text));
                if !behind {
                    writer.write_image_data(picture().as_raw()).unwrap();
                }
                writer.finish().unwrap();
                assert_eq!(Metadata::read(&bytes).unwrap(), expected, "form {index}, behind: {behind}");
            }
        }
    }

    #[test]
    fn a_plain_file_says_nothing() {
        let png = plain(&picture()).unwrap();
        assert_eq!(lengths(&png).into_iter().map(|(keyword, _)| keyword).collect::<Vec<_>>(), ["Software"]);
        assert!(matches!(Request::from_png_bytes(&png), Err(Error::PngWithoutRequest)));
        assert_eq!(image::load_from_memory(&png).unwrap().into_rgb8(), picture());
    }
}
