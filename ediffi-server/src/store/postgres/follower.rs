//! A thread that keeps a replica's hold on the jobs it draws, and tells those who watch jobs what has changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::connection::Connection;
use super::{rows, tables};
use crate::job::{Failure, Job, JobEvent, JobId, JobPreview, JobProgress, JobState, now};
use crate::store::{Keep, Stop, StoreError};

/// How often those who watch are told.
const LOOK: Duration = Duration::from_millis(150);

/// How often it is looked for what need not be kept any more.
const SWEEP: Duration = Duration::from_secs(10);

/// How long the last turn of a client is known.
const CLIENTS: Duration = Duration::from_secs(24 * 3600);

/// How many times a job is begun. One that ends the server each time is given up.
const ATTEMPTS: i32 = 2;

/// Events that one who watches may be behind.
const BEHIND: usize = 64;

/// What a replica draws and watches.
#[derive(Debug, Clone)]
pub(super) struct Follower(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    held: HashMap<JobId, Held>,
    watched: HashMap<JobId, Watched>,
    /// Nobody is told any more.
    closed: bool,
}

/// A job that this replica draws.
#[derive(Debug, Default)]
struct Held {
    stop: Arc<Stop>,
    progress: Option<JobProgress>,
    /// The last one of each picture.
    previews: BTreeMap<usize, JobPreview>,
    /// Whether there are new ones.
    previewed: bool,
}

/// A job that somebody watches.
#[derive(Debug)]
struct Watched {
    events: broadcast::Sender<JobEvent>,
    last: Job,
    previews: Vec<JobPreview>,
}

impl Follower {
    /// Starts the thread. It ends when the last copy of the follower is dropped.
    pub(super) fn start(
        connection: Connection,
        replica: JobId,
        lease: Duration,
        keep: Keep,
    ) -> Result<Self, StoreError> {
        let follower = Self(Arc::default());
        let state = Arc::downgrade(&follower.0);
        let run = move || {
            let (mut renewed, mut swept): (Option<Instant>, Option<Instant>) = (None, None);
            while let Some(state) = Weak::upgrade(&state) {
                let follower = Self(state);
                let due = renewed.is_none_or(|renewed| renewed.elapsed() >= lease / 5);
                if due {
                    renewed = Some(Instant::now());
                }
                let looked = follower.look(&connection, replica, due.then_some(lease));
                let sweep = swept.is_none_or(|swept| swept.elapsed() >= SWEEP);
                let swept_now = if sweep { sweep_out(&connection, &keep) } else { Ok(()) };
                if sweep {
                    swept = Some(Instant::now());
                }
                if let Err(error) = looked.and(swept_now) {
                    tracing::error!(%error, "the shared queue");
                }
                drop(follower);
                std::thread::sleep(LOOK);
            }
        };
        let thread = std::thread::Builder::new().name("ediffi follower".to_owned()).spawn(run);
        thread.map_err(|error| StoreError::Database(error.to_string()))?;
        Ok(follower)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This replica draws a job from now on.
    pub(super) fn holds(&self, id: JobId) -> Arc<Stop> {
        // A hold that was lost before does not count.
        let held = Held::default();
        let stop = Arc::clone(&held.stop);
        self.lock().held.insert(id, held);
        stop
    }

    /// The jobs that are drawn here.
    pub(super) fn held(&self) -> Vec<JobId> {
        self.lock().held.keys().copied().collect()
    }

    pub(super) fn lets_go(&self, id: JobId) {
        self.lock().held.remove(&id);
    }

    /// How far a job is; it is written down at the next look.
    pub(super) fn progress(&self, id: JobId, progress: JobProgress) {
        if let Some(held) = self.lock().held.get_mut(&id) {
            held.progress = Some(progress);
        }
    }

    pub(super) fn preview(&self, id: JobId, preview: JobPreview) {
        if let Some(held) = self.lock().held.get_mut(&id) {
            held.previews.insert(preview.index, preview);
            held.previewed = true;
        }
    }

    /// Gives up a job, if it is drawn here.
    pub(super) fn stop(&self, id: JobId) {
        let stop = self.lock().held.get(&id).map(|held| Arc::clone(&held.stop));
        stop.iter().for_each(|stop| stop.ask());
    }

    pub(super) fn stop_all(&self) {
        let stops: Vec<Arc<Stop>> = self.lock().held.values().map(|held| Arc::clone(&held.stop)).collect();
        stops.iter().for_each(|stop| stop.ask());
    }

    /// Tells of a job from now on.
    pub(super) fn follow(&self, job: &Job) -> broadcast::Receiver<JobEvent> {
        let new = || Watched { events: broadcast::channel(BEHIND).0, last: job.clone(), previews: Vec::new() };
        let mut state = self.lock();
        if state.closed {
            return new().events.subscribe();
        }
        state.watched.entry(job.id).or_insert_with(new).events.subscribe()
    }

    /// Ends what is told of jobs, also of those that another replica goes on with.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.watched.clear();
    }

    /// One look: what is drawn here is written down, what is watched is read. `due`: holds are renewed, too.
    fn look(&self, connection: &Connection, replica: JobId, due: Option<Duration>) -> Result<(), StoreError> {
        let mut written = Vec::new();
        for (id, held) in &mut self.lock().held {
            let previewed = std::mem::take(&mut held.previewed);
            let previews = previewed.then(|| held.previews.values().cloned().collect::<Vec<_>>());
            let progress = held.progress.take();
            if due.is_some() || progress.is_some() || previews.is_some() {
                written.push((*id, progress, previews));
            }
        }
        for (id, progress, previews) in written {
            let json = |text: Result<String, serde_json::Error>| text.ok();
            let progress = progress.and_then(|progress| json(serde_json::to_string(&progress)));
            let previews = previews.and_then(|previews| json(serde_json::to_string(&previews)));
            let held =
                connection.with(|client| client.execute(tables::HOLD, &[&id, &replica, &progress, &previews]))?;
            // It was cancelled, or is another's now, because this replica was taken for dead.
            if held == 0 {
                self.stop(id);
            }
        }
        if let Some(lease) = due {
            let message = format!("the servers ended {ATTEMPTS} times while this was drawn");
            let failure = serde_json::to_string(&Failure::new("gave_up", message)).ok();
            connection
                .with(|client| client.execute(tables::RECLAIM, &[&lease.as_secs_f64(), &ATTEMPTS, &now(), &failure]))?;
        }
        self.tell(connection)
    }

    /// Tells those who watch what has changed.
    fn tell(&self, connection: &Connection) -> Result<(), StoreError> {
        let watched: Vec<JobId> = {
            let mut state = self.lock();
            state.watched.retain(|_, watched| watched.events.receiver_count() > 0);
            state.watched.keys().copied().collect()
        };
        if watched.is_empty() {
            return Ok(());
        }
        let found = rows::find(connection, &watched, None)?;
        let mut state = self.lock();
        // Of a job that was removed nothing more is to be told.
        let gone = |id: &&JobId| !found.iter().any(|(job, _)| job.id == **id);
        for id in watched.iter().filter(gone) {
            state.watched.remove(id);
        }
        for (job, previews) in found {
            let Some(watched) = state.watched.get_mut(&job.id) else { continue };
            for event in changes(&watched.last, &job) {
                let _ = watched.events.send(event);
            }
            for new in previews.iter().filter(|new| !watched.previews.contains(new)) {
                let _ = watched.events.send(JobEvent::Preview(new.clone()));
            }
            watched.previews = previews;
            watched.last = job;
        }
        let over: Vec<JobId> =
            state.watched.iter().filter(|(_, watched)| watched.last.state.is_over()).map(|(id, _)| *id).collect();
        for id in over {
            state.watched.remove(&id);
        }
        Ok(())
    }
}

/// Forgets what need not be kept any more.
pub(super) fn sweep_out(connection: &Connection, keep: &Keep) -> Result<(), StoreError> {
    let oldest = now() - keep.for_long.as_secs_f64();
    let number = |most: u64| i64::try_from(most).unwrap_or(i64::MAX);
    let (jobs, bytes) = (number(keep.jobs as u64), number(keep.bytes));
    connection.with(|client| {
        client.execute(tables::SWEEP, &[&oldest, &jobs, &bytes])?;
        client.execute(tables::SWEEP_CLIENTS, &[&(now() - CLIENTS.as_secs_f64())])
    })?;
    Ok(())
}

/// What happened between two looks, in its order.
fn changes(before: &Job, now: &Job) -> Vec<JobEvent> {
    let mut events = Vec::new();
    let new = |image: &&crate::job::JobImage| !before.images.contains(image);
    // Told before what came of it; an end is told behind that.
    let begun = before.state == JobState::Queued && now.state == JobState::Running;
    if begun {
        events.push(JobEvent::Job(Box::new(now.clone())));
    }
    if now.progress != before.progress && now.state == JobState::Running {
        events.push(JobEvent::Progress(now.progress.clone()));
    }
    events.extend(now.images.iter().filter(new).cloned().map(JobEvent::Image));
    let moved = now.state != before.state || now.position != before.position;
    if moved && !begun {
        events.push(JobEvent::Job(Box::new(now.clone())));
    }
    events
}
