//! The prior: a transformer that draws the CLIP embedding of an image from that of a text (Ramesh et al. 2022, "Hierarchical Text-Conditional
//! Image Generation with CLIP Latents", section 2.2; Karlo).
//!
//! It is a denoiser's network like a U-Net, of vectors in the place of pictures. Its attention looks back alone, and the text stands first. So what
//! the layers make of the text is the same at every noise level: it is computed once for a whole generation ([`PriorContext`]), and a
//! step computes three tokens of Karlo's 81.

mod config;
mod network;
#[cfg(test)]
mod parity;

pub use config::PriorConfig;
pub use network::{Prior, PriorContext};
