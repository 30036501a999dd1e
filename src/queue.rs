//! The queue between those who submit jobs and the threads that run them.
//!
//! It knows of its jobs only whether they are over, and its locks are those of `crate::sync`: so `tests/queue` runs this very file in
//! a model of threads, in every order.

use std::collections::VecDeque;
use std::sync::PoisonError;

use crate::sync::{Condvar, Mutex, MutexGuard};

/// What waits in a queue.
pub(crate) trait Waiting {
    /// Whether it was cancelled while it waited.
    fn is_over(&self) -> bool;
}

/// Jobs in order of submission, up to a capacity, for one thread or several that take them.
#[derive(Debug)]
pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<J> {
    waiting: VecDeque<J>,
    /// The job that each thread works on.
    running: Vec<Option<J>>,
    /// How many threads take jobs.
    takers: usize,
    closed: bool,
}

/// Why a job was not taken into a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

impl<J: Waiting + Clone> Queue<J> {
    /// An empty queue for `capacity` jobs, from which `takers` threads take.
    pub(crate) fn new(capacity: usize, takers: usize) -> Self {
        let (waiting, running) = (VecDeque::new(), (0..takers).map(|_| None).collect());
        let state = Mutex::new(State { waiting, running, takers, closed: false });
        Self { state, changed: Condvar::new(), capacity }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The lists are whole after every change, whatever panicked.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job, if there is room. Jobs that are over take up none.
    pub(crate) fn push(&self, job: J) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.waiting.len() >= self.capacity {
            state.waiting.retain(|job| !job.is_over());
        }
        if state.waiting.len() >= self.capacity {
            return Err(Refused::Full);
        }
        state.waiting.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job for thread `taker`, which is done with the one before, as soon as there is one; none once the queue is closed.
    pub(crate) fn pop(&self, taker: usize) -> Option<J> {
        // Dropped at once, but not under the lock: a job holds its pictures.
        let done = self.lock().running.get_mut(taker).and_then(Option::take);
        drop(done);
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let job = state.waiting.pop_front();
        if let Some(place) = state.running.get_mut(taker) {
            place.clone_from(&job);
        }
        job
    }

    /// No more jobs come, and none is taken any more. Returns those that wait and those that run.
    #[must_use]
    pub(crate) fn close(&self) -> Vec<J> {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        let waiting = std::mem::take(&mut state.waiting);
        waiting.into_iter().chain(state.running.iter().flatten().cloned()).collect()
    }

    /// A thread takes no more jobs. Behind the last of them the queue is closed: returns the jobs that wait then.
    #[must_use]
    pub(crate) fn leave(&self) -> Vec<J> {
        let mut state = self.lock();
        state.takers = state.takers.saturating_sub(1);
        if state.takers > 0 {
            return Vec::new();
        }
        drop(state);
        self.close()
    }
}
