//! Stages and the cascade: from embeddings and seeds to a picture.
//!
//! A [`Stage`] is an ensemble of expert denoisers at one resolution with its sampler settings; a [`Cascade`] runs stages
//! in order, each enlarging the picture of the one before (eDiff-I §3: 64 → 256 → 1024). Here are the parts between the
//! denoisers of [`ediffi_core`] and a finished picture:
//!
//! - [`StageConfig`], one entry of `stages` in a model folder's `pipeline.json`;
//! - [`Stage::plan`] and [`Stage::sample`], watched and stopped by a [`StageObserver`];
//! - [`low_res`], how the smaller picture becomes a condition, and how training spoils it;
//! - [`Tiling`], for pictures whose feature maps do not fit in memory: every evaluation of the network is cut into
//!   overlapping tiles, so that any solver works and the noise never sees a seam.

mod cascade;
mod config;
mod diagnosis;
mod enlarger;
mod error;
mod expert;
mod experts;
mod files;
pub mod low_res;
mod multiple;
mod observer;
mod settings;
mod stage;
mod tiled;
mod tiling;

pub use cascade::{Cascade, CascadeJob, StageOptions};
pub use config::{ExpertConfig, PreconditionConfig, SamplerConfig, StageConfig};
pub use enlarger::Enlarger;
pub use error::{Error, Result};
pub use files::ExpertFiles;
pub use observer::{StageEvent, StageObserver};
pub use settings::SamplerSettings;
pub use stage::{Stage, StageJob};
pub use tiling::{Tile, Tiling, TilingError, WeightedTile};
