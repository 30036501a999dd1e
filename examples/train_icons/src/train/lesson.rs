//! What the trainings of both encoders share: workers that each hold the learner, and how often it was right of late.

use std::sync::Mutex;

use ediffi_core::weights::{Fresh, Params};
use ediffi_train::plan::Task;
use ediffi_train::prefetch::Prefetch;
use ediffi_train::run::{Run, Worker};
use ediffi_train::state::TrainState;
use tch::Tensor;

use super::Result;
use super::workshop::{Workshop, first_batch, seed_of};

/// How much of the count of right answers the next batch keeps.
const REMEMBERED: f64 = 0.99;
/// Batches that are made ahead.
const AHEAD: usize = 4;

/// What a learner makes of a batch.
pub struct Answers {
    /// The mean loss.
    pub loss: Tensor,
    /// Right answers.
    pub right: f64,
    /// Questions.
    pub asked: f64,
}

/// Trains what `learner` builds to the end of the run. Returns its state and the share of right answers of the last batches, if any was
/// computed; `None` if the time is up before.
pub fn learn<L: Send, B: Send + 'static>(
    workshop: &Workshop,
    task: &Task<'_>,
    run: &Run<'_>,
    learner: impl Fn(&mut dyn Params) -> Result<L>,
    batch: impl Fn(u64) -> Result<B> + Send + 'static,
    answer: impl Fn(&L, B) -> Result<Answers> + Sync,
) -> Result<Option<(TrainState, Option<f64>)>> {
    let (name, training) = (run.name, task.training());
    let mut fresh = Fresh::new(seed_of(name, workshop.plan.seed), workshop.runtime.device);
    let _ = learner(&mut fresh)?;
    let mut state = TrainState::new(fresh.into_named(), training.optimizer(), training.ema)?;
    run.begin(&mut state)?;
    let batches = Prefetch::new(first_batch(name) + run.first_batch(&state), AHEAD, batch)?;
    let counts = Mutex::new((0.0, 0.0));
    let mut workers = Vec::new();
    for _ in 0..workshop.workers(run.accumulate) {
        let replica = state.replica()?;
        let learner = learner(&mut replica.source())?;
        let (answer, counts) = (&answer, &counts);
        let loss = move |_, batch: B| {
            let Answers { loss, right, asked } = answer(&learner, batch)?;
            if let Ok(mut counts) = counts.lock() {
                *counts = (counts.0 * REMEMBERED + right, counts.1 * REMEMBERED + asked);
            }
            Ok(loss)
        };
        workers.push(Worker { replica, loss: Box::new(loss) });
    }
    run.train(&mut state, || batches.next()?, &mut workers, workshop.watch(run, |_, _| Ok(()))?)?;
    drop(workers);
    let (right, asked) = counts.into_inner()?;
    Ok((state.step() >= run.steps).then(|| (state, (asked > 0.0).then(|| right / asked))))
}
