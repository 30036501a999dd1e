//! How large a canvas may be.

/// The most regions of a canvas. A prompt has at most 113 tokens, so it holds hardly more phrases than this.
pub const MAX_REGIONS: usize = 64;

/// The longest side of a mask, in pixels: twice the largest picture of the cascade. Feature maps are far smaller than
/// that, so a larger mask would cost memory and change nothing.
pub const MAX_SIDE: u32 = 2048;

/// The most w′ of a canvas and weight of a region. A higher number is taken for a mistake: a hundredth of it drowns the scores.
pub const MAX_WEIGHT: f64 = 1000.0;

/// The largest scale of layout guidance. A hundredth of it pulls a picture apart.
pub const MAX_LAYOUT: f64 = 10_000.0;

/// The most words of a prompt that an error lists.
pub(crate) const LISTED_WORDS: usize = 24;

/// The longest phrase in characters that a suggestion is looked for, and the most words of the prompt that it is looked for among.
/// A longer one is no slip of the pen, and the cost of comparing grows with the square of it.
pub(crate) const SUGGESTED: (usize, usize) = (64, 128);
