//! Scaled dot-product attention, and the hook through which paint-with-words reaches its scores.

use tch::{Kind, Tensor};

use crate::Result;
use crate::window::Window;

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
    /// The part of the picture that the feature map shows.
    pub window: Window,
    /// q·k / √d of the text columns, f32, [conditional rows, heads, height·width, text columns]. Columns are the T5
    /// tokens, then the CLIP text tokens.
    pub scores: &'a Tensor,
    /// Queries of the conditional rows, and keys of the columns after the text.
    others: Option<(&'a Tensor, &'a Tensor)>,
}

impl<'a> Site<'a> {
    /// A site that shows the whole picture, with these scores, of a layer without other columns.
    #[must_use]
    pub fn new(sigma: f64, height: i64, width: i64, scores: &'a Tensor) -> Self {
        Self { sigma, height, width, window: Window::WHOLE, scores, others: None }
    }

    /// The same site in a network that sees a part of the picture.
    #[must_use]
    pub fn showing(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// q·k / √d of the columns after the text, computed when asked for: in eDiff-I's layers the CLIP image where the network takes
    /// one, then the null token; in DeepFloyd's the pixels. Empty for a site that was made without them.
    ///
    /// # Shapes
    /// → f32 [conditional rows, heads, height·width, other columns]
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn other_scores(&self) -> Result<Tensor> {
        match self.others {
            Some((q, k)) => scaled_scores(q, k),
            None => Ok(self.scores.f_narrow(-1, 0, 0)?),
        }
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

/// Paint-with-words for one evaluation of a network.
#[derive(Debug, Clone, Copy)]
pub struct Painted<'a> {
    /// What biases the scores.
    pub hook: &'a dyn ScoreBias,
    /// Noise level of this evaluation.
    pub sigma: f64,
    /// How many rows, from the first, are conditional. The hook does not see the others.
    pub conditional: i64,
    /// The part of the picture that the network sees.
    pub window: Window,
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
    (height, width): (i64, i64),
    text: i64,
    painted: Painted<'_>,
) -> Result<Tensor> {
    let Painted { hook, sigma, conditional, window } = painted;
    if text < 1 || conditional < 1 {
        return attend(q, k, v);
    }
    let (n, heads, queries, _) = q.size4()?;
    let keys = k.size4()?.2;
    let first = |x: &Tensor| x.f_narrow(0, 0, conditional);
    let (q_painted, k_painted, v_painted) = (first(q)?, first(k)?, first(v)?);
    let scores = scaled_scores(&q_painted, &k_painted.f_narrow(2, 0, text)?)?;
    let other_keys = k_painted.f_narrow(2, text, keys - text)?;
    let site = Site { sigma, height, width, window, scores: &scores, others: Some((&q_painted, &other_keys)) };
    let Some(bias) = hook.bias(&site)? else {
        return attend(q, k, v);
    };
    // The fused kernel takes an additive mask over all columns; zero where nothing is painted.
    let bias = bias.f_to_kind(q.kind())?.f_expand([conditional, heads, queries, text], false)?;
    let mask = bias.f_constant_pad_nd([0, keys - text])?;
    let biased = Tensor::f_scaled_dot_product_attention(
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
        return Ok(biased);
    }
    let rest = |x: &Tensor| x.f_narrow(0, conditional, n - conditional);
    let others = attend(&rest(q)?, &rest(k)?, &rest(v)?)?;
    Ok(Tensor::f_cat(&[biased, others], 0)?)
}

/// q kᵀ / √d in f32. Scaling the keys is cheaper than scaling the scores, of which there are more.
fn scaled_scores(q: &Tensor, k: &Tensor) -> Result<Tensor> {
    let d = q.size4()?.3 as f64;
    let k = k.f_to_kind(Kind::Float)?.f_mul_scalar(d.powf(-0.5))?;
    Ok(q.f_to_kind(Kind::Float)?.f_matmul(&k.f_transpose(2, 3)?)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tch::Device;

    use super::*;
    use crate::noise::NoiseSource as _;
    use crate::seed::Noise;

    /// Keeps the scores of all columns.
    #[derive(Debug, Default)]
    struct Keep(Mutex<Option<Tensor>>);

    impl ScoreBias for Keep {
        fn bias(&self, site: &Site<'_>) -> Result<Option<Tensor>> {
            *self.0.lock().unwrap() = Some(Tensor::f_cat(&[site.scores, &site.other_scores()?], -1)?);
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
