//! Layers: plain structs of loaded tensors with one `forward` each.
//!
//! Every layer brings its parameters to the precision of its input (free when they are in it already), so that training
//! in bf16 with f32 master weights and inference in bf16 are the same code.

mod attention;
mod conv;
mod linear;
mod norm;

pub use attention::{ScoreBias, Site, attend, attend_biased, merge_heads, split_heads};
pub use conv::{Conv2d, channels_last};
pub use linear::{Embedding, Linear};
pub use norm::{GroupNorm, LayerNorm, MapNorm, Norm, RmsNorm};
