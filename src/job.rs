//! The jobs of a worker: their state, and the handles of those who wait for them.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ediffi_core::interrupt;

use crate::queue::Waiting;
use crate::{Error, Event, Generation, Observer, Request, Result};

thread_local! {
    /// The worker that this thread belongs to.
    static OWN: Cell<Option<WorkerId>> = const { Cell::new(None) };
}

/// Tells the workers of a process apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerId(u64);

impl WorkerId {
    /// One that no other worker has.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes this thread one of the worker's.
    pub(crate) fn take_thread(self) {
        OWN.set(Some(self));
    }

    /// Whether this thread is one of the worker's: an observer runs on it, and must not wait for its own worker.
    pub(crate) fn owns_thread(self) -> bool {
        OWN.get() == Some(self)
    }
}

/// What a worker's thread does with a request.
pub(crate) type Run = Box<dyn FnMut(&Request, &mut dyn Observer) -> Result<Generation> + Send>;

/// The progress of a job.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Waiting, running or finished.
    pub phase: Phase,
    /// Name of the stage that runs, `enlarger` for the enlarger. It is empty before the first stage and after the last.
    pub stage: String,
    /// Its position among the stages that run, from 0.
    pub stage_index: usize,
    /// How many stages run, the enlarger included; 0 before the first.
    pub stages: usize,
    /// Finished steps of this stage, over all its batches; tiles of the enlarger, which takes turns with the stage before it.
    pub step: usize,
    /// Number of steps of this stage, over all its batches.
    pub steps: usize,
    /// Stages done, the running one as a fraction; then the enlarger's share of its tiles.
    done: (f64, f64),
    /// The position of the stage that started last, the enlarger apart.
    last_stage: usize,
    /// Its finished steps.
    last_steps: usize,
}

impl Progress {
    /// From 0 to 1. Each stage counts alike, however long it takes. The enlarger takes turns with the stage before it.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        match self.phase {
            Phase::Queued => 0.0,
            Phase::Finished => 1.0,
            Phase::Running => (self.done.0 + self.done.1) / self.stages.max(1) as f64,
        }
    }

    /// What changes with an event.
    fn follow(&mut self, event: &Event<'_>) {
        match *event {
            Event::StageStarted { stage, index, stages, plan, batches, .. } => {
                self.stages = stages;
                (self.last_stage, self.last_steps) = (index, 0);
                self.enter(stage, index, 0, plan.steps().len() * batches);
                self.done.0 = index as f64;
            }
            Event::EnlargerStarted { index, batches, tiles, .. } => self.enter("enlarger", index, 0, tiles * batches),
            Event::Step { stage, batches, steps, .. } => {
                // Batches may take turns, and the enlarger may have had its own in between.
                let place = self.last_stage;
                self.last_steps += 1;
                self.enter(stage, place, self.last_steps, steps * batches);
                self.done.0 = place as f64 + self.share();
            }
            Event::TileEnlarged { batch, batches, tiles, index } => {
                let place = self.stages.saturating_sub(1);
                self.enter("enlarger", place, batch * tiles + index + 1, tiles * batches);
                self.done.1 = self.share();
            }
            _ => {}
        }
    }

    fn enter(&mut self, stage: &str, index: usize, step: usize, steps: usize) {
        stage.clone_into(&mut self.stage);
        (self.stage_index, self.step, self.steps) = (index, step, steps);
    }

    /// Of the steps, those that are done.
    fn share(&self) -> f64 {
        self.step as f64 / self.steps.max(1) as f64
    }
}

/// The phase of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The job waits for its turn.
    #[default]
    Queued,
    /// The job runs.
    Running,
    /// The job has succeeded, failed or been cancelled.
    Finished,
}

/// A job of a [`Worker`](crate::Worker), to be waited for or awaited. Dropping the handle cancels the job. What happens on the way can be
/// read from a [stream](crate::events()) beside it.
#[derive(Debug)]
#[must_use = "dropping the handle cancels the job"]
pub struct JobHandle {
    job: Arc<Job>,
}

impl JobHandle {
    pub(crate) fn new(job: Arc<Job>) -> Self {
        Self { job }
    }

    /// A number that no other job of this worker has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.job.id
    }

    /// The progress of the job.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.job.lock().progress.clone()
    }

    /// Whether [`JobHandle::wait`] would return at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.job.is_finished()
    }

    /// Cancels the job: at once if it waits; if it runs, before the next evaluation of a network, or the next tensor where weights are
    /// loaded. A finished job keeps its result.
    pub fn cancel(&self) {
        self.job.cancel();
    }

    /// A handle that only cancels. It can be cloned and sent to other threads.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller { job: Arc::clone(&self.job) }
    }

    /// Waits until the job is finished.
    ///
    /// # Errors
    /// Those of [`Pipeline::generate`](crate::Pipeline::generate), and [`Error::Panicked`]; [`Error::Busy`] on a thread of the job's own
    /// worker, where an observer would wait for itself: the job is cancelled then, as by any handle that is dropped.
    pub fn wait(self) -> Result<Generation> {
        if self.job.worker.owns_thread() && !self.is_finished() {
            return Err(Error::Busy);
        }
        let finished = self.job.finished.wait_while(self.job.lock(), |state| state.result.is_none());
        let result = finished.unwrap_or_else(PoisonError::into_inner).result.take();
        result.unwrap_or(Err(Error::WorkerGone))
    }

    /// The result if there is one, else the handle again.
    ///
    /// # Errors
    /// The handle, while the job is not done.
    pub fn try_wait(self) -> std::result::Result<Result<Generation>, Self> {
        if self.is_finished() { Ok(self.wait()) } else { Err(self) }
    }

    /// As [`JobHandle::try_wait`], after waiting for no longer than `timeout`.
    ///
    /// # Errors
    /// The handle, if the job is not done by then.
    pub fn wait_timeout(self, timeout: Duration) -> std::result::Result<Result<Generation>, Self> {
        let unfinished = |state: &mut State| state.result.is_none();
        drop(self.job.finished.wait_timeout_while(self.job.lock(), timeout, unfinished));
        self.try_wait()
    }
}

/// A program of any runtime may await a job; none is needed here. The task is woken by the worker's thread. A result is given once:
/// awaited again, the job is [`Error::WorkerGone`].
///
/// Awaited in an observer of the job's own worker, it never ends; [`wait`](JobHandle::wait) tells so.
impl Future for JobHandle {
    type Output = Result<Generation>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Somebody else's code clones the new waker and drops the old one, and must find the job unlocked.
        let awaited = context.waker().clone();
        let mut state = self.job.lock();
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        if state.progress.phase == Phase::Finished {
            return Poll::Ready(Err(Error::WorkerGone));
        }
        let before = state.waker.replace(awaited);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.job.cancel();
    }
}

/// Cancels a job from anywhere.
#[derive(Debug, Clone)]
pub struct Canceller {
    job: Arc<Job>,
}

impl Canceller {
    /// As [`JobHandle::cancel`].
    pub fn cancel(&self) {
        self.job.cancel();
    }
}

/// What handle, canceller and thread share.
pub(crate) struct Job {
    id: u64,
    worker: WorkerId,
    request: Request,
    /// Looked at between evaluations, while weights are loaded, and within encoders and the enlarger.
    cancelled: Arc<AtomicBool>,
    state: Mutex<State>,
    finished: Condvar,
}

struct State {
    progress: Progress,
    /// Taken when the job starts.
    observer: Option<Box<dyn Observer + Send>>,
    /// Taken by the one who waits.
    result: Option<Result<Generation>>,
    /// The task that awaits the job.
    waker: Option<Waker>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("id", &self.id).field("request", &self.request).finish_non_exhaustive()
    }
}

impl Waiting for Arc<Job> {
    fn is_over(&self) -> bool {
        self.is_finished()
    }
}

impl Job {
    pub(crate) fn new(worker: WorkerId, id: u64, request: Request, observer: Box<dyn Observer + Send>) -> Self {
        let state = State { progress: Progress::default(), observer: Some(observer), result: None, waker: None };
        let (cancelled, finished) = (Arc::default(), Condvar::new());
        Self { id, worker, request, cancelled, state: Mutex::new(state), finished }
    }

    /// The state is whole after every change, so a thread that panicked while it held the lock left nothing broken.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.lock().progress.phase == Phase::Finished
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        let waiting = self.lock().progress.phase == Phase::Queued;
        if waiting {
            self.finish(Phase::Queued, Err(Error::Cancelled));
        }
    }

    /// Ends the job if it is still in phase `from`.
    fn finish(&self, from: Phase, result: Result<Generation>) {
        let mut state = self.lock();
        if state.progress.phase == from {
            state.progress = Progress { phase: Phase::Finished, ..Progress::default() };
            state.result = Some(result);
            let (observer, waker) = (state.observer.take(), state.waker.take());
            self.finished.notify_all();
            // Somebody else's code runs when these are dropped and woken, and must find the job unlocked.
            drop(state);
            drop(observer);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Ends a waiting job whose turn will never come.
    pub(crate) fn abandon(&self) {
        self.finish(Phase::Queued, Err(Error::WorkerGone));
    }

    /// On the worker's thread.
    pub(crate) fn run(&self, run: &mut Run) {
        let observer = {
            let mut state = self.lock();
            if state.progress.phase != Phase::Queued {
                return;
            }
            state.progress.phase = Phase::Running;
            state.observer.take()
        };
        let started = Instant::now();
        let _watched = interrupt::watch(Arc::clone(&self.cancelled));
        let mut watch = JobWatch { job: self, observer };
        // What a panic may leave behind in the pipeline are loaded networks and caches, which are only replaced as a whole.
        // The observer is somebody else's code, and is dropped inside.
        let caught = catch_unwind(AssertUnwindSafe(move || run(&self.request, &mut watch)));
        let result = caught.unwrap_or_else(|panic| Err(Error::Panicked(message(panic.as_ref()))));
        let failed = result.as_ref().err().map(ToString::to_string);
        tracing::debug!(job = self.id, elapsed = ?started.elapsed(), failed, "finished");
        self.finish(Phase::Running, result);
    }
}

/// Keeps the progress of a job, and passes on to the observer of the one who submitted it.
struct JobWatch<'a> {
    job: &'a Job,
    observer: Option<Box<dyn Observer + Send>>,
}

impl Observer for JobWatch<'_> {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        {
            let mut state = self.job.lock();
            state.progress.follow(event);
        }
        // A finished image is handed out even if the job has been cancelled.
        if self.cancelled() && !matches!(event, Event::Image { .. }) {
            return ControlFlow::Break(());
        }
        self.observer.as_mut().map_or(ControlFlow::Continue(()), |observer| observer.event(event))
    }

    fn cancelled(&mut self) -> bool {
        self.job.cancelled.load(Ordering::Relaxed)
            || self.observer.as_mut().is_some_and(|observer| observer.cancelled())
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests;
