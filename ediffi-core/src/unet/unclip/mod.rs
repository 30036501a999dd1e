//! unCLIP (Karlo): the layout of its decoder and of its super-resolution, and the reading of their published configurations.

mod diffusers;
mod network;
#[cfg(test)]
mod parity;
mod source;

pub use diffusers::PublishedUnClip;
pub use network::{UnClip, UnClipSwitches};
