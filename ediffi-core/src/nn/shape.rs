//! Changes of shape between feature maps, tokens and parts, and the sum that ends a residual branch.

use tch::Tensor;

use crate::{Error, Result};

/// [n, c, h, w] → [n, h·w, c]; free for a channels-last map.
///
/// # Errors
/// A tensor that is not four-dimensional.
pub fn map_to_tokens(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.size4()?;
    Ok(x.f_permute([0, 2, 3, 1])?.f_reshape([n, h * w, c])?)
}

/// [n, h·w, c] → the shape of `like`, channels-last.
///
/// # Errors
/// Shapes that do not fit.
pub fn tokens_to_map(tokens: &Tensor, like: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = like.size4()?;
    Ok(tokens.f_reshape([n, h, w, c])?.f_permute([0, 3, 1, 2])?)
}

/// `sum + x` for a `sum` that nobody else holds. It is written over, unless a gradient goes through the addition.
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn add_to(mut sum: Tensor, x: &Tensor) -> Result<Tensor> {
    let in_place = !sum.requires_grad() && !x.requires_grad() && sum.kind() == x.kind() && sum.size() == x.size();
    Ok(if in_place { sum.f_add_(x)? } else { sum.f_add(x)? })
}

/// `N` equal parts along `axis`.
///
/// # Errors
/// [`Error::Internal`] if the axis has fewer elements than parts.
pub fn chunks<const N: usize>(x: &Tensor, axis: i64) -> Result<[Tensor; N]> {
    let parts = x.f_chunk(N as i64, axis)?;
    parts.try_into().map_err(|_| Error::Internal("a tensor cannot be cut into its parts"))
}
