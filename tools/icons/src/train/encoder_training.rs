//! What the trainings of both encoders share: the loop, and how often the network was right of late.

use std::sync::Mutex;

use ediffi_core::weights::Params;
use ediffi_train::fit::fit;
use ediffi_train::plan::Task;
use ediffi_train::run::Run;
use ediffi_train::state::TrainState;
use tch::Tensor;

use super::Result;
use super::workshop::Workshop;

/// How much of the counts the next batch keeps.
const KEPT: f64 = 0.99;

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
    task: &Task<'_>,
    build: impl Fn(&mut dyn Params) -> Result<N>,
    batch: impl Fn(u64) -> Result<B> + Send + 'static,
    result: impl Fn(&N, B) -> Result<BatchResult> + Sync,
) -> Result<Option<(TrainState, Option<f64>)>> {
    let counts = Mutex::new((0.0, 0.0));
    let learner = |params: &mut dyn Params| {
        let (network, result, counts) = (build(params)?, &result, &counts);
        Ok(move |_, batch: B| {
            let BatchResult { loss, correct, total } = result(&network, batch)?;
            let mut counts = counts.lock().map_err(|_| "a batch failed before")?;
            *counts = (counts.0 * KEPT + correct, counts.1 * KEPT + total);
            Ok(loss)
        })
    };
    let state = fit(run, &workshop.setup(task, None), batch, learner, workshop.watch(run, |_, _| Ok(())))?;
    let (correct, total) = counts.into_inner()?;
    Ok((state.step() >= run.steps).then(|| (state, (total > 0.0).then(|| correct / total))))
}
