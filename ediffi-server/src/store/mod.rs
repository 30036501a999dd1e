//! Where jobs wait, and where they are kept.

mod archive;
mod fair;
mod local;
#[cfg(feature = "postgres")]
mod postgres;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use ediffi::{Canceller, Request};
use tokio::sync::broadcast;

pub use local::{Keep, LocalStore};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;

use crate::job::{Failure, Job, JobEvent, JobId, JobImage, JobPreview, JobProgress};

/// What a store can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// So many jobs wait that no more is taken.
    #[error("the queue is full: {waiting} jobs are waiting")]
    Full {
        /// How many wait.
        waiting: usize,
    },
    /// So many jobs of this client wait that no more of it is taken.
    #[error("{waiting} jobs of this client are waiting; it may have no more")]
    ClientFull {
        /// How many of it wait.
        waiting: usize,
    },
    /// The server is about to end.
    #[error("the server is shutting down")]
    Stopped,
    /// The list of jobs on disk cannot be read or written.
    #[error("the list of jobs, {}: {source}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// What stands in the list of jobs is not understood.
    #[error("the list of jobs, {}: job {id}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The job.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// Another server uses the folder.
    #[error("{} is in use by another server", .0.display())]
    InUse(PathBuf),
    /// The database of a shared queue does not do what it is asked.
    #[error("the database of the queue: {0}")]
    Database(String),
    /// A picture on disk cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A job that is submitted.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Who submits it: clients take turns.
    pub client: String,
    /// The model that is to draw it.
    pub model: String,
    /// What to draw.
    pub request: Arc<Request>,
    /// After how many steps a preview is made; 0 for none.
    pub previews: usize,
    /// Whether somebody waits for the answer, and is gone when the server has ended: it is not drawn again then.
    pub attended: bool,
}

impl NewJob {
    /// The same without its pictures: of a job that is over, nothing else is asked.
    pub(crate) fn forget_request(&mut self) {
        self.request = Arc::new(Request::new(""));
    }
}

/// A job that is taken from the queue to be drawn.
#[derive(Debug, Clone)]
pub struct TakenJob {
    /// Its name.
    pub id: JobId,
    /// As it was submitted.
    pub job: NewJob,
    /// Whether it is to be given up.
    pub stop: Arc<Stop>,
}

/// What the one who draws a job has to tell.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Update {
    /// A step is done. It may get lost.
    Progress(JobProgress),
    /// A picture on its way. It may get lost.
    Preview(JobPreview),
    /// A picture is finished: its PNG file.
    Image(JobImage, Bytes),
}

/// How a job ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// All pictures are there.
    Finished,
    /// It failed.
    Failed(Failure),
    /// It was cancelled.
    Cancelled,
}

/// Whether a running job is to be given up.
#[derive(Default)]
pub struct Stop {
    asked: AtomicBool,
    canceller: Mutex<Option<Canceller>>,
}

impl Stop {
    /// Whether somebody has asked for it.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Gives the job up.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        if let Some(canceller) = &*self.lock() {
            canceller.cancel();
        }
    }

    /// From now on this is what stops it.
    pub fn bind(&self, canceller: Canceller) {
        // Whoever asks later finds it; whoever has asked before is found here.
        *self.lock() = Some(canceller);
        if self.asked() {
            self.ask();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Canceller>> {
        self.canceller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("asked", &self.asked()).finish_non_exhaustive()
    }
}

/// How full a store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Jobs that wait.
    pub waiting: usize,
    /// Jobs that are drawn.
    pub running: usize,
    /// Jobs that are over and kept.
    pub kept: usize,
    /// Bytes of their pictures.
    pub bytes: u64,
}

/// Where jobs wait, are taken to be drawn, and are kept for a while. All functions may wait for a disk, and are called from
/// threads that may.
pub trait JobStore: fmt::Debug + Send + Sync + 'static {
    /// Puts a job into the queue.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ClientFull`], [`StoreError::Stopped`], and those of the disk. The job is not taken then.
    fn submit(&self, new: NewJob) -> Result<Job, StoreError>;

    /// The next job, which runs from now on; none if none comes within this time.
    ///
    /// # Errors
    /// [`StoreError::Stopped`]: none will come any more.
    fn take(&self, wait: Duration) -> Result<Option<TakenJob>, StoreError>;

    /// Tells of a running job.
    ///
    /// # Errors
    /// Those of the disk, of a finished picture.
    fn update(&self, id: JobId, update: Update) -> Result<(), StoreError>;

    /// Ends a running job.
    ///
    /// # Errors
    /// Those of the disk.
    fn finish(&self, id: JobId, outcome: Outcome) -> Result<(), StoreError>;

    /// Cancels a job, which is over at once. If it runs, the device goes on to the end of what it computes, and the result is thrown away. A
    /// job that is over stays as it is. None if there is no such job.
    ///
    /// # Errors
    /// Those of the disk.
    fn cancel(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Forgets a job that is over, with its pictures. Says whether there was one.
    ///
    /// # Errors
    /// Those of the disk.
    fn remove(&self, id: JobId) -> Result<bool, StoreError>;

    /// A job.
    ///
    /// # Errors
    /// Those of the disk.
    fn job(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// The jobs of a client, newest first.
    ///
    /// # Errors
    /// Those of the disk.
    fn jobs(&self, client: &str) -> Result<Vec<Job>, StoreError>;

    /// A finished picture: its PNG file.
    ///
    /// # Errors
    /// Those of the disk.
    fn picture(&self, id: JobId, index: usize) -> Result<Option<Bytes>, StoreError>;

    /// A job as it is now, and what happens to it from now on.
    ///
    /// # Errors
    /// Those of the disk.
    fn watch(&self, id: JobId) -> Result<Option<(Job, broadcast::Receiver<JobEvent>)>, StoreError>;

    /// How full it is.
    ///
    /// # Errors
    /// Those of the disk.
    fn depth(&self) -> Result<Depth, StoreError>;

    /// Takes no more jobs and gives none out. Jobs that wait are kept for the next start where the store is on disk; else they fail. With
    /// `running`, those that run are given up, and are treated alike; who watches a job that goes on elsewhere is told no more.
    ///
    /// # Errors
    /// Those of the disk.
    fn stop(&self, running: bool) -> Result<(), StoreError>;
}
