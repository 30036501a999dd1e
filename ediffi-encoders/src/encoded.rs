//! What the encoders hand out, and what they share.

use std::ops::Range;
use std::path::Path;

use ediffi_core::Result;
use ediffi_core::files::read_json;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::Tensor;

use crate::Error;

/// What stands in the columns after the token that ends a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// Zeros: [`T5::encode`](crate::T5::encode).
    Zeros,
    /// What the network makes of the filling: [`T5::encode_filled`](crate::T5::encode_filled).
    Embedded,
}

/// Embedded texts, one embedding per token. Columns are the positions of tokens.
#[derive(Debug)]
pub struct Encoded {
    /// [n, tokens, width] f32.
    pub tokens: Tensor,
    /// What `tokens` holds after the token that ends a text.
    pub filling: Filling,
    /// [n, tokens] bool, on the device of `tokens`: true up to and including the token that ends the text.
    pub mask: Tensor,
    /// Per text and column the range of characters (not bytes) of the text that the token stands for; `None` for tokens
    /// that stand for nothing in the text: start, end, filling.
    pub spans: Vec<Vec<Option<Range<usize>>>>,
    /// Per text the end of it that did not fit, `None` if all did.
    pub truncated: Vec<Option<String>>,
}

/// Texts embedded by CLIP: [`Encoded`], and one embedding per text.
#[derive(Debug)]
pub struct EncodedClip {
    /// [n, tokens, width] f32, after the last layer and the final norm; zero after the token that ends the text.
    pub tokens: Tensor,
    /// [n, tokens, width] f32, after the last layer but one, without a norm; zero after the token that ends the text.
    pub penultimate: Tensor,
    /// [n, projection] f32: the whole text, in the space of pictures; [n, width] where the model has no projection. Not
    /// normalised.
    pub pooled: Tensor,
    /// As in [`Encoded`].
    pub mask: Tensor,
    /// As in [`Encoded`].
    pub spans: Vec<Vec<Option<Range<usize>>>>,
    /// As in [`Encoded`].
    pub truncated: Vec<Option<String>>,
}

/// `x`, unless it holds a NaN or an infinity.
pub(crate) fn finite(x: Tensor, what: &str) -> Result<Tensor> {
    if x.f_isfinite()?.f_all()?.f_int64_value(&[])? == 1 {
        return Ok(x);
    }
    Err(ediffi_core::Error::NotFinite { what: what.to_owned() })
}

/// The configuration at `path`, whose `model_type`, if it names one, has to be one of `types`.
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

/// The part of a configuration that `T` holds.
pub(crate) fn parse_config<T: DeserializeOwned>(path: &Path, json: Value) -> crate::Result<T> {
    serde_json::from_value(json).map_err(|source| ediffi_core::Error::Json { path: path.to_owned(), source }.into())
}
