//! Stable Diffusion 1, 2, XL and its refiner: their layout, and the reading of their published configurations.

mod beside;
mod diffusers;
mod network;
#[cfg(test)]
mod parity;
mod source;

pub use beside::{Beside, Place};
pub use diffusers::PublishedStableDiffusion;
pub use network::{LatentLevel, StableDiffusion, Transformers};
