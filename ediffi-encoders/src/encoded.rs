//! What the encoders hand out, and what they share.

use std::ops::Range;
use std::path::Path;

use ediffi_core::Result;
use serde::de::DeserializeOwned;
use tch::Tensor;

/// Embedded texts, one embedding per token. Columns are the positions of tokens.
#[derive(Debug)]
pub struct Encoded {
    /// [n, tokens, width] f32; zero after the token that ends the text.
    pub tokens: Tensor,
    /// Per text and column the range of characters (not bytes) of the text that the token stands for; `None` for tokens
    /// that stand for nothing in the text: start, end, filling.
    pub spans: Vec<Vec<Option<Range<usize>>>>,
    /// Per text the end of it that did not fit, `None` if all did.
    pub truncated: Vec<Option<String>>,
}

/// Texts embedded by CLIP: [`Encoded`], and one embedding per text.
#[derive(Debug)]
pub struct EncodedClip {
    /// [n, tokens, width] f32; zero after the token that ends the text.
    pub tokens: Tensor,
    /// [n, projection] f32: the whole text, in the space of pictures. Not normalised.
    pub pooled: Tensor,
    /// As in [`Encoded`].
    pub spans: Vec<Vec<Option<Range<usize>>>>,
    /// As in [`Encoded`].
    pub truncated: Vec<Option<String>>,
}

/// Embeddings with those left out by `mask` set to zero, checked: what overflowed must not reach a denoiser.
///
/// # Shapes
/// `tokens`: [n, tokens, width], `mask`: [n, tokens] bool → as `tokens`
pub(crate) fn masked(tokens: &Tensor, mask: &Tensor, what: &str) -> Result<Tensor> {
    let left_out = mask.f_to_device(tokens.device())?.f_logical_not()?.f_unsqueeze(-1)?;
    finite(tokens.f_masked_fill(&left_out, 0.0)?, what)
}

/// `x`, unless it holds a NaN or an infinity.
pub(crate) fn finite(x: Tensor, what: &str) -> Result<Tensor> {
    if x.f_isfinite()?.f_all()?.f_int64_value(&[])? == 1 {
        return Ok(x);
    }
    Err(ediffi_core::Error::NotFinite { what: what.to_owned() })
}

/// The JSON file at `path`.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let io = |source| ediffi_core::Error::ReadFile { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(io)?;
    serde_json::from_str(&text).map_err(|source| ediffi_core::Error::Json { path: path.to_owned(), source })
}
