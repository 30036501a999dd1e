//! Training of ediffi's expert denoisers.
//!
//! The modules, from the outside in: [`plan`] says as data which networks an ensemble is trained as ([`tree`], [`noise_cell`]), who
//! starts from whom, for how long and how fast. [`fit`] trains one of them on [`batch`]es, made from a [`dataset`]. [`run`] is its loop: [`prefetch`] makes
//! batches on a background thread, [`data_parallel`] workers compute their loss, the [`optimizer`] updates the weights, [`state`] averages
//! them and writes all of it to a checkpoint, [`lineage`] guards what a checkpoint may be resumed beside, and [`log`] records the loss.
//! [`learner`] is the loss of a base or of super-resolution: [`corruption`] spoils the smaller pictures, [`dropout`] drops embeddings,
//! [`noise`] draws noise levels and [`loss`] is the denoising loss. A [`lock`] keeps a second job out of a folder. With [`reduce`], several processes train one network together; [`waves`]
//! are networks that can be trained side by side.
//!
//! # Example
//!
//! A tiny network on pictures of noise, and one expert that starts from it:
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::path::{Path, PathBuf};
//! use std::time::Duration;
//!
//! use ediffi_core::conditioning::Conditioning;
//! use ediffi_core::interval::{LogNormal, SigmaInterval};
//! use ediffi_core::nn::Norm;
//! use ediffi_core::precondition::Edm;
//! use ediffi_core::unet::{Dimensions, Efficient, Level};
//! use ediffi_core::weights::Params;
//! use ediffi_train::Error;
//! use ediffi_train::batch::Batch;
//! use ediffi_train::fit::{Setup, fit};
//! use ediffi_train::learner::{Learner, Objective};
//! use ediffi_train::lineage::Lineage;
//! use ediffi_train::noise::NoiseLevels;
//! use ediffi_train::optimizer::AdamWSettings;
//! use ediffi_train::random::{batch_rng, normal};
//! use ediffi_train::run::{Begin, Run};
//! use ediffi_train::tree::Configuration;
//! use tch::{Device, Kind};
//!
//! /// Four pictures, of which nothing is said.
//! fn pictures(number: u64) -> Result<Batch<()>, Error> {
//!     let pictures = normal(&mut batch_rng(3, number), &[4, 3, 8, 8])?.f_tanh()?;
//!     Ok(Batch { pictures, smaller: None, text: () })
//! }
//!
//! /// Trains the network `name` for two steps and exports it. Called again, it goes on from its checkpoint.
//! fn train(folder: &Path, name: &str, interval: SigmaInterval, parent: Option<PathBuf>) -> Result<PathBuf, Error> {
//!     let level = Level { multiplier: 1, blocks: 1, self_attention: false, cross_attention: false };
//!     let config = Efficient(Dimensions {
//!         picture_channels: 3,
//!         low_res: false,
//!         patch: 2,
//!         channels: 8,
//!         levels: vec![level],
//!         head_channels: 8,
//!         norm: Norm::Group(4),
//!         embedding_width: 16,
//!         context: None,
//!         detail: None,
//!     });
//!     let objective = Objective::new(Edm::default(), NoiseLevels::new(LogNormal::default(), interval), 7);
//!     let learner = |params: &mut dyn Params| {
//!         let encode = |_: &Batch<()>| Ok(Conditioning::default());
//!         let learner = Learner::new(params, &config, Kind::Float, objective.clone(), encode)?;
//!         Ok(move |number, batch: Batch<()>| learner.loss(number, &batch))
//!     };
//!     let (checkpoint_every, lineage) = (Duration::from_secs(180), Lineage::default().with("batch", 4));
//!     let (begin, steps, batch, accumulate, first_batch) = (Begin::Resume, 2, 4, 1, 0);
//!     let run = Run { name, folder, begin, steps, batch, accumulate, first_batch, checkpoint_every, lineage };
//!     let optimizer = AdamWSettings { learning_rate: 1e-3, warm_up: 2, ..AdamWSettings::default() };
//!     let setup = Setup { seed: 1, parent, device: Device::Cpu, kind: Kind::Float, optimizer, ema: 0.999, workers: 1 };
//!     let state = fit(&run, &setup, pictures, learner, |_, _| Ok(ControlFlow::Continue(())))?;
//!     let weights = folder.join(format!("{name}.safetensors"));
//!     state.export(&weights, "", Kind::Float, run.lineage.notes())?;
//!     Ok(weights)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let folder = temporary.path();
//! let shared = train(folder, "shared", SigmaInterval::ALL, None)?;
//! // The expert of the highest noise begins as the shared network and sees its own noise levels alone.
//! let tree = Configuration::C.base(&LogNormal::default())?;
//! let expert = tree.experts().last().ok_or("a tree has experts")?;
//! train(folder, &expert.name, expert.interval, Some(shared))?;
//! # Ok(())
//! # }
//! ```

pub mod batch;
mod checkpoint;
pub mod corruption;
pub mod data_parallel;
pub mod dataset;
pub mod dropout;
mod ema;
pub mod error;
pub mod fit;
mod flat;
mod fused;
pub mod learner;
pub mod lineage;
pub mod lock;
pub mod log;
pub mod lora;
pub mod loss;
mod meeting;
pub mod noise;
pub mod noise_cell;
pub mod optimizer;
pub mod pixels;
pub mod plan;
pub mod prefetch;
pub mod random;
pub mod reduce;
mod replica;
pub mod run;
pub mod state;
pub mod tree;
pub mod waves;
mod writer;

pub use error::{Error, Result};
