//! Scaled dot-product attention, plain and with a bias of its scores.

use tch::{Device, Kind, Tensor};

use super::score_bias::{Bias, LowRank, Painted};
use super::site::Site;
use crate::Result;

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
    fused(q, k, v, None, None)
}

/// libtorch's fused kernel. Scores are multiplied by `scale`, 1/√d if there is none, and `mask` is added to them.
fn fused(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, scale: Option<f64>) -> Result<Tensor> {
    Ok(Tensor::f_scaled_dot_product_attention(q, k, v, mask, 0.0, false, scale, false)?)
}

/// As [`attend`] with the hook's bias added to the scores of the first `text` columns of the conditional rows. The other
/// rows go through [`attend`] alone: they come out as without a hook, on the CPU bit for bit.
///
/// # Shapes
/// As [`attend`], with a = `height` · `width` of the feature map.
///
/// # Errors
/// Shapes that do not fit, or an error of the hook.
pub fn attend_biased(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    size: (i64, i64),
    text: i64,
    painted: Painted<'_>,
) -> Result<Tensor> {
    let Painted { hook, sigma, conditional, window } = painted;
    if text < 1 || conditional < 1 {
        return attend(q, k, v);
    }
    let n = q.size4()?.0;
    let first = |x: &Tensor| x.f_narrow(0, 0, conditional);
    let (q_painted, k_painted, v_painted) = (first(q)?, first(k)?, first(v)?);
    let site = Site::of_layer(sigma, size, window, (&q_painted, &k_painted), text);
    let Some(bias) = hook.bias(&site)? else {
        return attend(q, k, v);
    };
    let biased = add_and_attend(&q_painted, &k_painted, &v_painted, text, &site, bias)?;
    if conditional == n {
        return Ok(biased);
    }
    let rest = |x: &Tensor| x.f_narrow(0, conditional, n - conditional);
    let others = attend(&rest(q)?, &rest(k)?, &rest(v)?)?;
    // Heads beside each other in memory, as `merge_heads` wants them.
    let both = [biased.f_transpose(1, 2)?, others.f_transpose(1, 2)?];
    Ok(Tensor::f_cat(&both, 0)?.f_transpose(1, 2)?)
}

/// softmax(q kᵀ / √d + bias) v, on the road that is fastest.
fn add_and_attend(q: &Tensor, k: &Tensor, v: &Tensor, text: i64, site: &Site<'_>, bias: Bias) -> Result<Tensor> {
    // Over few columns the scores are cheap, and the hook may have asked for them anyway.
    if q.device() == Device::Cpu
        && let Some(scores) = site.all_scores()?
    {
        return attend_to(scores, v, text, bias);
    }
    let (rows, heads, queries, d) = q.size4()?;
    match bias {
        Bias::LowRank { weight, matrix } if matrix.width() <= d && weight.size().last() == Some(&1) => {
            attend_widened(q, k, v, &weight, &matrix)
        }
        // The fused kernel takes an additive mask over all columns; zero where nothing is painted.
        bias => {
            let bias = bias.into_dense()?.f_to_kind(q.kind())?.f_expand([rows, heads, queries, text], false)?;
            fused(q, k, v, Some(&bias.f_constant_pad_nd([0, k.size4()?.2 - text])?), None)
        }
    }
}

/// softmax(scores + bias) v, with the bias in the first `text` columns. It writes over the scores.
///
/// # Shapes
/// `scores`: [n, heads, a, b] f32, `v`: [n, heads, b, d] → [n, heads, a, d]
fn attend_to(scores: Tensor, v: &Tensor, text: i64, bias: Bias) -> Result<Tensor> {
    let ((rows, heads, queries, keys), d) = (scores.size4()?, v.size4()?.3);
    let mut words = scores.f_narrow(-1, 0, text)?;
    let _ = match bias {
        Bias::LowRank { weight, matrix } => words.f_addcmul_(&weight, matrix.dense())?,
        Bias::Dense(bias) => words.f_add_(&bias)?,
    };
    let shares = scores.f_softmax(-1, Kind::Float)?.f_view([rows * heads, queries, keys])?;
    let values = v.f_to_kind(Kind::Float)?.f_reshape([rows * heads, keys, d])?;
    Ok(shares.f_bmm(&values)?.f_view([rows, heads, queries, d])?.f_to_kind(v.kind())?)
}

/// softmax(q kᵀ / √d + `weight` · `matrix`) v by the fused kernel without a mask. With `weight` · masks · √d as further columns of q, and the
/// tokens of each mask as further columns of k, q kᵀ / √d is the sum. The kernel wants v as wide.
fn attend_widened(q: &Tensor, k: &Tensor, v: &Tensor, weight: &Tensor, matrix: &LowRank) -> Result<Tensor> {
    let ((rows, heads, queries, d), keys) = (q.size4()?, k.size4()?.2);
    let (root, kind, width) = ((d as f64).sqrt(), q.kind(), matrix.width());
    let (masks, tokens) = matrix.columns();
    let masks = weight.f_mul_scalar(root)?.f_mul(masks)?.f_to_kind(kind)?;
    let tokens = tokens.f_constant_pad_nd([0, 0, 0, keys - tokens.size2()?.0])?.f_to_kind(kind)?;
    let q = Tensor::f_cat(&[q, &masks.f_expand([rows, heads, queries, width], false)?], 3)?;
    let k = Tensor::f_cat(&[k, &tokens.f_expand([rows, heads, keys, width], false)?], 3)?;
    let attended = fused(&q, &k, &v.f_constant_pad_nd([0, width])?, None, Some(root.recip()))?;
    Ok(attended.f_narrow(3, 0, v.size4()?.3)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tch::Device;

    use super::*;
    use crate::nn::ScoreBias;
    use crate::noise::NoiseSource as _;
    use crate::seed::Noise;
    use crate::window::Window;

    /// Keeps the scores of all columns.
    #[derive(Debug, Default)]
    struct Keep(Mutex<Option<Tensor>>);

    impl ScoreBias for Keep {
        fn bias(&self, site: &Site<'_>) -> Result<Option<Bias>> {
            *self.0.lock().unwrap() = Some(Tensor::f_cat(&[site.scores()?, site.other_scores()?], -1)?);
            Ok(None)
        }
    }

    #[test]
    fn a_hook_can_see_the_scores_of_every_column() {
        let draw = |stage, tokens| Noise::new(&[1, 2], stage).normal(&[2, 3, tokens, 4]).unwrap();
        let (q, k) = (draw(1, 6), draw(2, 5));
        let keep = Keep::default();
        let painted = Painted { hook: &keep, sigma: 1.0, conditional: 1, window: Window::WHOLE };
        let _ = attend_biased(&q, &k, &k, (2, 3), 3, painted).unwrap();
        let seen = keep.0.lock().unwrap().take().unwrap();
        let expected = q.narrow(0, 0, 1).matmul(&k.narrow(0, 0, 1).transpose(2, 3)) / 2.0;
        assert!((seen - expected).abs().max().double_value(&[]) < 1e-6);
        let alone = Tensor::zeros([1, 3, 6, 3], (Kind::Float, Device::Cpu));
        assert_eq!(Site::new(1.0, 2, 3, &alone).other_scores().unwrap().size(), [1, 3, 6, 0]);
    }
}
