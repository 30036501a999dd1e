//! CLIP (Radford et al. 2021): a text encoder and a picture encoder into one space.

mod config;
mod encoder;
mod halves;
mod picture;
mod preprocess;
mod text;
mod transformer;
mod vision;

pub use config::{ClipConfig, ClipTextConfig, ClipVisionConfig};
pub use encoder::{Clip, text_names, vision_names};
#[cfg(feature = "hub")]
pub(crate) use halves::has_text;
pub use halves::{ClipText, ClipVision};
pub use picture::{open_picture, picture, rgb8};
pub use preprocess::Preprocess;
pub use text::ClipTextNetwork;
pub use transformer::ClipOutput;
pub use vision::ClipVisionNetwork;
