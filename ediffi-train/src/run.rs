//! The loop around a training step: batches, workers, log, checkpoints, resume.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::lineage::Lineage;
use crate::log::{Entry, LossLog};
use crate::state::{Replica, TrainState};
use crate::workers::{Team, Worker};
use crate::{Error, Result};

/// Steps between two lines of the log.
pub const LOG_STEPS: u64 = 20;

/// What to do with a checkpoint that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// It is an error: nobody asked for it to be replaced.
    #[default]
    New,
    /// Go on from it.
    Resume,
    /// Start over and replace it.
    Restart,
}

/// One network's training: its name decides its files in the run folder.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// Name of the network: `NAME.checkpoint.safetensors` and `NAME.csv`.
    pub name: &'a str,
    /// Where checkpoints and logs go.
    pub folder: &'a Path,
    /// What to do with a checkpoint that is there.
    pub begin: Begin,
    /// Train until this many steps have been done in all.
    pub steps: u64,
    /// Pictures a batch.
    pub batch: u64,
    /// Batches whose gradients make one step.
    pub accumulate: u64,
    /// Time between checkpoints: what a kill may cost.
    pub checkpoint_every: Duration,
    /// What the network stands on; a checkpoint of another lineage is refused.
    pub lineage: Lineage,
}

/// What is known after a step.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps that the run is to have in all.
    pub steps: u64,
    /// Pictures seen.
    pub pictures: u64,
    /// The line of the log that this step ended, every [`LOG_STEPS`].
    pub entry: Option<Entry>,
}

impl Run<'_> {
    /// The number of the first batch of the next step. The position in the data follows from the step alone.
    #[must_use]
    pub fn first_batch(&self, state: &TrainState) -> u64 {
        state.step() * self.accumulate
    }

    /// The checkpoint file.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join(format!("{}.checkpoint.safetensors", self.name))
    }

    /// Whether it goes on from a checkpoint: asked to, and there is one.
    #[must_use]
    pub fn resumes(&self) -> bool {
        self.begin == Begin::Resume && self.checkpoint().is_file()
    }

    /// Brings `state` to where the run begins.
    ///
    /// # Errors
    /// [`Error::Exists`] for a checkpoint that nobody asked to be replaced, [`Error::Lineage`] for one of another lineage,
    /// [`Error::Checkpoint`] for a damaged one; a folder that cannot be written.
    pub fn begin(&self, state: &mut TrainState) -> Result<()> {
        let path = self.checkpoint();
        let failed = |source| Error::File { path: path.clone(), source };
        std::fs::create_dir_all(self.folder).map_err(failed)?;
        if !path.is_file() {
            return Ok(());
        }
        match self.begin {
            Begin::New => Err(Error::Exists { path }),
            // Not only replaced once there is another: a run that is killed before must not go on from it.
            Begin::Restart => std::fs::remove_file(&path).map_err(failed),
            Begin::Resume => {
                self.lineage.check(&path)?;
                state.resume(&path)
            }
        }
    }

    /// Trains until all steps are done or `observe` breaks; then, and from time to time on the way, writes the checkpoint.
    ///
    /// `next` gives the batches in order, from [`first_batch`](Self::first_batch) on; `workers` share those of a step, and their
    /// gradients are added up whoever computed them.
    ///
    /// # Errors
    /// [`Error::Diverged`] when loss or gradients are no longer finite (the last checkpoint is then the last good one), a file
    /// that cannot be written, no worker, [`Error::Worker`] for one that panicked, [`Error::Thread`] for one whose thread cannot be
    /// started, and whatever `next`, the workers and `observe` fail with.
    pub fn train<B: Send, E: From<Error> + Send>(
        &self,
        state: &mut TrainState,
        mut next: impl FnMut() -> std::result::Result<B, E>,
        workers: &mut [Worker<'_, B, E>],
        mut observe: impl FnMut(&TrainState, &Progress) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<(), E> {
        if workers.is_empty() {
            return Err(Error::Setting { field: "workers", reason: "there are none".to_owned() }.into());
        }
        let (replicas, losses): (Vec<_>, Vec<_>) =
            workers.iter_mut().map(|Worker { replica, loss }| (&*replica, loss)).unzip();
        std::thread::scope(|scope| {
            let mut team = Team::new(scope, losses)?;
            self.steps(state, &mut next, &replicas, &mut team, &mut observe)
        })
    }

    /// The loop of [`train`](Self::train).
    fn steps<B: Send, E: From<Error> + Send>(
        &self,
        state: &mut TrainState,
        mut next: impl FnMut() -> std::result::Result<B, E>,
        replicas: &[&Replica],
        team: &mut Team<'_, '_, B, E>,
        mut observe: impl FnMut(&TrainState, &Progress) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<(), E> {
        let mut log = LossLog::resume(&self.folder.join(format!("{}.csv", self.name)), state.step())?;
        let mut saved = Instant::now();
        let mut window = Window::new();
        while state.step() < self.steps {
            let first = self.first_batch(state);
            let waiting = Instant::now();
            let mut batches = Vec::new();
            for number in first..first + self.accumulate {
                batches.push((number, next()?));
            }
            window.waiting += waiting.elapsed();
            let values = team.step(batches)?;
            let rate = state.rate();
            let pictures = self.accumulate * self.batch;
            window.gradient += state.update_from(replicas, pictures, values.len())?;
            // Read after the step: on a GPU, reading waits for what was computed.
            for value in values {
                window.loss += value.f_double_value(&[]).map_err(Error::from)? / self.accumulate as f64;
            }
            window.steps += 1;
            let mut progress =
                Progress { step: state.step(), steps: self.steps, pictures: state.pictures(), entry: None };
            if state.step().is_multiple_of(LOG_STEPS) {
                let entry = window.entry(state, rate, pictures);
                log.write(&entry)?;
                if !entry.loss.is_finite() {
                    return Err(Error::Diverged { step: entry.step, what: "loss", value: entry.loss }.into());
                }
                progress.entry = Some(entry);
                window = Window::new();
            }
            let stop = observe(state, &progress)?.is_break();
            if stop || saved.elapsed() >= self.checkpoint_every {
                state.save(&self.checkpoint(), self.lineage.notes())?;
                saved = Instant::now();
            }
            if stop {
                return Ok(());
            }
        }
        Ok(state.save(&self.checkpoint(), self.lineage.notes())?)
    }
}

/// What is summed up for a line of the log.
struct Window {
    loss: f64,
    gradient: f64,
    steps: u64,
    waiting: Duration,
    began: Instant,
}

impl Window {
    fn new() -> Self {
        Self { loss: 0.0, gradient: 0.0, steps: 0, waiting: Duration::ZERO, began: Instant::now() }
    }

    fn entry(&self, state: &TrainState, rate: f64, pictures_a_step: u64) -> Entry {
        let steps = self.steps.max(1) as f64;
        let seconds = self.began.elapsed().as_secs_f64();
        Entry {
            step: state.step(),
            pictures: state.pictures(),
            loss: self.loss / steps,
            gradient: self.gradient / steps,
            rate,
            speed: steps * pictures_a_step as f64 / seconds,
            waiting: self.waiting.as_secs_f64() / seconds,
        }
    }
}
