//! The numerical core of ediffi: schedules, preconditioning, solvers, guidance, experts, the U-Net and its weights.
//!
//! The mathematics is a stack of denoisers: a network F ([`unet`]) becomes a denoiser D(x; σ) by preconditioning
//! ([`precondition`], [`denoiser`]), several of them an ensemble routed by noise level ([`ensemble`]), guidance wraps that
//! ([`guidance`]), and a solver ([`solver`]) sees only D.

pub mod conditioning;
pub mod denoiser;
pub mod ensemble;
pub mod error;
pub mod experts;
pub mod files;
pub mod guard;
pub mod guidance;
pub mod interval;
pub mod multiple;
pub mod nn;
pub mod noise;
mod normal;
pub mod plan;
pub mod pool;
pub mod precondition;
pub mod runtime;
pub mod schedule;
pub mod seed;
mod sigma_interval;
pub mod solver;
pub mod timesteps;
pub mod unet;
pub mod weights;
pub mod window;

pub use error::{Error, Result, ShapeMismatch};
