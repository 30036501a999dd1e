//! Embeddings, and what the encoders share.

use std::ops::Range;
use std::path::Path;

use ediffi_core::Result;
use ediffi_core::brief::told_json;
use ediffi_core::files::read_json;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::Tensor;

use crate::Error;

/// What the columns of the padding hold, which follow the token that ends a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Zeros: [`T5::encode`](crate::T5::encode).
    Zeros,
    /// The network's embeddings of the padding: [`T5::encode_with_padding`](crate::T5::encode_with_padding).
    Embedded,
}

/// Texts embedded by T5, one embedding per token. A column is the position of a token.
#[derive(Debug)]
pub struct Encoded {
    /// [n, tokens, width] f32.
    pub tokens: Tensor,
    /// What `tokens` holds after the token that ends a text.
    pub padding: Padding,
    /// [n, tokens] bool, on the device of `tokens`: true up to and including the token that ends the text.
    pub mask: Tensor,
    /// For each text and column, the characters (not bytes) of the text that the token stands for; `None` for the tokens of
    /// start, end and padding.
    pub spans: Vec<Vec<Option<Range<usize>>>>,
    /// For each text, its end if that did not fit; `None` if the whole text did.
    pub truncated: Vec<Option<String>>,
}

/// Texts embedded by CLIP: one embedding per token, and one per text.
#[derive(Debug)]
pub struct EncodedClip {
    /// [n, tokens, width] f32: the output of the last layer, after the final norm. Zero after the token that ends the text.
    pub tokens: Tensor,
    /// [n, tokens, width] f32: the output of the last layer but one, without a norm ("CLIP skip"). Zero after the token that
    /// ends the text.
    pub penultimate: Tensor,
    /// [n, projection] f32: the embedding of the whole text, in the space that texts and pictures share; [n, width] if the
    /// model has no projection. Not normalised.
    pub pooled: Tensor,
    /// As in [`Encoded`].
    pub mask: Tensor,
    /// As in [`Encoded`].
    pub spans: Vec<Vec<Option<Range<usize>>>>,
    /// As in [`Encoded`].
    pub truncated: Vec<Option<String>>,
}

/// Returns `x`, or an error if it holds a NaN or an infinity.
pub(crate) fn finite(x: Tensor, what: &str) -> Result<Tensor> {
    if x.f_isfinite()?.f_all()?.f_int64_value(&[])? == 1 {
        return Ok(x);
    }
    Err(ediffi_core::Error::NotFinite(what.to_owned()))
}

/// Reads the configuration at `path`. If it names a `model_type`, this has to be one of `types`.
///
/// # Errors
/// A file that is missing or no JSON, or [`Error::Architecture`].
pub(crate) fn read_config(path: &Path, types: &[&str], expected: &'static str) -> crate::Result<Value> {
    let json: Value = read_json(path)?;
    match json.get("model_type").and_then(Value::as_str) {
        Some(found) if !types.contains(&found) => {
            Err(Error::Architecture { path: path.to_owned(), expected, found: found.to_owned() })
        }
        _ => Ok(json),
    }
}

/// Reads the keys of a configuration that `T` has.
pub(crate) fn parse_config<T: DeserializeOwned>(path: &Path, json: Value) -> crate::Result<T> {
    serde_json::from_value(json)
        .map_err(|source| ediffi_core::Error::Json { path: path.to_owned(), source: told_json(source) }.into())
}
