//! The numerical core of ediffi: schedules, preconditioning, solvers, guidance, experts, the U-Net and its weights.
//!
//! The mathematics is a stack of denoisers. Preconditioning ([`precondition`], [`denoiser`]) makes a network F ([`unet`]) a
//! denoiser D(x; σ). Several denoisers, chosen by noise level, make an ensemble ([`ensemble`]). Guidance ([`guidance`]) wraps
//! the ensemble. A solver ([`solver`]) sees only D.

pub mod autoencoder;
pub mod brief;
pub mod conditioning;
pub mod denoiser;
pub mod ensemble;
pub mod error;
pub mod exit;
pub mod expert_interval;
pub mod experts;
pub mod files;
pub mod folders;
pub mod guard;
pub mod guidance;
pub mod interrupt;
pub mod interval;
pub mod multiple;
pub mod nn;
pub mod noise;
mod normal;
pub mod operation;
pub mod plan;
pub mod pool;
pub mod precondition;
pub mod prior;
pub mod published;
mod published_keys;
pub mod runtime;
pub mod schedule;
pub mod seed;
mod sigma_interval;
pub mod solver;
mod thresholding;
pub mod timesteps;
pub mod unet;
pub mod weights;
pub mod window;

pub use error::{Error, Result, ShapeMismatch};
