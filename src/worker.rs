//! A pipeline on a thread of its own, for programs of many threads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::job::{Job, Run};
use crate::queue::Queue;
use crate::{Error, Generation, JobHandle, Observer, Pipeline, Request, Result};

/// Number of jobs that may wait, unless [`Worker::with_capacity`] sets another.
pub const QUEUE_CAPACITY: usize = 64;

/// Owns a pipeline on a thread of its own and runs a queue of requests, one after the other.
///
/// A [`Pipeline`] belongs to one thread at a time; a worker can be cloned and used from all threads. Its thread ends when
/// the last clone is dropped and all jobs with a handle are finished. A job that fails or panics does not stop the worker.
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
    sender: Arc<JobSender>,
    next_id: Arc<AtomicU64>,
}

/// The end of the queue where jobs are put in. The queue closes when the last worker drops it.
struct JobSender(Arc<Queue>);

impl Drop for JobSender {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The end of the queue where jobs are taken out, on the worker's thread. Whatever ends the thread, the jobs that still wait
/// are told so.
struct JobReceiver(Arc<Queue>);

impl Drop for JobReceiver {
    fn drop(&mut self) {
        self.0.abandon();
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
        Self::start(capacity, Box::new(move |request, observer| pipeline.generate_with(request, observer)))
    }

    fn start(capacity: usize, mut run: Run) -> Result<Self> {
        let queue = Arc::new(Queue::new(capacity.max(1)));
        let sender = Arc::new(JobSender(Arc::clone(&queue)));
        let receiver = JobReceiver(queue);
        let work = move || {
            let JobReceiver(queue) = &receiver;
            while let Some(job) = queue.pop() {
                job.run(&mut run);
            }
        };
        let thread = std::thread::Builder::new().name("ediffi worker".to_owned()).spawn(work);
        thread.map_err(Error::WorkerThread)?;
        Ok(Self { sender, next_id: Arc::default() })
    }

    /// Puts a request into the queue.
    ///
    /// # Errors
    /// [`Error::QueueFull`]. The call never waits for room.
    pub fn submit(&self, request: Request) -> Result<JobHandle> {
        self.submit_with(request, ())
    }

    /// Puts a request into the queue; `observer` watches it on the worker's thread.
    ///
    /// # Errors
    /// As [`Worker::submit`].
    pub fn submit_with(&self, request: Request, observer: impl Observer + Send + 'static) -> Result<JobHandle> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let job = Arc::new(Job::new(id, request, Box::new(observer)));
        self.sender.0.push(Arc::clone(&job))?;
        Ok(JobHandle::new(job))
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
        f.debug_struct("Worker").field("capacity", &self.sender.0.capacity()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::{Canceller, Phase};

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
        assert!(matches!(&results[3], Err(Error::Panicked(message)) if message == "on purpose"));
        assert_eq!(hear.try_iter().collect::<Vec<_>>(), ["a", "fail", "b", "panic", "c"]);
    }

    #[test]
    fn a_full_queue_says_so() {
        let (worker, go, hear) = worker(1);
        let first = worker.submit(Request::new("wait")).unwrap();
        hear.recv().unwrap();
        let second = worker.submit(Request::new("a")).unwrap();
        assert!(matches!(worker.submit(Request::new("b")), Err(Error::QueueFull(1))));
        // A job that was cancelled while it waited makes room at once.
        second.cancel();
        let third = worker.submit(Request::new("c")).unwrap();
        go.send(()).unwrap();
        first.wait().unwrap();
        third.wait().unwrap();
        assert_eq!(hear.try_iter().collect::<Vec<_>>(), ["c"]);
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
}
