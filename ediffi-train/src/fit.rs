//! From batches and a learner to a trained network.

use std::ops::ControlFlow;
use std::path::PathBuf;

use ediffi_core::weights::{Fresh, Params};
use tch::{Device, Kind, Tensor};

use crate::batch::BatchSource;
use crate::data_parallel::Worker;
use crate::log::Entry;
use crate::optimizer::AdamWSettings;
use crate::prefetch::prefetch_some;
use crate::reduce::{Alone, Reduce, agree};
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
    fit_together(&Alone, run, setup, data, learner, observe)
}

/// As [`fit`], in every process of `reduce` at once. All are given the same run, setup and learner, and data that have the same batch
/// for the same number. A process is given those of its own batches, of which [`Run::batches_of`] tells.
///
/// Rank 0 alone reads the checkpoint and the parent, and writes checkpoints and log; the others get its weights. All of them return the
/// same state, which rank 0 exports. Whether to stop is asked of all: one that breaks stops all, and one that fails does, too.
///
/// # Errors
/// As [`fit`]; [`Error::Elsewhere`] where another process failed; [`Error::Apart`] for processes with other runs, parameters or weights;
/// [`Error::Setting`] for fewer batches a step than processes; those of the [`Reduce`].
pub fn fit_together<D, L>(
    reduce: &dyn Reduce,
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
    run.expect_alike(reduce)?;
    let begin = || -> Result<TrainState, D::Error> {
        let mut fresh = Fresh::new(setup.seed, setup.device);
        let _ = learner(&mut fresh)?;
        let mut state = TrainState::new(fresh.into_named(), setup.optimizer, setup.ema)?;
        if reduce.rank() == 0 {
            run.begin(&mut state)?;
            if let Some(parent) = setup.parent.as_ref().filter(|_| state.step() == 0) {
                state.start_from(parent)?;
            }
        }
        Ok(state)
    };
    let mut state = agree(reduce, begin())?;
    state.begin_together(reduce)?;
    let prepare = || -> Result<_, D::Error> {
        let batches = prefetch_some(run.batches_of(&state, reduce)?, AHEAD, data)?;
        let mut worker = |_| {
            let replica = state.replica_in(setup.kind)?;
            let loss = learner(&mut replica.source())?;
            Ok(Worker { replica, loss: Box::new(loss) })
        };
        Ok((batches, (0..setup.workers).map(&mut worker).collect::<Result<Vec<_>, D::Error>>()?))
    };
    let (batches, mut workers) = agree(reduce, prepare())?;
    run.train_together(reduce, &mut state, batches, &mut workers, observe)?;
    Ok(state)
}
