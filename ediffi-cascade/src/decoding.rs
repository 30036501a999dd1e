//! How latents become pictures, known before anything is loaded.

use ediffi_core::autoencoder::AutoencoderConfig;
use tch::Kind;

/// How the latents of a stage become pictures.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decoding {
    /// The autoencoder.
    pub autoencoder: AutoencoderConfig,
    /// The precision that it is decoded in: f32 where the networks compute in an f16 in which it overflows.
    pub kind: Kind,
    /// Width of the latents.
    pub width: i64,
    /// Height of the latents.
    pub height: i64,
    /// Into how many tiles each picture is cut for it.
    pub tiles: usize,
}

/// What a precision is called.
pub(crate) fn precision(kind: Kind) -> &'static str {
    match kind {
        Kind::BFloat16 => "bf16",
        Kind::Half => "f16",
        _ => "f32",
    }
}
