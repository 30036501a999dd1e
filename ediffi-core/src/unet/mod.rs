//! The U-Net: one implementation, driven by a configuration that is stored with the weights.
//!
//! It covers eDiff-I's base (ADM with cross-attention) and its super-resolution networks (Efficient U-Net), and small
//! networks over patches of pixels.

mod blocks;
mod config;
mod context;
mod network;
mod presets;

pub use config::{ClipText, ContextConfig, Layout, Level, Tokens, UNetConfig};
pub use context::Context;
pub use network::{Painted, UNet};
