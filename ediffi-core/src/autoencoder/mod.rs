//! AutoencoderKL: from pictures to the latents of a latent diffusion model and back (Rombach et al. 2022, "High-Resolution Image Synthesis
//! with Latent Diffusion Models"; the networks of diffusers' `AutoencoderKL`).
//!
//! [`Encoder`] and [`Decoder`] are two networks of one file, each loaded on its own: who only draws needs no encoder. Both speak of latents
//! as a U-Net sees them, scaled by [`AutoencoderConfig::scaling_factor`].

mod attention;
mod blocks;
mod config;
mod decoder;
mod diffusers;
mod encoder;
mod file;
#[cfg(test)]
mod parity;
mod preview;
mod tiled;

pub use attention::AttentionWeights;
pub use config::AutoencoderConfig;
pub use decoder::Decoder;
pub use encoder::{Encoder, Moments};
