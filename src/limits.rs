//! The most that a request may ask for.

/// The most images of one request.
pub const MAX_IMAGES: usize = 4096;

/// The longest side in pixels of a picture.
pub const MAX_SIDE: u32 = 1 << 14;

/// The most references of one style. They travel in the request, and so in every picture made from it.
pub const MAX_STYLE_REFERENCES: usize = 32;

/// The most pixels of one style's pictures together: 48 megabytes of base64 at worst, which leaves room for the rest of the
/// request in what is read from a picture's file.
pub const MAX_STYLE_PIXELS: u64 = 12_000_000;
