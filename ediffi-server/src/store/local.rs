//! The queue of one server, in memory, and on disk if asked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::broadcast;

use super::archive::{Archive, Stored};
use super::fair::FairQueue;
use super::{Depth, JobStore, NewJob, Outcome, Stop, StoreError, TakenJob, Update};
use crate::job::{Failure, Job, JobEvent, JobId, JobState, now};

/// Events that one who watches may be behind. Who is further behind is told the state of the job again.
const BEHIND: usize = 64;

/// How many times a job is begun. One that ends the server each time is given up.
const ATTEMPTS: u32 = 2;

/// How much is taken, and what is kept for how long.
#[derive(Debug, Clone)]
pub struct Keep {
    /// Jobs that may wait (default: 64).
    pub queue: usize,
    /// Jobs of one client that may wait (default: 16).
    pub queue_of_client: usize,
    /// How long a job that is over is kept (default: an hour).
    pub for_long: Duration,
    /// Bytes of pictures that are kept (default: 1 GiB); the oldest jobs go first.
    pub bytes: u64,
    /// Jobs that are over and kept (default: 10 000); the oldest go first.
    pub jobs: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self { queue: 64, queue_of_client: 16, for_long: Duration::from_secs(3600), bytes: 1 << 30, jobs: 10_000 }
    }
}

/// The queue of one server. Jobs are in memory, and on disk beside it if asked.
#[derive(Debug)]
pub struct LocalStore {
    keep: Keep,
    archive: Option<Archive>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<JobId, Entry>,
    queue: FairQueue<JobId>,
    stopped: bool,
    /// Whether jobs that run were given up, too.
    given_up: bool,
}

#[derive(Debug)]
struct Entry {
    job: Job,
    new: NewJob,
    stop: Arc<Stop>,
    /// In memory; empty where they are on disk.
    pictures: HashMap<usize, Bytes>,
    events: broadcast::Sender<JobEvent>,
    ended: Option<Instant>,
}

impl Entry {
    fn new(job: Job, new: NewJob) -> Self {
        let (events, _) = broadcast::channel(if job.state.is_over() { 1 } else { BEHIND });
        // By the clock of the wall, which goes on while no server runs.
        let ago = job.ended.map(|ended| Duration::try_from_secs_f64(now() - ended).unwrap_or_default());
        let ended = ago.map(|ago| Instant::now().checked_sub(ago).unwrap_or_else(Instant::now));
        Self { job, new, stop: Arc::default(), pictures: HashMap::new(), events, ended }
    }

    fn tell(&self, event: JobEvent) {
        // Where nobody watches, nobody is told.
        let _ = self.events.send(event);
    }

    fn tell_state(&self) {
        self.tell(JobEvent::Job(Box::new(self.job.clone())));
    }

    /// Tells of the end. Those who watch still read what came before. The room for events is free then, and so is what stops the job: it holds
    /// the request.
    fn tell_end(&mut self) {
        self.tell_state();
        (self.events, self.stop) = (broadcast::channel(1).0, Arc::default());
    }

    fn bytes(&self) -> u64 {
        self.job.images.iter().map(|image| image.bytes as u64).sum()
    }
}

impl LocalStore {
    /// A store in memory.
    #[must_use]
    pub fn in_memory(keep: Keep) -> Self {
        Self { keep, archive: None, state: Mutex::default(), changed: Condvar::new() }
    }

    /// A store on disk: a list of jobs in SQLite, and the pictures beside it, in `folder`. Jobs that were not over when the last server
    /// ended wait again, with all they had; one that has ended two servers while it was drawn fails.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Archive`], [`StoreError::Unreadable`] and [`StoreError::File`].
    pub fn on_disk(folder: &Path, keep: Keep) -> Result<Self, StoreError> {
        let (archive, stored) = Archive::open(folder)?;
        let mut state = State::default();
        for Stored { mut job, new, attempts } in stored {
            if !job.state.is_over() && attempts >= ATTEMPTS {
                let message = format!("the server ended {attempts} times while this was drawn");
                job.error = Some(Failure::new("gave_up", message));
                (job.state, job.ended) = (JobState::Failed, Some(now()));
                archive.ended(&job)?;
            } else if !job.state.is_over() && new.attended {
                (job.state, job.ended) = (JobState::Cancelled, Some(now()));
                archive.ended(&job)?;
            } else if !job.state.is_over() {
                (job.state, job.started) = (JobState::Queued, None);
                archive.waits(job.id)?;
                state.queue.push(&new.client, job.id);
            }
            state.entries.insert(job.id, Entry::new(job, new));
        }
        Ok(Self { keep, archive: Some(archive), state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The lists are whole after every change, whatever panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what need not be kept any more.
    fn sweep(&self, state: &mut State) -> Result<(), StoreError> {
        let mut over: Vec<(Instant, JobId, u64)> = state
            .entries
            .values()
            .filter_map(|entry| entry.ended.map(|ended| (ended, entry.job.id, entry.bytes())))
            .collect();
        over.sort_unstable();
        let mut bytes: u64 = over.iter().map(|(_, _, bytes)| bytes).sum();
        let mut too_many = over.len().saturating_sub(self.keep.jobs);
        for (ended, id, of_job) in over {
            if ended.elapsed() < self.keep.for_long && bytes <= self.keep.bytes && too_many == 0 {
                break;
            }
            too_many = too_many.saturating_sub(1);
            bytes = bytes.saturating_sub(of_job);
            self.forget(state, id)?;
        }
        Ok(())
    }

    fn forget(&self, state: &mut State, id: JobId) -> Result<bool, StoreError> {
        let over = state.entries.get(&id).is_some_and(|entry| entry.job.state.is_over());
        if let (true, Some(archive)) = (over, &self.archive) {
            archive.remove(id)?;
        }
        Ok(over && state.entries.remove(&id).is_some())
    }

    /// Ends a job for those who watch it here. On disk it waits for the next start.
    fn give_back(&self, entry: &mut Entry) -> Result<(), StoreError> {
        let job = &mut entry.job;
        (job.state, job.ended, job.position) = (JobState::Failed, Some(now()), None);
        job.error = Some(Failure::new("shutting_down", "the server is shutting down"));
        entry.ended = Some(Instant::now());
        entry.tell_end();
        let Some(archive) = &self.archive else { return Ok(()) };
        // Who waited is told, and is gone at the next start.
        if entry.new.attended { archive.ended(&entry.job) } else { archive.given_back(entry.job.id) }
    }

    /// Ends a job, in memory and on disk.
    fn end(&self, entry: &mut Entry, state: JobState, error: Option<Failure>) -> Result<(), StoreError> {
        let job = &mut entry.job;
        (job.state, job.error, job.ended, job.position) = (state, error, Some(now()), None);
        if state == JobState::Finished {
            job.progress.fraction = 1.0;
        }
        entry.ended = Some(Instant::now());
        entry.new.forget_request();
        // Those who wait are told in any case.
        entry.tell_end();
        self.archive.as_ref().map_or(Ok(()), |archive| archive.ended(&entry.job))
    }
}

impl State {
    /// A job as it is now.
    fn seen(&self, entry: &Entry) -> Job {
        Job { position: self.queue.position(entry.job.id), ..entry.job.clone() }
    }

    /// Tells those who watch waiting jobs where they stand.
    fn tell_positions(&self) {
        let watched = |id| self.entries.get(&id).filter(|entry| entry.events.receiver_count() > 0);
        for entry in self.queue.iter().filter_map(watched) {
            entry.tell(JobEvent::Job(Box::new(self.seen(entry))));
        }
    }
}

impl JobStore for LocalStore {
    fn submit(&self, new: NewJob) -> Result<Job, StoreError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(StoreError::Stopped);
        }
        let (waiting, of_client) = (state.queue.len(), state.queue.of(&new.client));
        if waiting >= self.keep.queue {
            return Err(StoreError::Full { waiting });
        }
        if of_client >= self.keep.queue_of_client {
            return Err(StoreError::ClientFull { waiting: of_client });
        }
        self.sweep(&mut state)?;
        let job = Job::new(&new.model, &new.request);
        if let Some(archive) = &self.archive {
            archive.add(&job, &new)?;
        }
        state.queue.push(&new.client, job.id);
        let entry = Entry::new(job, new);
        let seen = state.seen(&entry);
        state.entries.insert(seen.id, entry);
        self.changed.notify_one();
        Ok(seen)
    }

    fn take(&self, wait: Duration) -> Result<Option<TakenJob>, StoreError> {
        let mut state = self.lock();
        let empty = |state: &mut State| !state.stopped && state.queue.len() == 0;
        if empty(&mut state) {
            let waited = self.changed.wait_timeout_while(state, wait, empty);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.stopped {
            return Err(StoreError::Stopped);
        }
        let Some(id) = state.queue.pop() else {
            self.sweep(&mut state)?;
            return Ok(None);
        };
        let taken = match state.entries.get_mut(&id) {
            Some(entry) => {
                (entry.job.state, entry.job.started) = (JobState::Running, Some(now()));
                if let Err(error) = self.archive.as_ref().map_or(Ok(()), |archive| archive.started(&entry.job)) {
                    // What cannot be written down is not begun: it might be begun again and again.
                    let told = self.end(entry, JobState::Failed, Some(Failure::new("failed", error.to_string())));
                    return told.and(Err(error));
                }
                entry.tell_state();
                Some(TakenJob { id, job: entry.new.clone(), stop: Arc::clone(&entry.stop) })
            }
            None => None,
        };
        state.tell_positions();
        Ok(taken)
    }

    fn update(&self, id: JobId, update: Update) -> Result<(), StoreError> {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&id).filter(|entry| entry.job.state == JobState::Running) else {
            return Ok(());
        };
        match update {
            Update::Progress(progress) => {
                entry.job.progress = progress.clone();
                entry.tell(JobEvent::Progress(progress));
            }
            Update::Preview(preview) => entry.tell(JobEvent::Preview(preview)),
            Update::Image(image, file) => {
                match &self.archive {
                    Some(archive) => archive.picture(id, &image, &file)?,
                    None => drop(entry.pictures.insert(image.index, file)),
                }
                // One that was begun again draws its pictures again.
                entry.job.images.retain(|other| other.index != image.index);
                entry.job.images.push(image.clone());
                entry.tell(JobEvent::Image(image));
            }
        }
        Ok(())
    }

    fn finish(&self, id: JobId, outcome: Outcome) -> Result<(), StoreError> {
        let mut state = self.lock();
        let given_up = state.given_up;
        let Some(entry) = state.entries.get_mut(&id).filter(|entry| !entry.job.state.is_over()) else {
            return Ok(());
        };
        let (over, error) = match outcome {
            Outcome::Finished => (JobState::Finished, None),
            Outcome::Failed(failure) => (JobState::Failed, Some(failure)),
            Outcome::Cancelled => (JobState::Cancelled, None),
        };
        if given_up && over == JobState::Cancelled {
            return self.give_back(entry);
        }
        self.end(entry, over, error)?;
        self.sweep(&mut state)
    }

    fn cancel(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let mut state = self.lock();
        state.queue.remove(id);
        let Some(entry) = state.entries.get_mut(&id) else { return Ok(None) };
        if !entry.job.state.is_over() {
            entry.stop.ask();
            self.end(entry, JobState::Cancelled, None)?;
        }
        let job = entry.job.clone();
        state.tell_positions();
        Ok(Some(job))
    }

    fn remove(&self, id: JobId) -> Result<bool, StoreError> {
        self.forget(&mut self.lock(), id)
    }

    fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let state = self.lock();
        Ok(state.entries.get(&id).map(|entry| state.seen(entry)))
    }

    fn jobs(&self, client: &str) -> Result<Vec<Job>, StoreError> {
        let state = self.lock();
        let own = state.entries.values().filter(|entry| entry.new.client == client);
        let mut jobs: Vec<Job> = own.map(|entry| state.seen(entry)).collect();
        jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
        Ok(jobs)
    }

    fn picture(&self, id: JobId, index: usize) -> Result<Option<Bytes>, StoreError> {
        let state = self.lock();
        let Some(entry) = state.entries.get(&id) else { return Ok(None) };
        if !entry.job.images.iter().any(|image| image.index == index) {
            return Ok(None);
        }
        let in_memory = entry.pictures.get(&index).cloned();
        drop(state);
        match (&self.archive, in_memory) {
            (Some(archive), None) => archive.read(id, index),
            (_, file) => Ok(file),
        }
    }

    fn watch(&self, id: JobId) -> Result<Option<(Job, broadcast::Receiver<JobEvent>)>, StoreError> {
        let state = self.lock();
        Ok(state.entries.get(&id).map(|entry| (state.seen(entry), entry.events.subscribe())))
    }

    fn depth(&self) -> Result<Depth, StoreError> {
        let state = self.lock();
        let mut depth = Depth { waiting: state.queue.len(), ..Depth::default() };
        for entry in state.entries.values() {
            depth.running += usize::from(entry.job.state == JobState::Running);
            depth.kept += usize::from(entry.ended.is_some());
            depth.bytes += entry.bytes();
        }
        Ok(depth)
    }

    fn stop(&self, running: bool) -> Result<(), StoreError> {
        let mut state = self.lock();
        (state.stopped, state.given_up) = (true, state.given_up || running);
        self.changed.notify_all();
        let runs = |entry: &&Entry| running && entry.job.state == JobState::Running;
        state.entries.values().filter(runs).for_each(|entry| entry.stop.ask());
        while let Some(id) = state.queue.pop() {
            if let Some(entry) = state.entries.get_mut(&id) {
                self.give_back(entry)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
