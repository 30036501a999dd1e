//! Captioned scenes made of open vector icons: what ediffi's small model is trained on.
//!
//! [`sampler::Sampler`] makes a [`scene::Scene`] from a seed and an index: one to three objects in one style, where
//! they are, what lies behind them, and the caption. [`render::Renderer`] draws it at any resolution, from the drawings
//! of a [`pack::Pack`], which `cargo xtask icons` builds from npm packages of a pinned version.
//!
//! ```no_run
//! use train_icons::{config::SamplerConfig, pack::{self, Pack}, render::Renderer, sampler::Sampler, split::Split};
//!
//! # fn main() -> train_icons::error::Result<()> {
//! let sampler = Sampler::new(SamplerConfig::small())?;
//! let renderer = Renderer::new(&Pack::open(pack::DEFAULT_PATH)?)?;
//! let scene = sampler.scene(7, 0, Split::Train)?;
//! let (small, large) = (renderer.render(&scene, 64)?, renderer.render(&scene, 256)?);
//! println!("{}: {} and {} bytes", scene.caption, small.len(), large.len());
//! # Ok(())
//! # }
//! ```

pub mod assemble;
pub mod background;
pub mod caption;
pub mod colour;
pub mod concepts;
pub mod config;
pub mod dice;
pub mod dimensions;
pub mod error;
pub mod icon_set;
pub mod layout;
pub mod pack;
pub mod progress;
pub mod render;
pub mod sampler;
pub mod scene;
pub mod sheet;
pub mod split;
pub mod sprite;
