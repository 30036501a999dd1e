//! The queue between those who submit jobs and the thread that runs them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::job::Job;
use crate::{Error, Result};

/// Jobs in order of submission, up to a capacity.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Arc<Job>>,
    closed: bool,
}

impl Queue {
    /// An empty queue for `capacity` jobs.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { waiting: Mutex::default(), changed: Condvar::new(), capacity }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The list is whole after every change, whatever panicked.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job, if there is room. Jobs that were cancelled while they waited take up none.
    pub(crate) fn push(&self, job: Arc<Job>) -> Result<()> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Error::WorkerGone);
        }
        if waiting.jobs.len() >= self.capacity {
            waiting.jobs.retain(|job| !job.is_finished());
        }
        if waiting.jobs.len() >= self.capacity {
            return Err(Error::QueueFull(self.capacity));
        }
        waiting.jobs.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job, as soon as there is one; none once the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<Arc<Job>> {
        let idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.closed;
        let waiting = self.changed.wait_while(self.lock(), idle);
        waiting.unwrap_or_else(PoisonError::into_inner).jobs.pop_front()
    }

    /// No more jobs will run: those that wait are told so.
    pub(crate) fn abandon(&self) {
        self.close();
        let left = std::mem::take(&mut self.lock().jobs);
        left.iter().for_each(|job| job.abandon());
    }

    /// No more jobs will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}
