//! T5 v1.1 (Raffel et al. 2020; Shazeer 2020), the encoder half.

mod bucket;
mod config;
mod encoder;
mod network;
mod product;

pub use config::{FeedForwardKind, T5Config};
pub use encoder::{T5, names};
pub use network::T5Network;
pub use product::T5Weights;
