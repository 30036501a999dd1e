//! Stages and the cascade: from embeddings and seeds to a picture.
//!
//! A [`Stage`] is an ensemble of expert denoisers at one resolution with its sampler settings; a [`Cascade`] runs stages
//! in order, each enlarging the picture of the one before (eDiff-I §3: 64 → 256 → 1024). Here are the parts between the
//! denoisers of [`ediffi_core`] and a finished picture:
//!
//! - [`StageConfig`], one entry of `stages` in a model folder's `pipeline.json`;
//! - [`Cascade::plan`], which says what will run, and [`Cascade::run`], the one loop of stages: batches, events, and a
//!   [`StageObserver`] that may stop it;
//! - [`low_res`], how the smaller picture becomes a condition;
//! - [`Tiling`], for pictures whose feature maps do not fit in memory: every evaluation of the network is cut into
//!   overlapping tiles, so that any solver works and the noise never sees a seam;
//! - [`Stage::with_decoder`], for a stage that draws latents and decodes them when it is done;
//! - [`Prior`], which draws the embeddings of images that the stages of unCLIP see, before them;
//! - [`Enlarger`], one evaluation of a plain network after the last stage.

mod cascade;
mod config;
mod decoding;
mod denoiser;
mod diagnosis;
mod edit;
mod enlarger;
mod enlarging;
mod error;
mod expert;
mod expert_files;
mod jumps;
mod latent;
mod layout;
pub mod low_res;
mod mix;
mod observer;
mod owners;
mod plan;
mod prior;
mod run;
mod sample;
mod settings;
pub mod sizes;
mod stage;
mod tiled;
mod tiling;

pub use cascade::Cascade;
pub use config::{ExpertConfig, PreconditionConfig, StageConfig, WeakerConfig};
pub use decoding::Decoding;
pub use edit::Edit;
pub use enlarger::Enlarger;
pub use error::{Error, Result};
pub use expert_files::ExpertFiles;
pub use jumps::Jumps;
pub use latent::AutoencoderFiles;
pub use mix::{Mixed, Share};
pub use observer::{Batch, StageEvent, StageObserver};
pub use owners::{Owned, Owners};
pub use plan::StagePlan;
pub use prior::{Prior, PriorFiles, PriorJob};
pub use run::{CascadeJob, StageNoise, Told, ToldExpert};
pub use settings::{ExpertSettings, SamplerSettings, SettingsPatch};
pub use stage::Stage;
pub use tiling::{Tiling, TilingError};
