//! The worker over pipelines that do what they are told.

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
    (Worker::start(capacity, vec![Box::new(run)], None).unwrap(), go, hear)
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
fn the_last_worker_cancels_its_jobs_and_waits_for_the_thread() {
    let (worker, _go, hear) = worker(4);
    let other = worker.clone();
    drop(worker);
    let running = other.submit(Request::new("until cancelled")).unwrap();
    assert_eq!(hear.recv().unwrap(), "until cancelled");
    let waiting = other.submit(Request::new("a")).unwrap();
    drop(other);
    // The sender lives in the thread: it has ended.
    assert!(matches!(hear.try_recv(), Err(mpsc::TryRecvError::Disconnected)));
    for job in [running, waiting] {
        assert!(job.is_finished() && matches!(job.wait(), Err(Error::Cancelled)));
    }
}

#[test]
fn a_worker_that_was_shut_down_takes_no_jobs() {
    let (worker, _go, hear) = worker(4);
    let other = worker.clone();
    let job = worker.submit(Request::new("until cancelled")).unwrap();
    assert_eq!(hear.recv().unwrap(), "until cancelled");
    worker.shutdown().unwrap();
    assert!(matches!(job.wait(), Err(Error::Cancelled)));
    assert!(matches!(hear.try_recv(), Err(mpsc::TryRecvError::Disconnected)));
    for worker in [worker, other] {
        assert!(matches!(worker.submit(Request::new("a")), Err(Error::WorkerGone)));
        worker.shutdown().unwrap();
    }
}

/// The observer holds the last clone, and is dropped on the worker's thread, which cannot wait for itself.
#[test]
fn the_last_worker_may_be_dropped_on_its_own_thread() {
    let (worker, go, hear) = worker(4);
    let held = worker.clone();
    let observer = move |_: &crate::Event<'_>| {
        let _ = &held;
        std::ops::ControlFlow::Continue(())
    };
    let job = worker.submit_with(Request::new("wait"), observer).unwrap();
    assert_eq!(hear.recv().unwrap(), "wait");
    drop(worker);
    go.send(()).unwrap();
    job.wait().unwrap();
    assert!(hear.recv().is_err(), "the thread ends");
}
