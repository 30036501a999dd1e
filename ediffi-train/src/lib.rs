//! Training of ediffi's expert denoisers.
//!
//! The rooms, in the order a training step passes through them: [`prefetch`] makes batches on background threads,
//! [`noise`] draws noise levels from the whole distribution or from an expert's interval, [`dropout`] drops embeddings,
//! [`loss`] is the denoising loss, [`optimizer`] and [`ema`] update the weights, [`state`] keeps all of it in a checkpoint that is
//! written atomically, [`log`] records the loss. [`run`] is the loop around all of them, its batches shared by [`workers`], with
//! [`lineage`] guarding what a checkpoint may be resumed beside. [`tree`] says which networks an ensemble is trained as, [`plan`]
//! holds that as data: who starts from whom, for how long, how fast.
//!
//! # Example
//!
//! A tiny network, pictures of noise, a checkpoint, and one expert that starts from the shared network:
//!
//! ```
//! use std::collections::HashMap;
//!
//! use ediffi_core::conditioning::Conditioning;
//! use ediffi_core::interval::{LogNormal, SigmaInterval};
//! use ediffi_core::precondition::Edm;
//! use ediffi_core::noise::NoiseSource;
//! use ediffi_core::seed::{Noise, image_seeds, stream};
//! use ediffi_core::nn::Norm;
//! use ediffi_core::unet::{Dimensions, Efficient, Level, UNet};
//! use ediffi_core::weights::{Fresh, Scope};
//! use ediffi_train::loss::denoising_loss;
//! use ediffi_train::noise::NoiseLevels;
//! use ediffi_train::optimizer::AdamWSettings;
//! use ediffi_train::prefetch::Prefetch;
//! use ediffi_train::state::TrainState;
//! use ediffi_train::tree::Configuration;
//! use tch::{Device, Kind, Tensor};
//!
//! /// Batch `number`: a pure function of the number, so that a resumed run sees what an uninterrupted one would have.
//! fn pictures(number: u64) -> Result<Tensor, ediffi_core::Error> {
//!     let seeds = image_seeds(4 * number, 4);
//!     Ok(Noise::new(&seeds, 0).normal(&[4, 3, 8, 8])?.f_tanh()?)
//! }
//!
//! /// A new network and what its training keeps. Parameters are f32; `Kind::BFloat16` would compute in bf16.
//! fn begin() -> Result<(UNet, TrainState), Box<dyn std::error::Error>> {
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
//!     });
//!     let mut fresh = Fresh::new(1, Device::Cpu);
//!     let network = UNet::new(Scope::root(&mut fresh), &config, Kind::Float)?;
//!     let settings = AdamWSettings { learning_rate: 1e-3, warm_up: 2, ..AdamWSettings::default() };
//!     Ok((network, TrainState::new(fresh.into_named(), settings, 0.999)?))
//! }
//!
//! /// Trains up to step `until` on noise levels of `interval`.
//! fn train(
//!     network: &UNet,
//!     state: &mut TrainState,
//!     interval: SigmaInterval,
//!     until: u64,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let levels = NoiseLevels::new(LogNormal::default(), interval);
//!     let batches = Prefetch::new(state.step(), 2, pictures)?;
//!     while state.step() < until {
//!         let clean = batches.next()??;
//!         let sigmas = levels.draw(4, &mut stream(7, state.step()));
//!         let noise = Noise::new(&image_seeds(4 * state.step(), 4), 1).normal(&clean.size())?;
//!         let context = network.context(&Conditioning::default(), 4)?;
//!         let losses = denoising_loss(&Edm::default(), &clean, &noise, &sigmas, |x, c_noise| {
//!             network.forward(x, c_noise, &context, None).map_err(ediffi_train::Error::from)
//!         })?;
//!         losses.f_mean(Kind::Float)?.f_backward()?;
//!         state.update(4, 1)?;
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let folder = temporary.path();
//! let (network, mut shared) = begin()?;
//! train(&network, &mut shared, SigmaInterval::ALL, 2)?;
//! shared.save(&folder.join("shared.checkpoint.safetensors"), HashMap::new())?;
//!
//! // Another process goes on where the first one stopped, and exports the averaged weights.
//! let (network, mut shared) = begin()?;
//! shared.resume(&folder.join("shared.checkpoint.safetensors"))?;
//! train(&network, &mut shared, SigmaInterval::ALL, 4)?;
//! assert_eq!((shared.step(), shared.pictures()), (4, 16));
//! shared.export(&folder.join("shared.safetensors"), "", Kind::Float, HashMap::new())?;
//!
//! // The expert of the highest noise begins as the shared network and sees its own noise levels alone.
//! let tree = Configuration::C.base(&LogNormal::default())?;
//! let expert = tree.experts().last().ok_or("a tree has experts")?;
//! let (network, mut state) = begin()?;
//! state.start_from(&folder.join("shared.safetensors"))?;
//! train(&network, &mut state, expert.interval, 2)?;
//! state.export(&folder.join(format!("{}.safetensors", expert.name)), "", Kind::BFloat16, HashMap::new())?;
//! # Ok(())
//! # }
//! ```

pub mod dropout;
pub mod ema;
pub mod error;
pub mod lineage;
pub mod log;
pub mod loss;
pub mod noise;
pub mod optimizer;
pub mod plan;
pub mod prefetch;
pub mod run;
pub mod state;
pub mod tree;
pub mod workers;

pub use error::{Error, Result};
