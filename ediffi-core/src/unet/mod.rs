//! The U-Net: one implementation, driven by a configuration that is stored with the weights.
//!
//! It covers eDiff-I's base (ADM with cross-attention) and its super-resolution networks (Efficient U-Net), small
//! networks over patches of pixels, and the published networks of DeepFloyd IF ([`PublishedUNet`] reads their
//! configuration).

mod blocks;
mod builder;
mod config;
mod context;
mod deepfloyd;
mod diffusers;
mod joint;
mod network;
#[cfg(test)]
mod parity;
mod presets;

pub use config::{ClipText, ContextConfig, Layout, Level, Tokens, UNetConfig};
pub use context::Context;
pub use deepfloyd::{Activation, DeepFloyd, TEXT_TOKENS};
pub use diffusers::PublishedUNet;
pub use network::{Painted, UNet};
