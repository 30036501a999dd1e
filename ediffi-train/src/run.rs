//! The loop around a training step: batches, workers, log, checkpoints, resume.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread::Scope;
use std::time::{Duration, Instant};

use ediffi_core::files::remove_unfinished;
use ediffi_core::guard::guarded;

use crate::data_parallel::{ShareOfThreads, Worker, group};
use crate::error::file_error;
use crate::lineage::{Lineage, hash};
use crate::lock::Lock;
use crate::log::{Entry, LossLog};
use crate::meeting::{Sums, agree_on_growth, decide};
use crate::reduce::{Alone, Reduce, agree, expect_alike};
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
    /// Batches whose gradients make one step, in all workers and processes together.
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

    /// The numbers of the batches of this process, in order, from the next step on. Those of a step are dealt in turn, from rank 0 on, so
    /// that the same batches make a step however many processes there are.
    ///
    /// # Errors
    /// [`Error::Setting`] for fewer batches a step than processes.
    pub fn batches_of(
        &self,
        state: &TrainState,
        reduce: &dyn Reduce,
    ) -> Result<impl Iterator<Item = u64> + Send + 'static + use<>> {
        let (world, first, accumulate) = (reduce.world() as u64, self.next_batch(state), self.accumulate);
        if world > 1 && accumulate < world {
            let reason = format!("{accumulate} batches a step cannot be dealt to {world} processes");
            return Err(Error::Setting { field: "accumulate", reason });
        }
        let rank = reduce.rank() as u64;
        Ok((first..).filter(move |number| is_own((number - first) % accumulate.max(1), rank, world)))
    }

    /// Fails unless all processes are to train the same run. Its folder and its clock are those of rank 0.
    pub(crate) fn expect_alike(&self, reduce: &dyn Reduce) -> Result<()> {
        let Self { name, steps, batch, accumulate, first_batch, lineage, .. } = self;
        let text = format!("{name:?} {steps} {batch} {accumulate} {first_batch} {lineage:?}");
        expect_alike(reduce, "settings", hash(text.as_bytes()))
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
        next: impl FnMut() -> Result<B, E>,
        workers: &mut [Worker<'_, B, E>],
        observe: impl FnMut(&TrainState, Option<&Entry>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.train_together(&Alone, state, next, workers, observe)
    }

    /// As [`train`](Self::train), in every process of `reduce` at once, from the same state. `next` gives the batches of this process
    /// alone, those of [`batches_of`](Self::batches_of). Rank 0 writes. All decide together: one whose observer breaks stops all after
    /// the same step, and so does one that fails.
    ///
    /// # Errors
    /// As [`train`](Self::train); [`Error::Elsewhere`] where another process failed; [`Error::Apart`] for processes whose weights are no
    /// longer the same, which is looked at for each checkpoint; those of the [`Reduce`].
    pub fn train_together<B: Send, E: From<Error> + Send>(
        &self,
        reduce: &dyn Reduce,
        state: &mut TrainState,
        mut next: impl FnMut() -> Result<B, E>,
        workers: &mut [Worker<'_, B, E>],
        mut observe: impl FnMut(&TrainState, Option<&Entry>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let (replicas, work): (Vec<_>, Vec<_>) =
            workers.iter_mut().map(|Worker { replica, loss }| (&*replica, (loss, replica.gradients.clone()))).unzip();
        let _share = ShareOfThreads::of(work.len());
        let (rank, world, pictures) = (reduce.rank() as u64, reduce.world() as u64, self.accumulate * self.batch);
        // Libtorch may panic on this thread as well: in the optimizer, or where batches are made.
        guarded(|| {
            let trained = std::thread::scope(|scope| -> Result<(), E> {
                let begin = || -> Result<_> {
                    let losses = group(scope, work)?;
                    Ok((losses, (rank == 0).then(|| Files::open(scope, self, state)).transpose()?))
                };
                let (mut losses, mut files) = agree(reduce, begin())?;
                let (mut saved, mut sums, mut stop) = (Instant::now(), Sums::new(), false);
                // The checkpoint of rank 0: the others hear of a failure when all meet again.
                let mut written = Ok(());
                while !stop && state.step() < self.steps {
                    let (first, began, rate) = (self.next_batch(state), Instant::now(), state.rate());
                    let is_logged = (state.step() + 1).is_multiple_of(LOG_STEPS);
                    let mut compute = || -> Result<_, E> {
                        std::mem::replace(&mut written, Ok(()))?;
                        let own = (0..self.accumulate).filter(|turn| is_own(*turn, rank, world));
                        let batches = own.map(|turn| Ok((first + turn, next()?))).collect::<Result<Vec<_>, E>>()?;
                        sums.waiting += began.elapsed();
                        let values = losses(batches)?;
                        let collected = state.collect(&replicas)?;
                        state.catch_up(reduce);
                        Ok((values, collected))
                    };
                    let computed = compute();
                    sums.busy += began.elapsed();
                    let grown = matches!(&computed, Ok((_, collected)) if collected.grown);
                    let ((values, mut collected), grown) = agree_on_growth(reduce, computed, grown)?;
                    sums.losses.extend(values);
                    sums.steps += 1;
                    // On a GPU, reading a number waits for what was asked of it: the norm of a step is read behind the next backward pass, losses
                    // for the log.
                    let summed = state.sum_over(reduce, &mut collected, grown);
                    let mut norm = summed.and_then(|()| state.apply(collected, pictures, self.accumulate as usize));
                    let mut entry = None;
                    if is_logged {
                        sums.gradient += agree(reduce, norm)?.unwrap_or_default();
                        norm = Ok(None);
                        sums.gradient += agree(reduce, state.settle())?.unwrap_or_default();
                        entry = Some(std::mem::replace(&mut sums, Sums::new()).entry(reduce, state, rate, pictures)?);
                    }
                    let end_of_step = || -> Result<bool, E> {
                        sums.gradient += norm?.unwrap_or_default();
                        if let Some(entry @ Entry { step, loss, .. }) = entry {
                            files.as_mut().map_or(Ok(()), |files| files.log.write(&entry))?;
                            if !loss.is_finite() {
                                return Err(Error::Diverged { step, what: "loss", value: loss }.into());
                            }
                        }
                        let stop = observe(state, entry.as_ref())?.is_break();
                        files.as_mut().map_or(Ok(()), |files| files.writer.look())?;
                        Ok(stop)
                    };
                    let stops = end_of_step();
                    let is_due;
                    (stop, is_due) = decide(reduce, stops, saved.elapsed() >= self.checkpoint_every)?;
                    if is_due {
                        sums.gradient += agree(reduce, state.settle())?.unwrap_or_default();
                        state.expect_alike(reduce)?;
                        let snapshot = || state.snapshot(self.lineage.notes());
                        written = files.as_mut().map_or(Ok(()), |files| files.writer.write(snapshot));
                        saved = Instant::now();
                    }
                }
                agree(reduce, written.and_then(|()| state.settle()))?;
                state.expect_alike(reduce)?;
                let end = || files.map_or(Ok(()), |files| files.close(self, state));
                Ok(agree(reduce, end())?)
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

/// Whether the batch that is dealt at `turn` of a step is that of process `rank`.
fn is_own(turn: u64, rank: u64, world: u64) -> bool {
    turn % world.max(1) == rank
}

/// What rank 0 writes.
struct Files<'scope, 'env> {
    writer: Writer<'scope, 'env>,
    log: LossLog,
}

impl<'scope, 'env> Files<'scope, 'env> {
    fn open(scope: &'scope Scope<'scope, 'env>, run: &Run<'_>, state: &TrainState) -> Result<Self> {
        let writer = Writer::new(scope, run.checkpoint(), run.replaced());
        let log = LossLog::resume(&run.folder.join(format!("{}.csv", run.name)), state.step())?;
        Ok(Self { writer, log })
    }

    /// Writes the last checkpoint.
    fn close(mut self, run: &Run<'_>, state: &TrainState) -> Result<()> {
        if let Err(error) = self.writer.finish() {
            // The last checkpoint takes its place.
            tracing::warn!(%error, "a checkpoint on the way was not written");
        }
        state.save(&run.checkpoint(), run.lineage.notes())?;
        forget(&run.replaced())
    }
}
