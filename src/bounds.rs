//! What no limit can raise.

/// The longest side in pixels of a picture, whatever the limits.
pub const MAX_SIDE: u32 = 1 << 14;

/// The most strength of a style. A higher number is taken for a mistake.
pub const MAX_STRENGTH: f64 = 100.0;

/// The highest aesthetic score, and the lowest with a minus. SDXL learned scores up to 10; a higher number is taken for a mistake.
pub(crate) const MAX_SCORE: f64 = 100.0;

/// The longest request that a PNG file holds, in bytes of JSON. Pillow refuses more than 2^26 bytes of text in one file.
pub(crate) const LONGEST_REQUEST: usize = 60 << 20;
