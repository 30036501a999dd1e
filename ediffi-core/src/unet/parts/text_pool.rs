//! A text as one vector.

use tch::{Device, Tensor};

use crate::Result;
use crate::nn::{LayerNorm, Linear, attend, merge_heads, split_heads};
use crate::weights::{Init, Scope};

/// Pools a text by attention (diffusers' `TextTimeEmbedding`): its mean, with a learned vector added, attends to itself and to
/// all tokens, padding included.
#[derive(Debug)]
pub struct TextPool {
    norm1: LayerNorm,
    position: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    heads: i64,
    out: Linear,
    norm2: LayerNorm,
}

impl TextPool {
    /// From tokens of `text_width` to a vector of `width`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, text_width: i64, width: i64, heads: i64, eps: f64) -> Result<Self> {
        let init = Init::Normal { std: (text_width as f64).sqrt().recip() };
        Ok(Self {
            norm1: LayerNorm::new(scope.at("norm1"), text_width, eps)?,
            position: scope.weight("pool.positional_embedding", &[1, text_width], init)?,
            q: Linear::new(scope.at("pool.q_proj"), text_width, text_width)?,
            k: Linear::new(scope.at("pool.k_proj"), text_width, text_width)?,
            v: Linear::new(scope.at("pool.v_proj"), text_width, text_width)?,
            heads,
            out: Linear::new(scope.at("proj"), text_width, width)?,
            norm2: LayerNorm::new(scope.at("norm2"), width, eps)?,
        })
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> Device {
        self.position.device()
    }

    /// # Shapes
    /// `text`: [rows, tokens, text width] → [rows, width]
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, text: &Tensor) -> Result<Tensor> {
        let tokens = self.norm1.forward(text)?;
        let mean = tokens.f_mean_dim(1_i64, true, tokens.kind())?;
        let class = mean.f_add(&self.position.f_to_kind(tokens.kind())?)?;
        let all = Tensor::f_cat(&[&class, &tokens], 1)?;
        let heads = |layer: &Linear, x: &Tensor| split_heads(&layer.forward(x)?, self.heads);
        let attended = attend(&heads(&self.q, &class)?, &heads(&self.k, &all)?, &heads(&self.v, &all)?)?;
        let pooled = merge_heads(&attended)?.f_squeeze_dim(1)?;
        self.norm2.forward(&self.out.forward(&pooled)?)
    }
}
