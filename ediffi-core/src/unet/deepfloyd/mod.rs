//! DeepFloyd IF: its layout, and the reading of its published configurations.

mod diffusers;
mod network;
#[cfg(test)]
mod parity;

pub use diffusers::PublishedUNet;
pub use network::{DeepFloyd, Switches, TEXT_TOKENS};
