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

/// As [`attend`] with `mask` added to the scores, if there is one: 0, or a number so low that nothing is left of a column.
///
/// # Shapes
/// `mask`: one that broadcasts to [n, heads, a, b]
///
/// # Errors
/// Shapes that do not fit.
pub fn attend_masked(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let mask = mask.map(|mask| mask.f_to_kind(q.kind())).transpose()?;
    fused(q, k, v, mask.as_ref(), None)
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
    attend_biased_masked(q, k, v, size, text, None, painted)
}

/// As [`attend_biased`] with `mask` added to the scores of all rows, if there is one. The hook sees the scores without it.
///
/// # Shapes
/// As [`attend_biased`]; `mask`: [n, 1, 1, b]
///
/// # Errors
/// As [`attend_biased`].
pub fn attend_biased_masked(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    size: (i64, i64),
    text: i64,
    mask: Option<&Tensor>,
    painted: Painted<'_>,
) -> Result<Tensor> {
    let Painted { hook, sigma, conditional, window } = painted;
    if text < 1 || conditional < 1 {
        return attend_masked(q, k, v, mask);
    }
    let n = q.size4()?.0;
    let first = |x: &Tensor| x.f_narrow(0, 0, conditional);
    let (q_painted, k_painted, v_painted) = (first(q)?, first(k)?, first(v)?);
    let site = Site::of_layer(sigma, size, window, (&q_painted, &k_painted), text);
    let Some(bias) = hook.bias(&site)? else {
        return attend_masked(q, k, v, mask);
    };
    let biased = match mask.map(first).transpose()? {
        Some(mask) => attend_dense(&q_painted, &k_painted, &v_painted, text, bias, Some(&mask))?,
        None => add_and_attend(&q_painted, &k_painted, &v_painted, text, &site, bias)?,
    };
    if conditional == n {
        return Ok(biased);
    }
    let rest = |x: &Tensor| x.f_narrow(0, conditional, n - conditional);
    let others = attend_masked(&rest(q)?, &rest(k)?, &rest(v)?, mask.map(rest).transpose()?.as_ref())?;
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
    match bias {
        Bias::LowRank { weight, matrix } if matrix.width() <= q.size4()?.3 && weight.size().last() == Some(&1) => {
            attend_widened(q, k, v, &weight, &matrix)
        }
        bias => attend_dense(q, k, v, text, bias, None),
    }
}

/// The same by the fused kernel with an additive mask over all columns; zero where nothing is painted. `mask` is added to it.
fn attend_dense(q: &Tensor, k: &Tensor, v: &Tensor, text: i64, bias: Bias, mask: Option<&Tensor>) -> Result<Tensor> {
    let (rows, heads, queries, _) = q.size4()?;
    let bias = bias.into_dense()?.f_to_kind(q.kind())?.f_expand([rows, heads, queries, text], false)?;
    let bias = bias.f_constant_pad_nd([0, k.size4()?.2 - text])?;
    attend_masked(q, k, v, Some(&mask.map_or(Ok(bias.shallow_clone()), |mask| bias.f_add(mask))?))
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

    /// A column that is masked counts for nothing, painted or not, in all rows.
    #[test]
    fn what_is_masked_counts_for_nothing() {
        #[derive(Debug)]
        struct Pull(f64);
        impl ScoreBias for Pull {
            fn bias(&self, site: &Site<'_>) -> Result<Option<Bias>> {
                let bias = site.scores()?.f_zeros_like()?;
                let _ = bias.f_narrow(3, 0, 1)?.f_fill_(self.0)?;
                Ok(Some(Bias::Dense(bias)))
            }
        }
        let draw = |stage, tokens| Noise::new(&[1, 2], stage).normal(&[2, 3, tokens, 4]).unwrap();
        let (q, k, v) = (draw(1, 6), draw(2, 5), draw(3, 5));
        // The third of four words is not there; the fifth column is none.
        let mask = Tensor::from_slice(&[0.0_f32, 0.0, -1e4, 0.0, 0.0]).reshape([1, 1, 1, 5]).repeat([2, 1, 1, 1]);
        let left = |x: &Tensor| Tensor::cat(&[x.narrow(2, 0, 2), x.narrow(2, 3, 2)], 2);
        let close = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-6;
        let without = attend(&q, &left(&k), &left(&v)).unwrap();
        assert!(close(&attend_masked(&q, &k, &v, Some(&mask)).unwrap(), &without));
        for conditional in [0, 1, 2] {
            let hook = Pull(2.0);
            let painted = Painted { hook: &hook, sigma: 1.0, conditional, window: Window::WHOLE };
            let found = attend_biased_masked(&q, &k, &v, (2, 3), 4, Some(&mask), painted).unwrap();
            let expected = attend_biased(&q, &left(&k), &left(&v), (2, 3), 3, painted).unwrap();
            assert!(close(&found, &expected), "{conditional}");
            assert_eq!(close(&found, &without), conditional == 0);
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
