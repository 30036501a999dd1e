//! The pre-norm transformer that both halves of CLIP are made of.

use ediffi_core::nn::{Activation, LayerNorm, Linear, attend, merge_heads, split_heads};
use ediffi_core::weights::Scope;
use ediffi_core::{Result, interrupt};
use tch::{Kind, Tensor};

use super::config::Dimensions;

/// The tokens that a token attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attending {
    /// Itself and those before it.
    Before,
    /// All.
    All,
}

/// The outputs of a half of CLIP. Columns are the tokens of a text, or the class token of a picture and then its patches, row
/// by row.
#[derive(Debug)]
pub struct ClipOutput {
    /// [n, columns, width] f32: the output of the last layer, for texts after the final norm.
    pub tokens: Tensor,
    /// [n, columns, width] f32: the output of the last layer but one, without a norm.
    pub penultimate: Tensor,
    /// [n, projection] f32: the embedding of the token that ends a text, or the normed class token of a picture, projected into
    /// the space that texts and pictures share; [n, width] in a network without projection. Not normalised.
    pub pooled: Tensor,
}

impl ClipOutput {
    /// `pooled`: [n, width], still to be projected.
    pub(super) fn new(
        tokens: &Tensor,
        penultimate: &Tensor,
        pooled: &Tensor,
        projection: Option<&Linear>,
    ) -> Result<Self> {
        let projected = projection.map(|projection| projection.forward(pooled)).transpose()?;
        Ok(Self {
            tokens: tokens.f_to_kind(Kind::Float)?,
            penultimate: penultimate.f_to_kind(Kind::Float)?,
            pooled: projected.as_ref().unwrap_or(pooled).f_to_kind(Kind::Float)?,
        })
    }
}

/// Layers after each other, named `layers.0`, `layers.1`, ... in a file.
#[derive(Debug)]
pub(super) struct Transformer {
    layers: Vec<Layer>,
    attending: Attending,
}

impl Transformer {
    pub(super) fn new(mut scope: Scope<'_>, dimensions: &Dimensions, attending: Attending) -> Result<Self> {
        let layers = (0..dimensions.layers)
            .map(|index| Layer::new(scope.at(&format!("layers.{index}")), dimensions))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { layers, attending })
    }

    /// The input of the first layer and the output of each layer.
    ///
    /// # Shapes
    /// `x`: [n, tokens, width] → layers + 1 times the same, f32
    pub(super) fn states(&self, x: Tensor) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.layers.len() + 1);
        let _ = self.forward(x, |state| states.push(state.shallow_clone()))?;
        states.iter().map(|state| Ok(state.f_to_kind(Kind::Float)?)).collect()
    }

    /// Calls `seen` with the input of the first layer and the output of each layer.
    ///
    /// # Shapes
    /// `x`: [n, tokens, width] → the same
    fn forward(&self, x: Tensor, mut seen: impl FnMut(&Tensor)) -> Result<Tensor> {
        seen(&x);
        self.layers.iter().try_fold(x, |x, layer| {
            interrupt::check()?;
            let x = layer.forward(&x, self.attending)?;
            seen(&x);
            Ok(x)
        })
    }

    /// The outputs of the last layer but one and of the last layer.
    pub(super) fn forward_last_two(&self, x: Tensor) -> Result<(Tensor, Tensor)> {
        let mut penultimate = x.shallow_clone();
        let (mut layer, last) = (0, self.layers.len());
        let x = self.forward(x, |x| {
            if layer + 1 == last {
                penultimate = x.shallow_clone();
            }
            layer += 1;
        })?;
        Ok((penultimate, x))
    }
}

#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    activation: Activation,
}

impl Layer {
    fn new(mut scope: Scope<'_>, dimensions: &Dimensions) -> Result<Self> {
        let &Dimensions { width, hidden, heads, activation, eps, .. } = dimensions;
        Ok(Self {
            norm1: LayerNorm::new(scope.at("layer_norm1"), width, eps)?,
            q: Linear::new(scope.at("self_attn.q_proj"), width, width)?,
            k: Linear::new(scope.at("self_attn.k_proj"), width, width)?,
            v: Linear::new(scope.at("self_attn.v_proj"), width, width)?,
            out: Linear::new(scope.at("self_attn.out_proj"), width, width)?,
            norm2: LayerNorm::new(scope.at("layer_norm2"), width, eps)?,
            fc1: Linear::new(scope.at("mlp.fc1"), width, hidden)?,
            fc2: Linear::new(scope.at("mlp.fc2"), hidden, width)?,
            heads,
            activation,
        })
    }

    fn forward(&self, x: &Tensor, attending: Attending) -> Result<Tensor> {
        let y = self.norm1.forward(x)?;
        let q = split_heads(&self.q.forward(&y)?, self.heads)?;
        let k = split_heads(&self.k.forward(&y)?, self.heads)?;
        let v = split_heads(&self.v.forward(&y)?, self.heads)?;
        let attended = match attending {
            Attending::All => attend(&q, &k, &v)?,
            Attending::Before => {
                Tensor::f_scaled_dot_product_attention::<Tensor>(&q, &k, &v, None, 0.0, true, None, false)?
            }
        };
        let x = x.f_add(&self.out.forward(&merge_heads(&attended)?)?)?;
        let y = self.fc1.forward(&self.norm2.forward(&x)?)?;
        Ok(x.f_add(&self.fc2.forward(&self.activation.apply(&y)?)?)?)
    }
}
