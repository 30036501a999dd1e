//! How large a picture may be, and why one cannot be read.

/// The longest side that a picture may have, in pixels.
pub const PICTURE_SIDE: u32 = 1 << 15;

/// The most memory that reading a picture may take, copies and conversions included. It is known from the header.
pub const PICTURE_BYTES: u64 = 512 << 20;

/// Why a picture cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// It is no PNG or JPEG file.
    #[error("it is no PNG or JPEG file")]
    Format,
    /// It is damaged.
    #[error(transparent)]
    Decode(#[from] image::ImageError),
    /// A file that is longer than the memory that reading it may take.
    #[error("the file has {0} bytes, the limit is {PICTURE_BYTES}")]
    File(u64),
    /// A side is above [`PICTURE_SIDE`].
    #[error("it has {width}x{height} pixels, the longest side that is read is {PICTURE_SIDE}")]
    Side {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Reading it would take more than [`PICTURE_BYTES`].
    #[error("it has {width}x{height} pixels, which take {bytes} bytes to read; the limit is {PICTURE_BYTES}")]
    Memory {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes that reading it would take.
        bytes: u64,
    },
}
