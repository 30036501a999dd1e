//! The U-Net: layouts that are stored as data, and one network that runs what they build.
//!
//! A layout is one file beside the others: eDiff-I's base ([`Adm`], after ADM), its super-resolution ([`Efficient`], after
//! Imagen's Efficient U-Net), the published networks of DeepFloyd IF ([`DeepFloyd`], read by [`PublishedUNet`]), those of Stable
//! Diffusion ([`StableDiffusion`], read by [`PublishedStableDiffusion`]) and of unCLIP ([`UnClip`], read by [`PublishedUnClip`]). It holds its dimensions, says what goes in and out ([`Io`]), and
//! builds its network of [`parts`]. [`UNet`] runs any of them, and layouts of your own: implement [`Layout`].

mod adm;
mod config;
mod context;
mod deepfloyd;
mod ediffi;
mod efficient;
mod io;
mod joint_adm;
mod layout;
mod network;
#[cfg(test)]
mod parity;
pub mod parts;
mod pass;
mod stable_diffusion;
mod stem;
mod stored;
mod unclip;

pub use crate::nn::Painted;
pub use adm::Adm;
pub use config::UNetConfig;
pub use context::{Context, ContextSource, Encoded};
pub use deepfloyd::{DeepFloyd, PublishedUNet, Switches, TEXT_TOKENS};
pub use efficient::Efficient;
pub use io::{ClipText, EmbeddingShapes, Io, Tokens};
pub use layout::{Body, Layout};
pub use network::UNet;
pub use parts::{ContextConfig, DETAIL, DetailConfig, Dimensions, Level};
pub use pass::{Block, KeysValues, Pass};
pub use stable_diffusion::{Beside, LatentLevel, Place, PublishedStableDiffusion, StableDiffusion, Transformers};
pub use unclip::{PublishedUnClip, UnClip, UnClipSwitches};
