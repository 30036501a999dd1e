//! CLIP (Radford et al. 2021): a text encoder and a picture encoder into one space.

mod config;
mod encoder;
mod file;
mod halves;
mod names;
mod picture;
mod preprocess;
mod text;
mod transformer;
mod vision;

pub use config::{ClipConfig, ClipTextConfig, ClipVisionConfig};
pub use encoder::Clip;
#[cfg(feature = "hub")]
pub(crate) use file::has_text;
pub use halves::{ClipText, ClipVision};
pub use names::{text_names, vision_names};
pub use picture::{open_picture, picture, rgb8};
pub use preprocess::{CHANNEL_MEAN, CHANNEL_STD, Preprocess};
pub use text::ClipTextNetwork;
pub use transformer::ClipOutput;
pub use vision::ClipVisionNetwork;
