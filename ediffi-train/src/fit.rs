//! From batches and a learner to a trained network.

use std::ops::ControlFlow;
use std::path::PathBuf;

use ediffi_core::weights::{Fresh, Params};
use tch::{Device, Kind, Tensor};

use crate::batch::BatchSource;
use crate::data_parallel::Worker;
use crate::log::Entry;
use crate::optimizer::AdamWSettings;
use crate::prefetch::prefetch;
use crate::run::Run;
use crate::state::TrainState;
use crate::{Error, Result};

/// Batches that are made ahead.
const AHEAD: usize = 6;

/// How a network is set up for training.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Seed of its new weights.
    pub seed: u64,
    /// The exported weights that it starts from instead (eDiff-I §4.1: a child expert begins as its parent).
    pub parent: Option<PathBuf>,
    /// Where its parameters are.
    pub device: Device,
    /// What the network computes in, f32 or bf16. Its weights are cast to it once a step; they are trained in f32 in any case.
    pub kind: Kind,
    /// The optimizer.
    pub optimizer: AdamWSettings,
    /// Decay of the running average of the weights. eDiff-I's is 0.9999 (table 7).
    pub ema: f64,
    /// How many [workers](crate::data_parallel::workers) share the batches of a step. A single one has all of libtorch's threads.
    pub workers: u64,
}

/// Trains what `learner` makes on `data`: to the last step of `run`, or until `observe` breaks. It goes on from the checkpoint, if
/// there is one and the run is to resume it. The result is for [`TrainState::export`], unless its
/// [`step`](TrainState::step) shows that it was stopped before its end.
///
/// `learner` builds a network over parameters and returns its loss, as a function of the number of a batch and the batch; for
/// instance [`Learner::loss`](crate::learner::Learner::loss). It is called once to learn the names and shapes of the
/// parameters, and once for each worker.
///
/// # Errors
/// Those of [`Run::begin`] and [`Run::train`]; parent weights of another network; a precision other than f32 and bf16; whatever
/// `data`, `learner` and `observe` fail with.
pub fn fit<D, L>(
    run: &Run<'_>,
    setup: &Setup,
    data: D,
    learner: impl Fn(&mut dyn Params) -> Result<L, D::Error>,
    observe: impl FnMut(&TrainState, Option<&Entry>) -> Result<ControlFlow<()>, D::Error>,
) -> Result<TrainState, D::Error>
where
    D: BatchSource<Error: From<Error>>,
    L: FnMut(u64, D::Batch) -> Result<Tensor, D::Error> + Send,
{
    let mut fresh = Fresh::new(setup.seed, setup.device);
    let _ = learner(&mut fresh)?;
    let mut state = TrainState::new(fresh.into_named(), setup.optimizer, setup.ema)?;
    run.begin(&mut state)?;
    if let Some(parent) = setup.parent.as_ref().filter(|_| state.step() == 0) {
        state.start_from(parent)?;
    }
    let batches = prefetch(run.next_batch(&state), AHEAD, data)?;
    let mut worker = |_| {
        let replica = state.replica_in(setup.kind)?;
        let loss = learner(&mut replica.source())?;
        Ok(Worker { replica, loss: Box::new(loss) })
    };
    let mut workers = (0..setup.workers).map(&mut worker).collect::<Result<Vec<_>, D::Error>>()?;
    run.train(&mut state, batches, &mut workers, observe)?;
    Ok(state)
}
