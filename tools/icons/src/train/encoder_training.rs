//! What the trainings of both encoders share: the loop, and how often the network was right of late.

use std::sync::Mutex;

use ediffi_core::weights::{Fresh, Params};
use ediffi_train::plan::Training;
use ediffi_train::prefetch::Prefetch;
use ediffi_train::run::Run;
use ediffi_train::state::TrainState;
use ediffi_train::workers::Worker;
use tch::Tensor;

use super::Result;
use super::workshop::{Workshop, first_batch, seed_of};

/// How much of the counts the next batch keeps.
const KEPT: f64 = 0.99;
/// Batches that are made ahead.
const AHEAD: usize = 4;

/// What a network makes of a batch.
pub struct BatchResult {
    /// The mean loss.
    pub loss: Tensor,
    /// How much of it is correct,
    pub correct: f64,
    /// of how much.
    pub total: f64,
}

/// Trains the network that `build` makes to the end of the run. Returns its state and its accuracy on the last batches, if there was any
/// to compute; `None` if the time is up before.
pub fn train_encoder<N: Send, B: Send + 'static>(
    workshop: &Workshop,
    run: &Run<'_>,
    training: &Training,
    build: impl Fn(&mut dyn Params) -> Result<N>,
    batch: impl Fn(u64) -> Result<B> + Send + 'static,
    mut result: impl FnMut(&N, B) -> Result<BatchResult> + Send,
) -> Result<Option<(TrainState, Option<f64>)>> {
    let mut fresh = Fresh::new(seed_of(run.name, workshop.plan.seed), workshop.runtime.device);
    let _ = build(&mut fresh)?;
    let mut state = TrainState::new(fresh.into_named(), training.optimizer(), training.ema)?;
    run.begin(&mut state)?;
    let batches = Prefetch::new(first_batch(run.name) + run.first_batch(&state), AHEAD, batch)?;
    let counts = Mutex::new((0.0, 0.0));
    let shared = &counts;
    // A step of an encoder is one batch: one worker on all threads.
    workshop.workers(1);
    let replica = state.replica()?;
    let network = build(&mut replica.source())?;
    let loss = move |_, batch: B| {
        let BatchResult { loss, correct, total } = result(&network, batch)?;
        let mut counts = shared.lock().map_err(|_| "a batch failed before")?;
        *counts = (counts.0 * KEPT + correct, counts.1 * KEPT + total);
        Ok(loss)
    };
    let mut workers = [Worker { replica, loss: Box::new(loss) }];
    run.train(&mut state, || batches.next()?, &mut workers, workshop.watch(run, |_, _| Ok(()))?)?;
    drop(workers);
    let (correct, total) = counts.into_inner()?;
    Ok((state.step() >= run.steps).then(|| (state, (total > 0.0).then(|| correct / total))))
}
