//! Layers: structs of loaded tensors with one `forward` each.
//!
//! Every layer converts its parameters to the precision of its input, which is free if they have it already. So training in
//! bf16 with f32 master weights and inference in bf16 are the same code.

mod activation;
mod attention;
mod conv;
mod fused;
mod linear;
mod norm;
mod packed;
mod score_bias;
mod shape;
mod site;

pub use activation::Activation;
pub use attention::{attend, attend_biased, attend_biased_masked, attend_masked, merge_heads, split_heads};
pub use conv::{Conv2d, channels_last};
pub(crate) use fused::Around;
pub use linear::{Embedding, Linear};
pub use norm::{GroupNorm, LayerNorm, MapNorm, Norm, RmsNorm};
pub use score_bias::{Bias, LowRank, Painted, ScoreBias};
pub(crate) use shape::add_to;
pub use shape::{chunks, map_to_tokens, tokens_to_map};
pub use site::Site;
