//! Training of ediffi's expert denoisers.
//!
//! The rooms, in the order a training step passes through them: [`prefetch`] makes batches on background threads,
//! [`noise`] draws noise levels from the whole distribution or from an expert's interval, [`dropout`] drops embeddings,
//! [`loss`] is EDM's, [`optimizer`] and [`ema`] update the weights, [`state`] keeps all of it in a checkpoint that is
//! written atomically, [`log`] records the loss.

pub mod dropout;
pub mod ema;
pub mod error;
pub mod log;
pub mod loss;
pub mod noise;
pub mod optimizer;
pub mod prefetch;
pub mod state;

pub use error::{Error, Result};
