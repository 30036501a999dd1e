//! Attention of the deepest pixels to each other.

use tch::Tensor;

use super::config::EPS;
use crate::Result;
use crate::nn::{GroupNorm, Linear, add_to, attend, map_to_tokens, tokens_to_map};
use crate::weights::Scope;

/// How a file holds the weights of the attention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AttentionWeights {
    /// As matrices, [width, width].
    #[default]
    Matrices,
    /// As 1×1 convolutions, [width, width, 1, 1]: early conversions.
    Convolutions,
}

/// Pixels attend to each other, with one head of all channels.
#[derive(Debug)]
pub(super) struct Attention {
    norm: GroupNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

impl Attention {
    /// Over maps of `width` channels.
    pub(super) fn new(mut scope: Scope<'_>, width: i64, groups: i64, weights: AttentionWeights) -> Result<Self> {
        let norm = GroupNorm::new(scope.at("group_norm"), width, groups, EPS)?;
        let mut map = |name: &str| match weights {
            AttentionWeights::Matrices => Linear::new(scope.at(name), width, width),
            AttentionWeights::Convolutions => Linear::pointwise(scope.at(name), width, width),
        };
        Ok(Self { norm, q: map("to_q")?, k: map("to_k")?, v: map("to_v")?, out: map("to_out.0")? })
    }

    pub(super) fn forward(&self, h: &Tensor) -> Result<Tensor> {
        let pixels = map_to_tokens(&self.norm.forward(h)?)?;
        let head = |layer: &Linear| -> Result<Tensor> { Ok(layer.forward(&pixels)?.f_unsqueeze(1)?) };
        let attended = attend(&head(&self.q)?, &head(&self.k)?, &head(&self.v)?)?.f_squeeze_dim(1)?;
        add_to(tokens_to_map(&self.out.forward(&attended)?, h)?, h)
    }
}
