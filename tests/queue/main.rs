//! The queue of a worker in a model of threads: each case runs in every order in which the threads can take turns.
//!
//! The file under test is that of the library, with the locks of `loom` in the place of those of the standard library.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

/// What `queue.rs` has as `crate::sync`.
mod sync {
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
}

#[path = "../../src/queue.rs"]
mod queue;

use loom::sync::Arc;
use loom::thread;
use queue::{Queue, Refused, Waiting};

/// A job is its number. Those from 100 on were cancelled while they waited.
impl Waiting for u32 {
    fn is_over(&self) -> bool {
        *self >= 100
    }
}

/// A thread that takes jobs until there are none, as a worker's does. Returns what it took.
fn taker(queue: &Arc<Queue<u32>>, index: usize) -> thread::JoinHandle<Vec<u32>> {
    let queue = queue.clone();
    thread::spawn(move || {
        let mut taken = Vec::new();
        while let Some(job) = queue.pop(index) {
            taken.push(job);
        }
        assert!(queue.leave().is_empty(), "a queue that was closed holds nothing");
        taken
    })
}

/// Whoever puts a job in learns that it was refused, or it is run by one thread, or handed back to the one who closes the queue.
#[test]
fn no_job_is_lost_and_none_runs_twice() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(1, 1));
        let taker = taker(&queue, 0);
        let pusher = {
            let queue = queue.clone();
            thread::spawn(move || [1, 2].map(|job| queue.push(job)))
        };
        let closed = queue.close();
        let [first, second] = pusher.join().unwrap();
        let taken = taker.join().unwrap();
        for (job, put) in [(1, first), (2, second)] {
            let times = taken.iter().filter(|taken| **taken == job).count();
            let handed_back = closed.contains(&job);
            match put {
                // One that runs while the queue is closed is handed back, too, to be cancelled.
                Ok(()) => assert!(times <= 1 && (times == 1 || handed_back), "{job}: {times}, {handed_back}"),
                Err(Refused::Full | Refused::Closed) => assert!(times == 0 && !handed_back, "{job}"),
            }
        }
        assert_eq!(queue.push(3), Err(Refused::Closed));
    });
}

/// No thread sleeps for ever, however many there are and whenever the queue is closed.
#[test]
fn all_threads_end() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(2, 2));
        let takers = [0, 1].map(|index| taker(&queue, index));
        queue.push(1).unwrap();
        let closed = queue.close();
        let taken: Vec<u32> = takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect();
        assert!(taken.len() == 1 || closed == [1], "{taken:?} {closed:?}");
    });
}

/// The thread is gone: behind it nothing waits that nobody will ever run.
#[test]
fn behind_the_last_thread_the_queue_is_closed() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(2, 1));
        let leaver = {
            let queue = queue.clone();
            thread::spawn(move || queue.leave())
        };
        let put = queue.push(1);
        let left = leaver.join().unwrap();
        assert_eq!(left.len(), usize::from(put.is_ok()));
        assert_eq!(queue.push(2), Err(Refused::Closed));
    });
}

#[test]
fn a_full_queue_refuses_and_forgets_what_is_over() {
    loom::model(|| {
        let queue = Queue::new(2, 1);
        assert_eq!(queue.capacity(), 2);
        assert_eq!([1, 100, 2, 3].map(|job| queue.push(job)), [Ok(()), Ok(()), Ok(()), Err(Refused::Full)]);
        assert_eq!([queue.pop(0), queue.pop(0)], [Some(1), Some(2)]);
        assert_eq!(queue.close(), [2]);
        assert_eq!(queue.pop(0), None);
    });
}
