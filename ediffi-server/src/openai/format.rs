//! The files that pictures are sent as.

use axum::body::Bytes;

use crate::picture;
use crate::refusal::Refusal;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// With the request inside.
    Png,
    /// Without loss.
    WebP,
    /// Of a quality from 1 to 100.
    Jpeg(u8),
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Jpeg(_) => "jpeg",
        }
    }

    /// A finished picture, a PNG file, as such a file.
    pub(super) fn of_png(self, file: Bytes) -> Result<Bytes, Refusal> {
        match self {
            Self::Png => Ok(file),
            Self::WebP => picture::webp(&file),
            Self::Jpeg(quality) => picture::jpeg(&file, quality),
        }
    }

    /// A preview, a JPEG file, as such a file.
    pub(super) fn of_jpeg(self, file: Vec<u8>) -> Result<Bytes, Refusal> {
        match self {
            Self::Jpeg(_) => Ok(file.into()),
            Self::Png => picture::png_of_jpeg(&file),
            Self::WebP => picture::webp(&picture::png_of_jpeg(&file)?),
        }
    }
}
