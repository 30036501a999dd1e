//! The loop around a training step: batches, ranks, log, checkpoints, resume.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ediffi_core::weights::WeightsFile;

use crate::data_parallel::{Group, Rank};
use crate::lineage::Lineage;
use crate::log::{Entry, LossLog};
use crate::state::{Replica, TrainState};
use crate::{Error, Result};

/// Steps between two lines of the log.
pub const LOG_STEPS: u64 = 20;

/// What to do with a checkpoint that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// Return an error, so that nothing is replaced by mistake.
    #[default]
    New,
    /// Go on from it.
    Resume,
    /// Start over and replace it.
    Restart,
}

impl Begin {
    /// For [`Restart`](Self::Restart), removes the weights that an earlier run exported to `export`. Otherwise they would pass for
    /// those of the new run, should that be stopped on the way.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be removed.
    pub fn discard(self, export: &Path) -> Result<()> {
        match self {
            Self::Restart if export.is_file() => {
                std::fs::remove_file(export).map_err(|source| Error::File { path: export.to_owned(), source })
            }
            _ => Ok(()),
        }
    }
}

/// The training of one network.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// Name of the network. Its files are `NAME.checkpoint.safetensors` and `NAME.csv`.
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
    /// The number of its first batch in the data set.
    pub first_batch: u64,
    /// Time between checkpoints. A kill loses no more than this.
    pub checkpoint_every: Duration,
    /// What the network depends on. A checkpoint of another lineage is refused.
    pub lineage: Lineage,
}

/// What is known after a step.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Pictures seen.
    pub pictures: u64,
    /// The new line of the log, every [`LOG_STEPS`].
    pub entry: Option<Entry>,
}

impl Run<'_> {
    /// The number of the first batch of the next step.
    #[must_use]
    pub fn next_batch(&self, state: &TrainState) -> u64 {
        self.first_batch + state.step() * self.accumulate
    }

    /// The checkpoint file.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join(format!("{}.checkpoint.safetensors", self.name))
    }

    /// Whether an earlier run has exported weights with all steps to `export`, so that there is nothing left to train. Always false
    /// unless the run is to resume.
    ///
    /// # Errors
    /// [`Error::Lineage`] for weights of another lineage; a file that cannot be read.
    pub fn is_trained(&self, export: &Path) -> Result<bool> {
        if self.begin != Begin::Resume || !export.is_file() {
            return Ok(false);
        }
        self.lineage.check(export)?;
        let file = WeightsFile::open(export, |name| Some(name.to_owned()))?;
        Ok(file.text("steps").and_then(|done| done.parse::<u64>().ok()).is_some_and(|done| done >= self.steps))
    }

    /// Loads the checkpoint into `state`, or removes it, or neither, as [`begin`](field@Self::begin) says.
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
            // Removed at once: a run that is killed before its first checkpoint must not go on from this one.
            Begin::Restart => std::fs::remove_file(&path).map_err(failed),
            Begin::Resume => {
                self.lineage.check(&path)?;
                state.resume(&path)
            }
        }
    }

    /// Trains until all steps are done or `observe` breaks. Writes the checkpoint then, and from time to time on the way.
    ///
    /// `next` gives the batches in order, from [`next_batch`](Self::next_batch) on. The `ranks` share those of a step, and their
    /// gradients are added up.
    ///
    /// # Errors
    /// [`Error::Diverged`] when loss or gradients are no longer finite (the last checkpoint is then the last good one), a file
    /// that cannot be written, no rank, [`Error::RankPanicked`], [`Error::Thread`] for a rank whose thread cannot be started, and
    /// whatever `next`, the ranks and `observe` fail with.
    pub fn train<B: Send, E: From<Error> + Send>(
        &self,
        state: &mut TrainState,
        mut next: impl FnMut() -> std::result::Result<B, E>,
        ranks: &mut [Rank<'_, B, E>],
        mut observe: impl FnMut(&TrainState, &StepReport) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<(), E> {
        if ranks.is_empty() {
            return Err(Error::Setting { field: "ranks", reason: "there are none".to_owned() }.into());
        }
        let (replicas, losses): (Vec<_>, Vec<_>) =
            ranks.iter_mut().map(|Rank { replica, loss }| (&*replica, loss)).unzip();
        std::thread::scope(|scope| {
            let mut group = Group::new(scope, losses)?;
            self.steps(state, &mut next, &replicas, &mut group, &mut observe)
        })
    }

    /// The loop of [`train`](Self::train).
    fn steps<B: Send, E: From<Error> + Send>(
        &self,
        state: &mut TrainState,
        mut next: impl FnMut() -> std::result::Result<B, E>,
        replicas: &[&Replica],
        group: &mut Group<'_, '_, B, E>,
        mut observe: impl FnMut(&TrainState, &StepReport) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<(), E> {
        let mut log = LossLog::resume(&self.folder.join(format!("{}.csv", self.name)), state.step())?;
        let mut saved = Instant::now();
        let mut window = Window::new();
        while state.step() < self.steps {
            let first = self.next_batch(state);
            let waiting = Instant::now();
            let mut batches = Vec::new();
            for number in first..first + self.accumulate {
                batches.push((number, next()?));
            }
            window.waiting += waiting.elapsed();
            let values = group.step(batches)?;
            let rate = state.rate();
            let pictures = self.accumulate * self.batch;
            window.gradient += state.update_from(replicas, pictures, values.len())?;
            // Read after the step: on a GPU, reading waits for what was computed.
            for value in values {
                window.loss += value.f_double_value(&[]).map_err(Error::from)? / self.accumulate as f64;
            }
            window.steps += 1;
            let mut report =
                StepReport { step: state.step(), steps: self.steps, pictures: state.pictures(), entry: None };
            if state.step().is_multiple_of(LOG_STEPS) {
                let entry = window.entry(state, rate, pictures);
                log.write(&entry)?;
                if !entry.loss.is_finite() {
                    return Err(Error::Diverged { step: entry.step, what: "loss", value: entry.loss }.into());
                }
                report.entry = Some(entry);
                window = Window::new();
            }
            let stop = observe(state, &report)?.is_break();
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
