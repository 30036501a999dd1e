//! One queue for many servers, in PostgreSQL.
//!
//! Each server is a replica: it submits jobs of its clients, draws jobs of anybody, and answers for all of them. A row that is taken is
//! skipped by the others (`FOR UPDATE SKIP LOCKED`), so a job is drawn once. A replica renews its hold on the jobs that it draws; one that
//! dies loses them to the others.

mod connection;
mod follower;
mod rows;
mod tables;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::broadcast;

use super::{Depth, JobStore, Keep, NewJob, Outcome, StoreError, TakenJob, Update};
use crate::job::{Failure, Job, JobEvent, JobId, JobState, now};
use connection::Connection;
use follower::Follower;

/// How often a replica looks whether there is a job for it.
const LOOK: Duration = Duration::from_millis(100);

/// How many times the end of a job is written, and how long after each other.
const ENDS: usize = 3;
const AGAIN: Duration = Duration::from_secs(1);

/// Jobs that several servers share, in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    keep: Keep,
    connection: Arc<Connection>,
    follower: Follower,
    /// This replica, among those of the database.
    replica: JobId,
    stopped: AtomicBool,
    given_up: AtomicBool,
}

impl PostgresStore {
    /// Connects to a database, as `host=db user=ediffi dbname=ediffi password=...` or `postgresql://...`, and makes its tables if there are
    /// none. `keep` holds for all replicas, and has to be the same. A replica that does not renew its hold within `lease` is taken for
    /// dead; five seconds are a good choice. With `sslmode=require` the connection is encrypted, and the server's certificate is checked against
    /// those that the machine trusts; without it nothing is encrypted.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn connect(parameters: &str, keep: Keep, lease: Duration) -> Result<Self, StoreError> {
        let connection = Arc::new(Connection::open(parameters)?);
        connection.with(|client| client.batch_execute(tables::TABLES))?;
        let replica = JobId::now_v7();
        // The hold on jobs is renewed beside whatever else is asked.
        let follower = Follower::start(Connection::open(parameters)?, replica, lease, keep.clone())?;
        let (stopped, given_up) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { keep, connection, follower, replica, stopped, given_up })
    }

    fn taken(&self) -> Result<Option<TakenJob>, StoreError> {
        let drawn = self.follower.held();
        let row = self.connection.with(|client| client.query_opt(tables::TAKE, &[&self.replica, &now(), &drawn]))?;
        let Some(row) = row else { return Ok(None) };
        let id: JobId = row.get("id");
        match rows::new_job(&row) {
            Ok(job) => Ok(Some(TakenJob { id, job, stop: self.follower.holds(id) })),
            Err(reason) => {
                // Nobody could draw it.
                self.finish(id, Outcome::Failed(Failure::new("failed", reason)))?;
                Ok(None)
            }
        }
    }
}

impl JobStore for PostgresStore {
    fn submit(&self, new: NewJob) -> Result<Job, StoreError> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(StoreError::Stopped);
        }
        let job = Job::new(&new.model, &new.request);
        let request = serde_json::to_string(&*new.request).map_err(|error| StoreError::Database(error.to_string()))?;
        let (queue, of_client) = (self.keep.queue, self.keep.queue_of_client);
        let refused = self.connection.with(|client| {
            let mut transaction = client.transaction()?;
            // The number of jobs that wait does not change between the look and the insertion.
            transaction.execute(tables::LOCK_QUEUE, &[])?;
            let row = transaction.query_one(tables::WAITING, &[&new.client])?;
            let (waiting, own): (i64, i64) = (row.get(0), row.get(1));
            let (waiting, own) = (usize::try_from(waiting).unwrap_or(0), usize::try_from(own).unwrap_or(0));
            if waiting >= queue {
                return Ok(Some(StoreError::Full { waiting }));
            }
            if own >= of_client {
                return Ok(Some(StoreError::ClientFull { waiting: own }));
            }
            let (previews, seed) = (i64::try_from(new.previews).unwrap_or(0), job.seed.to_string());
            // A text of PostgreSQL holds no NUL.
            let prompt = job.prompt.replace('\0', "\u{fffd}");
            transaction.execute(
                tables::ADD,
                &[&job.id, &new.client, &new.model, &request, &previews, &job.created, &prompt, &seed],
            )?;
            transaction.commit()?;
            Ok(None)
        })?;
        match refused {
            Some(refused) => Err(refused),
            None => Ok(self.job(job.id)?.unwrap_or(job)),
        }
    }

    fn take(&self, wait: Duration) -> Result<Option<TakenJob>, StoreError> {
        let ends = Instant::now() + wait;
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Err(StoreError::Stopped);
            }
            if let Some(taken) = self.taken()? {
                return Ok(Some(taken));
            }
            if Instant::now() >= ends {
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
    }

    fn update(&self, id: JobId, update: Update) -> Result<(), StoreError> {
        let json =
            |value: Result<String, serde_json::Error>| value.map_err(|error| StoreError::Database(error.to_string()));
        match update {
            // Those who watch look a few times in a second: what comes between is not written.
            Update::Progress(progress) => self.follower.progress(id, progress),
            Update::Preview(preview) => self.follower.preview(id, preview),
            Update::Image(image, file) => {
                let (number, text) =
                    (i64::try_from(image.index).unwrap_or(i64::MAX), json(serde_json::to_string(&image))?);
                // Only who holds the job may add to it: a replica that was taken for dead may still draw.
                self.connection
                    .with(|client| client.execute(tables::IMAGE, &[&id, &number, &text, &&*file, &self.replica]))?;
            }
        }
        Ok(())
    }

    fn finish(&self, id: JobId, outcome: Outcome) -> Result<(), StoreError> {
        let given_back = matches!(outcome, Outcome::Cancelled) && self.given_up.load(Ordering::SeqCst);
        let (state, error) = match outcome {
            Outcome::Finished => (JobState::Finished, None),
            Outcome::Failed(failure) => (JobState::Failed, serde_json::to_string(&failure).ok()),
            Outcome::Cancelled => (JobState::Cancelled, None),
        };
        let end = || {
            self.connection.with(|client| {
                if given_back {
                    client.execute(tables::GIVE_BACK, &[&id, &self.replica])
                } else {
                    client.execute(tables::END, &[&id, &state.name(), &error, &now(), &self.replica])
                }
            })
        };
        // What was drawn is not thrown away for a moment without the database.
        let mut ended = end();
        for _ in 1..ENDS {
            if ended.is_err() {
                thread::sleep(AGAIN);
                ended = end();
            }
        }
        // If it cannot be written, another replica draws the job again.
        self.follower.lets_go(id);
        ended.map(drop)
    }

    fn cancel(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        // The replica that draws it sees that when it renews its hold, at once if it is this one.
        self.connection.with(|client| client.execute(tables::CANCEL, &[&id, &now()]))?;
        self.follower.stop(id);
        self.job(id)
    }

    fn remove(&self, id: JobId) -> Result<bool, StoreError> {
        Ok(self.connection.with(|client| client.execute(tables::REMOVE, &[&id]))? > 0)
    }

    fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        rows::job(&self.connection, id)
    }

    fn jobs(&self, client: &str) -> Result<Vec<Job>, StoreError> {
        rows::jobs(&self.connection, client)
    }

    fn picture(&self, id: JobId, index: usize) -> Result<Option<Bytes>, StoreError> {
        let number = i64::try_from(index).unwrap_or(i64::MAX);
        let row = self.connection.with(|client| client.query_opt(tables::PICTURE, &[&id, &number]))?;
        Ok(row.map(|row| Bytes::from(row.get::<_, Vec<u8>>(0))))
    }

    fn watch(&self, id: JobId) -> Result<Option<(Job, broadcast::Receiver<JobEvent>)>, StoreError> {
        let Some(job) = self.job(id)? else { return Ok(None) };
        let events = self.follower.follow(&job);
        Ok(Some((job, events)))
    }

    fn depth(&self) -> Result<Depth, StoreError> {
        rows::depth(&self.connection)
    }

    /// Jobs that wait stay for the other replicas; so do those that are given up. With `running`, nobody is told of any job any more.
    fn stop(&self, running: bool) -> Result<(), StoreError> {
        self.stopped.store(true, Ordering::SeqCst);
        if running {
            self.given_up.store(true, Ordering::SeqCst);
            self.follower.stop_all();
            self.follower.close();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
