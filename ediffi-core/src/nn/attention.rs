//! Scaled dot-product attention, and the hook through which paint-with-words reaches its scores.

use tch::{Kind, Tensor};

use crate::Result;

/// One cross-attention layer at one noise level, as a [`ScoreBias`] sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Site<'a> {
    /// Noise level of this evaluation.
    pub sigma: f64,
    /// Height of the feature map.
    pub height: i64,
    /// Width of the feature map.
    pub width: i64,
    /// q·k / √d of the text columns, f32, [conditional rows, heads, height·width, text columns]. Columns are the T5
    /// tokens, then the CLIP text tokens.
    pub scores: &'a Tensor,
}

impl<'a> Site<'a> {
    /// A site with these scores.
    #[must_use]
    pub fn new(sigma: f64, height: i64, width: i64, scores: &'a Tensor) -> Self {
        Self { sigma, height, width, scores }
    }
}

/// Something that pulls parts of the picture towards words: paint-with-words (eDiff-I §4.3).
pub trait ScoreBias: std::fmt::Debug + Send {
    /// What to add to the scores of the text columns of the conditional rows; `None` leaves the layer on its fast path.
    ///
    /// # Shapes
    /// → broadcastable to `site.scores`
    ///
    /// # Errors
    /// Whatever keeps the bias from being made.
    fn bias(&self, site: &Site<'_>) -> Result<Option<Tensor>>;
}

/// # Shapes
/// [n, tokens, heads·d] → [n, heads, tokens, d]
///
/// # Errors
/// A width that `heads` does not divide.
pub fn split_heads(x: &Tensor, heads: i64) -> Result<Tensor> {
    let (n, tokens, width) = x.size3()?;
    Ok(x.f_reshape([n, tokens, heads, width / heads.max(1)])?.f_transpose(1, 2)?)
}

/// # Shapes
/// [n, heads, tokens, d] → [n, tokens, heads·d]
///
/// # Errors
/// A tensor that is not four-dimensional.
pub fn merge_heads(x: &Tensor) -> Result<Tensor> {
    let (n, heads, tokens, d) = x.size4()?;
    Ok(x.f_transpose(1, 2)?.f_reshape([n, tokens, heads * d])?)
}

/// softmax(q kᵀ / √d) v by libtorch's fused kernel.
///
/// # Shapes
/// `q`: [n, heads, a, d], `k` and `v`: [n, heads, b, d] → [n, heads, a, d]
///
/// # Errors
/// Shapes that do not fit.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, false, None, false)?)
}

/// As [`attend`] with the bias of `hook` added to the scores of the first `text` columns of the first `conditional` rows.
/// The other rows go through [`attend`] alone, and so come out as they do without a hook, on the CPU bit for bit.
///
/// # Shapes
/// As [`attend`], with a = `height` · `width`.
///
/// # Errors
/// Shapes that do not fit, or an error of the hook.
#[allow(clippy::too_many_arguments, reason = "three tensors of attention and where in the picture they stand")]
pub fn attend_biased(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    (height, width): (i64, i64),
    text: i64,
    conditional: i64,
    sigma: f64,
    hook: &dyn ScoreBias,
) -> Result<Tensor> {
    let (n, heads, queries, d) = q.size4()?;
    let keys = k.size4()?.2;
    let painted = |x: &Tensor| x.f_narrow(0, 0, conditional);
    // Scaling the keys is cheaper than scaling the scores, of which there are more.
    let text_keys = painted(k)?.f_narrow(2, 0, text)?.f_to_kind(Kind::Float)?.f_mul_scalar((d as f64).powf(-0.5))?;
    let scores = painted(q)?.f_to_kind(Kind::Float)?.f_matmul(&text_keys.f_transpose(2, 3)?)?;
    let Some(bias) = hook.bias(&Site::new(sigma, height, width, &scores))? else {
        return attend(q, k, v);
    };
    // The fused kernel takes an additive mask over all columns; zero where nothing is painted.
    let bias = bias.f_to_kind(q.kind())?.f_expand([conditional, heads, queries, text], false)?;
    let mask = bias.f_constant_pad_nd([0, keys - text])?;
    let (q_painted, k_painted, v_painted) = (painted(q)?, painted(k)?, painted(v)?);
    let first = Tensor::f_scaled_dot_product_attention(
        &q_painted,
        &k_painted,
        &v_painted,
        Some(&mask),
        0.0,
        false,
        None,
        false,
    )?;
    if conditional == n {
        return Ok(first);
    }
    let rest = |x: &Tensor| x.f_narrow(0, conditional, n - conditional);
    let others = attend(&rest(q)?, &rest(k)?, &rest(v)?)?;
    Ok(Tensor::f_cat(&[first, others], 0)?)
}
