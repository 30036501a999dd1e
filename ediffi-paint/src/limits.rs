//! How large a canvas may be.

/// The most regions of a canvas. A prompt has at most 113 tokens, so it holds hardly more phrases than this.
pub const MAX_REGIONS: usize = 64;

/// The longest side of a mask, in pixels: twice the largest picture of the cascade. Feature maps are far smaller than
/// that, so a larger mask would cost memory and change nothing.
pub const MAX_SIDE: u32 = 2048;
