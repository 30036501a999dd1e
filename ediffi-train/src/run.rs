//! The loop around a training step: batches, workers, log, checkpoints, resume.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ediffi_core::files::remove_unfinished;
use ediffi_core::guard::guarded;
use tch::Tensor;

use crate::data_parallel::{Worker, ShareOfThreads, group};
use crate::error::file_error;
use crate::lineage::Lineage;
use crate::lock::Lock;
use crate::log::{Entry, LossLog};
use crate::state::TrainState;
use crate::writer::{Writer, forget};
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
    /// those of the new run, should that be stopped on the way. What a killed export has left is removed in any case.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn discard(self, export: &Path) -> Result<()> {
        remove_unfinished(export)?;
        match self {
            Self::Restart if export.is_file() => std::fs::remove_file(export).map_err(file_error(export)),
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
    /// The number of its first batch in the source.
    pub first_batch: u64,
    /// Time between checkpoints. A kill loses no more than this, or than the time in which one is written if that is longer, and once
    /// more the time in which one is written.
    pub checkpoint_every: Duration,
    /// What the network depends on. A checkpoint of another lineage is refused.
    pub lineage: Lineage,
}

impl Run<'_> {
    /// The number of the first batch of the next step: behind those whose pictures were counted, however many made a step.
    #[must_use]
    pub fn next_batch(&self, state: &TrainState) -> u64 {
        self.first_batch + state.pictures() / self.batch.max(1)
    }

    /// The checkpoint file.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join(format!("{}.checkpoint.safetensors", self.name))
    }

    /// Where a checkpoint waits that a new run is to replace.
    fn replaced(&self) -> PathBuf {
        self.folder.join(format!("{}.checkpoint.replaced.safetensors", self.name))
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
        let file = self.lineage.open(export)?;
        Ok(file.text("steps").and_then(|done| done.parse::<u64>().ok()).is_some_and(|done| done >= self.steps))
    }

    /// Loads the checkpoint into `state`, or puts it aside, or neither, as [`begin`](field@Self::begin) says. What killed runs have left
    /// of their files is removed. Until the end of [`train`](Self::train), or until `state` is dropped, no other run of this name in this
    /// folder can begin, in this process or another.
    ///
    /// A checkpoint that is to be replaced is kept as `NAME.checkpoint.replaced.safetensors` until the new run has written its first.
    ///
    /// # Errors
    /// [`Error::Locked`] while another run of this name is at work here; [`Error::Exists`] for a checkpoint that nobody asked to be replaced, [`Error::Lineage`] for one of another lineage,
    /// [`Error::RestartKilled`] where only one is there that a restart was to replace,
    /// [`Error::Checkpoint`] for a damaged one, or one whose pictures are no whole number of batches; a folder that cannot be written.
    pub fn begin(&self, state: &mut TrainState) -> Result<()> {
        let path = self.checkpoint();
        std::fs::create_dir_all(self.folder).map_err(file_error(&path))?;
        state.lock = None;
        let lock = Lock::take(self.folder.join(format!("{}.lock", self.name)))?;
        for file in [&path, &self.folder.join(format!("{}.csv", self.name))] {
            remove_unfinished(file)?;
        }
        state.lock = Some(lock);
        if !path.is_file() {
            let replaced = self.replaced();
            return match self.begin {
                // A restart was killed before its first checkpoint: what it put aside is the only one.
                Begin::New if replaced.is_file() => Err(Error::Exists { path: replaced }),
                // To begin at 0 is not what was asked for, and neither is to go on from what was to go.
                Begin::Resume if replaced.is_file() => Err(Error::RestartKilled { replaced, checkpoint: path }),
                _ => Ok(()),
            };
        }
        match self.begin {
            Begin::New => Err(Error::Exists { path }),
            // Put aside at once: a run that is killed before its first checkpoint must not go on from this one.
            Begin::Restart => std::fs::rename(&path, self.replaced()).map_err(file_error(&path)),
            Begin::Resume => {
                self.lineage.check(&path)?;
                state.resume(&path)?;
                let (pictures, batch) = (state.pictures(), self.batch);
                if !pictures.is_multiple_of(batch.max(1)) {
                    let reason =
                        format!("it has seen {pictures} pictures, which are no whole number of batches of {batch}");
                    return Err(Error::Checkpoint { path, reason });
                }
                Ok(())
            }
        }
    }

    /// Trains until all steps are done or `observe` breaks. Writes the checkpoint then, and from time to time on the way: a copy of the
    /// state, on a thread beside the training. While one is written, it takes as much memory as the file is long.
    ///
    /// `next` gives the batches in order, from [`next_batch`](Self::next_batch) on. The `workers` share those of a step, and their
    /// gradients are added up. `observe` is called after every step, every [`LOG_STEPS`] with the new line of the log.
    ///
    /// While it trains, the workers share the threads that libtorch has on the calling thread; at the end it has them all again. A
    /// thread that first uses libtorch meanwhile keeps a worker's share: run one training at a time in a process.
    ///
    /// # Errors
    /// [`Error::Diverged`] when loss or gradients are no longer finite (the last checkpoint is then the last good one), a file
    /// that cannot be written, no worker, [`Error::WorkerPanicked`], [`Error::Thread`] for a worker whose thread cannot be started, and
    /// whatever `next`, the workers and `observe` fail with.
    pub fn train<B: Send, E: From<Error> + Send>(
        &self,
        state: &mut TrainState,
        mut next: impl FnMut() -> Result<B, E>,
        workers: &mut [Worker<'_, B, E>],
        mut observe: impl FnMut(&TrainState, Option<&Entry>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let (replicas, work): (Vec<_>, Vec<_>) =
            workers.iter_mut().map(|Worker { replica, loss }| (&*replica, (loss, replica.gradients.clone()))).unzip();
        let _share = ShareOfThreads::of(work.len());
        // Libtorch may panic on this thread as well: in the optimizer, or where batches are made.
        guarded(|| {
            let trained = std::thread::scope(|scope| -> Result<(), E> {
                let mut losses = group(scope, work)?;
                let mut writer = Writer::new(scope, self.checkpoint(), self.replaced());
                let mut log = LossLog::resume(&self.folder.join(format!("{}.csv", self.name)), state.step())?;
                let (mut saved, mut sums, mut stop) = (Instant::now(), Sums::new(), false);
                while !stop && state.step() < self.steps {
                    let (first, waiting) = (self.next_batch(state), Instant::now());
                    let batches = (first..first + self.accumulate).map(|number| Ok((number, next()?)));
                    let batches = batches.collect::<Result<Vec<_>, E>>()?;
                    sums.waiting += waiting.elapsed();
                    let values = losses(batches)?;
                    let (rate, pictures) = (state.rate(), self.accumulate * self.batch);
                    // On a GPU, reading a number waits for what was asked of it: the norm of a step is read behind the next backward pass, losses
                    // for the log.
                    sums.gradient += state.advance(&replicas, pictures, values.len())?.unwrap_or_default();
                    sums.losses.extend(values);
                    sums.steps += 1;
                    let entry = match state.step().is_multiple_of(LOG_STEPS) {
                        true => {
                            sums.gradient += state.settle()?.unwrap_or_default();
                            Some(std::mem::replace(&mut sums, Sums::new()).entry(state, rate, pictures)?)
                        }
                        false => None,
                    };
                    if let Some(entry @ Entry { step, loss, .. }) = entry {
                        log.write(&entry)?;
                        if !loss.is_finite() {
                            return Err(Error::Diverged { step, what: "loss", value: loss }.into());
                        }
                    }
                    stop = observe(state, entry.as_ref())?.is_break();
                    writer.look()?;
                    if saved.elapsed() >= self.checkpoint_every {
                        sums.gradient += state.settle()?.unwrap_or_default();
                        writer.write(|| state.snapshot(self.lineage.notes()))?;
                        saved = Instant::now();
                    }
                }
                let _ = state.settle()?;
                if let Err(error) = writer.finish() {
                    // The last checkpoint takes its place.
                    tracing::warn!(%error, "a checkpoint on the way was not written");
                }
                state.save(&self.checkpoint(), self.lineage.notes())?;
                Ok(forget(&self.replaced())?)
            });
            state.lock = None;
            if trained.is_err() {
                // A step that was left out does not count, whatever the training stopped for.
                drop(state.settle());
            }
            Ok::<_, Error>(trained)
        })?
    }
}

/// What is summed up for a line of the log.
struct Sums {
    losses: Vec<Tensor>,
    gradient: f64,
    steps: u64,
    waiting: Duration,
    began: Instant,
}

impl Sums {
    fn new() -> Self {
        Self { losses: Vec::new(), gradient: 0.0, steps: 0, waiting: Duration::ZERO, began: Instant::now() }
    }

    fn entry(self, state: &TrainState, rate: f64, pictures_a_step: u64) -> Result<Entry> {
        let steps = self.steps.max(1) as f64;
        let losses = self.losses.iter().map(|loss| Ok(loss.f_double_value(&[])?)).collect::<Result<Vec<_>>>()?;
        let seconds = self.began.elapsed().as_secs_f64();
        Ok(Entry {
            step: state.step(),
            pictures: state.pictures(),
            loss: losses.iter().sum::<f64>() / losses.len().max(1) as f64,
            gradient: self.gradient / steps,
            rate,
            speed: steps * pictures_a_step as f64 / seconds,
            waiting: self.waiting.as_secs_f64() / seconds,
        })
    }
}
