//! A pipeline on a thread of its own, for programs that ask from many.

use std::any::Any;
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Event, Generation, Observer, Pipeline, Request, Result};

/// How many jobs may wait, unless [`Worker::with_capacity`] says otherwise.
pub const QUEUE_CAPACITY: usize = 64;

/// What a worker's thread does with a request.
type Run = Box<dyn FnMut(&Request, &mut dyn Observer) -> Result<Generation> + Send>;

/// Owns a pipeline on a thread of its own and works off a queue of requests, one after the other.
///
/// A [`Pipeline`] belongs to one thread at a time; a worker can be cloned and used from all of them. The thread ends when
/// the last clone is dropped and the jobs that somebody still holds a handle of are done. A job that fails or panics ends
/// alone: the worker goes on.
///
/// ```no_run
/// use ediffi::{Pipeline, Request, Worker};
///
/// let worker = Worker::new(Pipeline::open("models/icons")?)?;
/// let jobs: Vec<_> =
///     (0..4).map(|seed| worker.submit(Request::new("a red apple").seed(seed))).collect::<Result<_, _>>()?;
/// for job in jobs {
///     let generation = job.wait()?;
///     println!("{}", generation.images[0].seed());
/// }
/// # Ok::<(), ediffi::Error>(())
/// ```
#[derive(Clone)]
pub struct Worker {
    queue: SyncSender<Arc<Job>>,
    capacity: usize,
    next_id: Arc<AtomicU64>,
}

impl Worker {
    /// A worker with a queue of [`QUEUE_CAPACITY`].
    ///
    /// # Errors
    /// [`Error::WorkerThread`].
    pub fn new(pipeline: Pipeline) -> Result<Self> {
        Self::with_capacity(pipeline, QUEUE_CAPACITY)
    }

    /// A worker that lets `capacity` jobs wait, besides the one that runs; at least one.
    ///
    /// # Errors
    /// [`Error::WorkerThread`].
    pub fn with_capacity(pipeline: Pipeline, capacity: usize) -> Result<Self> {
        Self::start(capacity, Box::new(move |request, observer| pipeline.generate_with(request, observer)))
    }

    fn start(capacity: usize, mut run: Run) -> Result<Self> {
        let capacity = capacity.max(1);
        let (queue, jobs) = sync_channel::<Arc<Job>>(capacity);
        let work = move || {
            while let Ok(job) = jobs.recv() {
                job.run(&mut run);
            }
        };
        let thread = std::thread::Builder::new().name("ediffi worker".to_owned()).spawn(work);
        thread.map_err(|source| Error::WorkerThread { source })?;
        Ok(Self { queue, capacity, next_id: Arc::default() })
    }

    /// Puts a request into the queue.
    ///
    /// # Errors
    /// [`Error::QueueFull`], at once: the caller decides whether to wait.
    pub fn submit(&self, request: Request) -> Result<JobHandle> {
        self.submit_with(request, ())
    }

    /// Puts a request into the queue; `observer` watches it on the worker's thread.
    ///
    /// # Errors
    /// As [`Worker::submit`].
    pub fn submit_with(&self, request: Request, observer: impl Observer + Send + 'static) -> Result<JobHandle> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let job = Arc::new(Job {
            id,
            request,
            cancelled: AtomicBool::new(false),
            state: Mutex::new(State { progress: Progress::default(), observer: Some(Box::new(observer)), result: None }),
            finished: Condvar::new(),
        });
        match self.queue.try_send(Arc::clone(&job)) {
            Ok(()) => Ok(JobHandle { job }),
            Err(TrySendError::Full(_)) => Err(Error::QueueFull { capacity: self.capacity }),
            Err(TrySendError::Disconnected(_)) => Err(Error::WorkerGone),
        }
    }

    /// Puts a request into the queue and waits for it.
    ///
    /// # Errors
    /// Those of [`Worker::submit`] and [`Pipeline::generate`].
    pub fn generate(&self, request: Request) -> Result<Generation> {
        self.submit(request)?.wait()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Waiting, running or finished.
    pub phase: Phase,
    /// The stage that runs; empty before the first and after the last.
    pub stage: String,
    /// Its position among the stages that run, from 0.
    pub stage_index: usize,
    /// How many stages run; 0 before the first.
    pub stages: usize,
    /// Steps done in this stage, of all its batches.
    pub step: usize,
    /// All of them.
    pub steps: usize,
}

impl Progress {
    /// From 0 to 1. Each stage counts alike, however long it takes.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        match self.phase {
            Phase::Queued => 0.0,
            Phase::Finished => 1.0,
            Phase::Running => {
                let within = self.step as f64 / self.steps.max(1) as f64;
                (self.stage_index as f64 + within) / self.stages.max(1) as f64
            }
        }
    }
}

/// The phase of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// It waits for its turn.
    #[default]
    Queued,
    /// It runs.
    Running,
    /// It is done, or failed, or was cancelled.
    Finished,
}

/// One job of a [`Worker`]. Dropping it cancels the job: nobody could see its result.
#[derive(Debug)]
pub struct JobHandle {
    job: Arc<Job>,
}

impl JobHandle {
    /// A number that no other job of this worker has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.job.id
    }

    /// Where the job stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.job.lock().progress.clone()
    }

    /// Whether [`JobHandle::wait`] would return at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.progress().phase == Phase::Finished
    }

    /// Stops the job: a waiting one at once, a running one before its next evaluation of a network. A job that is done
    /// stays done.
    pub fn cancel(&self) {
        self.job.cancel();
    }

    /// Something that can cancel the job and be given away.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller { job: Arc::clone(&self.job) }
    }

    /// Waits for the end of the job.
    ///
    /// # Errors
    /// Those of [`Pipeline::generate`], and [`Error::Panicked`].
    pub fn wait(self) -> Result<Generation> {
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
struct Job {
    id: u64,
    request: Request,
    cancelled: AtomicBool,
    state: Mutex<State>,
    finished: Condvar,
}

struct State {
    progress: Progress,
    /// Taken when the job starts.
    observer: Option<Box<dyn Observer + Send>>,
    /// Taken by the one who waits.
    result: Option<Result<Generation>>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("id", &self.id).field("request", &self.request).finish_non_exhaustive()
    }
}

impl Job {
    /// The state is whole after every change, so a thread that panicked while it held the lock left nothing broken.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) {
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
            state.observer = None;
            self.finished.notify_all();
        }
    }

    /// On the worker's thread.
    fn run(&self, run: &mut Run) {
        let observer = {
            let mut state = self.lock();
            if state.progress.phase != Phase::Queued {
                return;
            }
            state.progress.phase = Phase::Running;
            state.observer.take()
        };
        let started = Instant::now();
        let mut watch = Watch { job: self, observer };
        // What a panic may leave behind in the pipeline are loaded networks and caches, which are only replaced as a whole.
        let caught = catch_unwind(AssertUnwindSafe(|| run(&self.request, &mut watch)));
        let result = caught.unwrap_or_else(|panic| Err(Error::Panicked { message: message(panic.as_ref()) }));
        let failed = result.as_ref().err().map(ToString::to_string);
        tracing::debug!(job = self.id, elapsed = ?started.elapsed(), failed, "finished");
        self.finish(Phase::Running, result);
    }
}

/// Keeps the progress of a job, and passes on to the observer of the one who submitted it.
struct Watch<'a> {
    job: &'a Job,
    observer: Option<Box<dyn Observer + Send>>,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        {
            let mut state = self.job.lock();
            let progress = &mut state.progress;
            match event {
                Event::StageStarted { stage, index, stages, plan, batches, .. } => {
                    progress.stage = (*stage).to_owned();
                    (progress.stage_index, progress.stages) = (*index, *stages);
                    (progress.step, progress.steps) = (0, plan.steps().len() * batches);
                }
                Event::Step { batch, steps, index, .. } => progress.step = batch * steps + index + 1,
                _ => {}
            }
        }
        if self.cancelled() {
            return ControlFlow::Break(());
        }
        self.observer.as_mut().map_or(ControlFlow::Continue(()), |observer| observer.event(event))
    }

    fn cancelled(&mut self) -> bool {
        self.job.cancelled.load(Ordering::Relaxed) || self.observer.as_mut().is_some_and(|observer| observer.cancelled())
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn nothing() -> Generation {
        Generation { images: Vec::new(), stages: Vec::new(), encoding: Duration::ZERO }
    }

    /// A worker that does what the prompt says: waits for a go, watches for cancellation, fails or panics.
    fn worker(capacity: usize) -> (Worker, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let (go, wait) = mpsc::channel::<()>();
        let (say, hear) = mpsc::channel();
        let run = move |request: &Request, observer: &mut dyn Observer| {
            let _ = say.send(request.prompt.clone());
            match request.prompt.as_str() {
                "wait" => drop(wait.recv()),
                "until cancelled" => {
                    while !observer.cancelled() {
                        std::thread::yield_now();
                    }
                    return Err(Error::Cancelled);
                }
                "fail" => return Err(Error::PngWithoutRequest),
                "panic" => panic!("on purpose"),
                _ => {}
            }
            Ok(nothing())
        };
        (Worker::start(capacity, Box::new(run)).unwrap(), go, hear)
    }

    #[test]
    fn a_worker_is_for_all_threads() {
        fn shared<T: Clone + Send + Sync>() {}
        fn given_away<T: Send + Sync>() {}
        shared::<Worker>();
        shared::<Canceller>();
        given_away::<JobHandle>();
    }

    #[test]
    fn jobs_run_in_order_and_survive_failures() {
        let (worker, _go, hear) = worker(8);
        let jobs: Vec<_> =
            ["a", "fail", "b", "panic", "c"].map(|prompt| worker.submit(Request::new(prompt)).unwrap()).into();
        assert_eq!(jobs.iter().map(JobHandle::id).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        let results: Vec<_> = jobs.into_iter().map(JobHandle::wait).collect();
        assert!(results[0].is_ok() && results[2].is_ok() && results[4].is_ok());
        assert!(matches!(results[1], Err(Error::PngWithoutRequest)));
        assert!(matches!(&results[3], Err(Error::Panicked { message }) if message == "on purpose"));
        assert_eq!(hear.try_iter().collect::<Vec<_>>(), ["a", "fail", "b", "panic", "c"]);
    }

    #[test]
    fn a_full_queue_says_so() {
        let (worker, go, hear) = worker(1);
        let first = worker.submit(Request::new("wait")).unwrap();
        hear.recv().unwrap();
        let second = worker.submit(Request::new("a")).unwrap();
        assert!(matches!(worker.submit(Request::new("b")), Err(Error::QueueFull { capacity: 1 })));
        go.send(()).unwrap();
        first.wait().unwrap();
        second.wait().unwrap();
    }

    #[test]
    fn a_waiting_job_is_cancelled_at_once_and_never_runs() {
        let (worker, go, hear) = worker(4);
        let first = worker.submit(Request::new("wait")).unwrap();
        hear.recv().unwrap();
        let second = worker.submit(Request::new("b")).unwrap();
        assert_eq!(second.progress().phase, Phase::Queued);
        second.canceller().cancel();
        assert!(second.is_finished());
        assert!(matches!(second.wait(), Err(Error::Cancelled)));
        // A handle that is dropped cancels.
        drop(worker.submit(Request::new("c")).unwrap());
        go.send(()).unwrap();
        first.wait().unwrap();
        worker.generate(Request::new("d")).unwrap();
        assert_eq!(hear.try_iter().collect::<Vec<_>>(), ["d"]);
    }

    #[test]
    fn a_running_job_is_cancelled_through_its_observer() {
        let (worker, _go, hear) = worker(4);
        let job = worker.submit(Request::new("until cancelled")).unwrap();
        hear.recv().unwrap();
        assert_eq!(job.progress().phase, Phase::Running);
        let job = job.try_wait().unwrap_err();
        let job = job.wait_timeout(Duration::from_millis(1)).unwrap_err();
        job.cancel();
        assert!(matches!(job.wait(), Err(Error::Cancelled)));
    }

    #[test]
    fn a_finished_job_stays_finished() {
        let (worker, _go, _hear) = worker(4);
        let job = worker.submit(Request::new("a")).unwrap();
        // Jobs run in order: when this one is done, so is the first.
        worker.generate(Request::new("b")).unwrap();
        assert!(job.is_finished());
        job.cancel();
        let result = job.try_wait();
        assert!(matches!(result, Ok(Ok(_))));
    }

    #[test]
    fn the_thread_ends_with_the_last_worker() {
        let (worker, _go, hear) = worker(4);
        let other = worker.clone();
        drop(worker);
        let job = other.submit(Request::new("a")).unwrap();
        drop(other);
        job.wait().unwrap();
        assert_eq!(hear.recv().unwrap(), "a");
        // The sender lives in the thread: hearing its end is the end of the thread.
        assert!(hear.recv().is_err());
    }

    #[test]
    fn progress_counts_stages_and_steps() {
        let mut progress = Progress { phase: Phase::Running, ..Progress::default() };
        assert_eq!(progress.fraction(), 0.0);
        (progress.stage_index, progress.stages, progress.step, progress.steps) = (1, 2, 3, 6);
        assert_eq!(progress.fraction(), 0.75);
        progress.phase = Phase::Finished;
        assert_eq!(progress.fraction(), 1.0);
    }
}
