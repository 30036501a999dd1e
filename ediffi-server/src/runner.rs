//! Takes jobs from the queue and draws them, on a thread for each device.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ediffi::{DeviceChoice, Error, JobHandle, Worker};

use crate::job::{Failure, JobState, now};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::store::{JobStore, Outcome, StoreError, TakenJob};
use crate::watcher::Watcher;

/// How long a thread waits for a job before it looks whether jobs have to be forgotten.
const PATIENCE: Duration = Duration::from_secs(5);

/// Draws the jobs of a store on one device.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) device: DeviceChoice,
    pub(crate) models: Arc<[Model]>,
    pub(crate) store: Arc<dyn JobStore>,
    pub(crate) metrics: Arc<Metrics>,
    /// How many models are in memory at the most.
    pub(crate) loaded: usize,
    /// How long a job may be drawn.
    pub(crate) longest: Duration,
    /// Open models, the one used last at the end.
    pub(crate) open: VecDeque<(String, Worker)>,
}

impl Runner {
    /// Starts the thread. It ends when the store gives out no more jobs.
    pub(crate) fn start(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("ediffi runner".to_owned()).spawn(move || self.run())
    }

    fn run(mut self) {
        loop {
            match self.store.take(PATIENCE) {
                Ok(Some(taken)) => self.draw(&taken),
                Ok(None) => {}
                Err(StoreError::Stopped) => return,
                Err(error) => {
                    tracing::error!(%error, "no job can be taken");
                    std::thread::sleep(PATIENCE);
                }
            }
        }
    }

    fn draw(&mut self, taken: &TakenJob) {
        let span = tracing::info_span!("job", id = %taken.id, model = taken.job.model);
        let _inside = span.enter();
        let started = Instant::now();
        if let Ok(Some(job)) = self.store.job(taken.id) {
            self.metrics.waited(Duration::try_from_secs_f64(now() - job.created).unwrap_or_default());
        }
        let outcome = match self.drawn(taken) {
            Ok(()) => Outcome::Finished,
            Err(Error::Cancelled) if taken.stop.asked() => Outcome::Cancelled,
            Err(Error::Cancelled) => {
                let message = format!("it took longer than {} seconds", self.longest.as_secs());
                Outcome::Failed(Failure::new("timeout", message))
            }
            Err(error) => Outcome::Failed(Failure::of(&error)),
        };
        let state = match &outcome {
            Outcome::Finished => JobState::Finished,
            Outcome::Cancelled => JobState::Cancelled,
            Outcome::Failed(failure) => {
                tracing::warn!(failure.message, "failed");
                JobState::Failed
            }
        };
        self.metrics.ended(&taken.job.model, state.name(), started.elapsed());
        tracing::info!(state = state.name(), elapsed = ?started.elapsed(), "over");
        if let Err(error) = self.store.finish(taken.id, outcome) {
            tracing::error!(%error, "the end of the job cannot be written down");
        }
    }

    fn drawn(&mut self, taken: &TakenJob) -> Result<(), Error> {
        let worker = self.worker(&taken.job.model)?;
        let watcher = Watcher::new(taken, Arc::clone(&self.store), Arc::clone(&self.metrics));
        let unwritten = watcher.unwritten();
        let handle = worker.submit_with((*taken.job.request).clone(), watcher)?;
        taken.stop.bind(handle.canceller());
        self.wait(handle)?;
        // A picture that is nowhere is no picture.
        unwritten.lock().map_or(Ok(()), |mut error| error.take().map_or(Ok(()), Err))
    }

    /// Waits for a job, for as long as it may be drawn.
    fn wait(&self, handle: JobHandle) -> Result<(), Error> {
        match handle.wait_timeout(self.longest) {
            Ok(result) => result.map(drop),
            Err(handle) => {
                handle.cancel();
                handle.wait().map(drop)
            }
        }
    }

    /// The open model of this name. One that was not used for the longest time makes room for it.
    fn worker(&mut self, name: &str) -> Result<Worker, Error> {
        let place = self.open.iter().position(|(open, _)| open == name);
        let (name, worker) = match place.and_then(|place| self.open.remove(place)) {
            Some(open) => open,
            None => {
                while self.open.len() >= self.loaded.max(1) {
                    drop(self.open.pop_front());
                }
                let model = self.models.iter().find(|model| model.info.id == name);
                let model = model.ok_or_else(|| Error::NoFolder(name.into()))?;
                (name.to_owned(), Worker::with_capacity(model.pipeline(self.device)?, 1)?)
            }
        };
        self.open.push_back((name, worker.clone()));
        Ok(worker)
    }
}
