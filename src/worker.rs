//! Pipelines on threads of their own, for programs of many threads.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ediffi_core::exit;

use crate::job::{Job, Run, WorkerId};
use crate::queue::{Queue, Refused};
use crate::validate::{self, Checks};
use crate::{Error, Generation, JobHandle, Observer, Pipeline, Request, Result};

/// Number of jobs that may wait, unless [`Worker::with_capacity`] sets another.
pub const QUEUE_CAPACITY: usize = 64;

/// Owns a pipeline on a thread of its own and runs a queue of requests, one after the other. It may own several pipelines, one on each
/// device, over the same queue.
///
/// A [`Pipeline`] belongs to one thread at a time; a worker can be cloned and used from all threads. A job that fails or panics does not
/// stop the worker. When the last clone is dropped, all jobs are cancelled, and the drop waits until the threads have ended: keep a
/// clone for as long as you wait for jobs.
///
/// A process may end while a worker computes: `main` returns, or somebody calls [`std::process::exit`]. The jobs are told to stop,
/// and the end waits until they have, within one evaluation of a network. It does not wait for observers.
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
#[derive(Debug, Clone)]
pub struct Worker(Arc<Shared>);

/// What the clones of a worker share; its threads do not hold it, so it is dropped with the last clone.
struct Shared {
    id: WorkerId,
    queue: Arc<Queue<Arc<Job>>>,
    /// Taken by the one who waits for their end.
    threads: Mutex<Vec<JoinHandle<()>>>,
    next_job: AtomicU64,
    checks: Option<Checks>,
}

/// The end of the queue where jobs are taken out, on a thread of the worker. Whatever ends the last thread, the jobs that still wait
/// are told so.
struct JobReceiver(Arc<Queue<Arc<Job>>>);

impl Drop for JobReceiver {
    fn drop(&mut self) {
        self.0.leave().iter().for_each(|job| job.abandon());
    }
}

impl Worker {
    /// A worker with a queue of [`QUEUE_CAPACITY`].
    ///
    /// # Errors
    /// [`Error::WorkerThread`].
    pub fn new(pipeline: Pipeline) -> Result<Self> {
        Self::with_capacity(pipeline, QUEUE_CAPACITY)
    }

    /// A worker with a queue of `capacity` jobs (at least one), besides the job that runs.
    ///
    /// # Errors
    /// [`Error::WorkerThread`].
    pub fn with_capacity(pipeline: Pipeline, capacity: usize) -> Result<Self> {
        Self::over([pipeline], capacity)
    }

    /// A worker over several pipelines of one model, each on a thread of its own, usually each on a device of its own. They share a queue
    /// of `capacity` jobs (at least one), and each takes the next job when it is done with one. So all have to draw the same pictures,
    /// but for rounding: on unlike devices, choose a [precision](crate::PipelineBuilder::precision).
    ///
    /// ```no_run
    /// use ediffi::{DeviceChoice, Pipeline, Worker};
    ///
    /// let on = |device| Pipeline::builder("models/icons").device(DeviceChoice::Cuda(device)).open();
    /// let worker = Worker::over([on(0)?, on(1)?], 64)?;
    /// # Ok::<(), ediffi::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::WorkerPipelines`] without pipelines; [`Error::WorkerPipelinesDiffer`] for pipelines with other weights, settings or limits;
    /// files that cannot be read; [`Error::WorkerThread`].
    pub fn over(pipelines: impl IntoIterator<Item = Pipeline>, capacity: usize) -> Result<Self> {
        let pipelines: Vec<Pipeline> = pipelines.into_iter().collect();
        let Some(first) = pipelines.first() else { return Err(Error::WorkerPipelines("there are none")) };
        for other in pipelines.iter().skip(1) {
            if let Some(part) = first.differs(other)? {
                return Err(Error::WorkerPipelinesDiffer(part));
            }
        }
        let checks = first.checks();
        let run = |pipeline: Pipeline| -> Run {
            Box::new(move |request, observer| pipeline.generate_with(request, observer))
        };
        Self::start(capacity, pipelines.into_iter().map(run).collect(), Some(checks))
    }

    fn start(capacity: usize, runs: Vec<Run>, checks: Option<Checks>) -> Result<Self> {
        exit::watch_thread();
        let id = WorkerId::new();
        let queue = Arc::new(Queue::new(capacity.max(1), runs.len()));
        let (threads, next_job) = (Mutex::default(), AtomicU64::new(0));
        // From here on an error drops the worker, which ends the threads that were started.
        let worker = Self(Arc::new(Shared { id, queue, threads, next_job, checks }));
        for (index, mut run) in runs.into_iter().enumerate() {
            let receiver = JobReceiver(Arc::clone(&worker.0.queue));
            let work = move || {
                id.take_thread();
                let JobReceiver(queue) = &receiver;
                while let Some(job) = queue.pop(index) {
                    job.run(&mut run);
                }
                let _inside = exit::enter();
                drop(run);
            };
            let thread = std::thread::Builder::new().name("ediffi worker".to_owned()).spawn(work);
            worker.0.threads().push(thread.map_err(Error::WorkerThread)?);
        }
        Ok(worker)
    }

    /// Puts a request into the queue. What can be checked without opening a file is checked before: the rest, such as the length of
    /// the prompt in tokens, when the job runs.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`]; [`Error::QueueFull`]: the call never waits for room; [`Error::WorkerGone`] after
    /// [`shutdown`](Self::shutdown).
    pub fn submit(&self, request: Request) -> Result<JobHandle> {
        self.submit_with(request, ())
    }

    /// Puts a request into the queue; `observer` watches it on the worker's thread.
    ///
    /// # Errors
    /// As [`Worker::submit`].
    pub fn submit_with(&self, request: Request, observer: impl Observer + Send + 'static) -> Result<JobHandle> {
        let Shared { id, queue, next_job, checks, .. } = &*self.0;
        if let Some(checks) = checks {
            validate::validate(&request, checks.abilities(), || Ok(Vec::new()))?;
        }
        let number = next_job.fetch_add(1, Ordering::Relaxed);
        let job = Arc::new(Job::new(*id, number, request, Box::new(observer)));
        queue.push(Arc::clone(&job)).map_err(|refused| match refused {
            Refused::Full => Error::QueueFull(queue.capacity()),
            Refused::Closed => Error::WorkerGone,
        })?;
        Ok(JobHandle::new(job))
    }

    /// Puts a request into the queue and waits for it.
    ///
    /// # Errors
    /// Those of [`Worker::submit`] and [`Pipeline::generate`]; [`Error::Busy`] in an observer of this very worker, which would wait for
    /// itself.
    pub fn generate(&self, request: Request) -> Result<Generation> {
        if self.0.id.owns_thread() {
            return Err(Error::Busy);
        }
        self.submit(request)?.wait()
    }

    /// Cancels all jobs and waits until the threads have ended, as the drop of the last clone does. No clone takes jobs any more.
    ///
    /// # Errors
    /// [`Error::Busy`] in an observer of this very worker, whose thread cannot wait for its own end. The jobs are cancelled all the same.
    pub fn shutdown(&self) -> Result<()> {
        self.0.end()
    }
}

impl Shared {
    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> Result<()> {
        self.queue.close().iter().for_each(|job| job.cancel());
        if self.id.owns_thread() {
            return Err(Error::Busy);
        }
        // Whoever else wants to wait for them waits for the lock.
        for thread in self.threads().drain(..) {
            if thread.join().is_err() {
                tracing::warn!("a thread of a worker panicked");
            }
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::debug!(%error, "the last worker was dropped on its own thread");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("capacity", &self.queue.capacity()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
