//! Jobs on disk: a list in SQLite, and the pictures as files beside it. It survives the end of the process at any moment.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use ediffi::Request;
use rusqlite::{Connection, params};

use super::{NewJob, StoreError};
use crate::job::{Failure, Job, JobId, JobImage, JobProgress, JobState, now};

/// The tables, version 1. Times are seconds since 1970.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS jobs (
        id TEXT PRIMARY KEY, client TEXT NOT NULL, model TEXT NOT NULL, request TEXT, previews INTEGER NOT NULL,
        attended INTEGER NOT NULL, prompt TEXT NOT NULL, seed TEXT NOT NULL,
        state TEXT NOT NULL, attempts INTEGER NOT NULL, created REAL NOT NULL, started REAL, ended REAL, error TEXT
    ) STRICT;
    CREATE TABLE IF NOT EXISTS images (
        job TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, number INTEGER NOT NULL, image TEXT NOT NULL,
        PRIMARY KEY (job, number)
    ) STRICT;
    PRAGMA user_version = 1;";

/// The list of jobs in a folder, and their pictures.
#[derive(Debug)]
pub(crate) struct Archive {
    folder: PathBuf,
    database: Mutex<Connection>,
    /// Held as long as the folder is used.
    _lock: File,
}

/// A job as it was stored.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) job: Job,
    pub(crate) new: NewJob,
    /// How many times it was begun.
    pub(crate) attempts: u32,
}

/// A row of the list.
struct Row {
    id: String,
    client: String,
    model: String,
    request: Option<String>,
    previews: i64,
    attended: bool,
    prompt: String,
    seed: String,
    state: String,
    attempts: u32,
    created: f64,
    started: Option<f64>,
    ended: Option<f64>,
    error: Option<String>,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            client: row.get("client")?,
            model: row.get("model")?,
            request: row.get("request")?,
            previews: row.get("previews")?,
            attended: row.get("attended")?,
            prompt: row.get("prompt")?,
            seed: row.get("seed")?,
            state: row.get("state")?,
            attempts: row.get("attempts")?,
            created: row.get("created")?,
            started: row.get("started")?,
            ended: row.get("ended")?,
            error: row.get("error")?,
        })
    }
}

impl Archive {
    /// Opens the list of a folder, or begins one. Jobs come in the order of their submission. Files that belong to no job are removed.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<Stored>), StoreError> {
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { path, source }
        };
        let pictures = folder.join("pictures");
        fs::create_dir_all(&pictures).map_err(file_error(&pictures))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(file_error(&path))?;
        lock.try_lock().map_err(|_| StoreError::InUse(folder.to_owned()))?;
        let path = folder.join("jobs.sqlite");
        let open = || -> rusqlite::Result<Connection> {
            let database = Connection::open(&path)?;
            // What is committed is on disk, also when the machine loses power.
            database.pragma_update(None, "journal_mode", "WAL")?;
            database.pragma_update(None, "synchronous", "FULL")?;
            database.pragma_update(None, "foreign_keys", true)?;
            Ok(database)
        };
        let database = open().map_err(|source| StoreError::Archive { path: path.clone(), source })?;
        let archive = Self { folder: folder.to_owned(), database: Mutex::new(database), _lock: lock };
        let version: u32 =
            archive.with(|database| database.pragma_query_value(None, "user_version", |row| row.get(0)))?;
        if version > 1 {
            let reason = format!("the list is of version {version}, this program knows version 1");
            return Err(StoreError::Unreadable { path, id: "of any".to_owned(), reason });
        }
        archive.with(|database| database.execute_batch(TABLES))?;
        let stored = archive.stored()?;
        archive.tidy(&stored)?;
        Ok((archive, stored))
    }

    fn path(&self) -> PathBuf {
        self.folder.join("jobs.sqlite")
    }

    fn file(&self, id: JobId, index: usize) -> PathBuf {
        self.folder.join("pictures").join(format!("{id}-{index}.png"))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&self.lock()).map_err(|source| StoreError::Archive { path: self.path(), source })
    }

    /// A job that is submitted.
    pub(crate) fn add(&self, job: &Job, new: &NewJob) -> Result<(), StoreError> {
        let (id, seed, previews) = (job.id.to_string(), job.seed.to_string(), new.previews as i64);
        let request = serde_json::to_string(&*new.request).map_err(|error| self.unreadable(&id, error.to_string()))?;
        let row =
            "INSERT INTO jobs (id, client, model, request, previews, attended, prompt, seed, state, attempts, created)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10)";
        let (state, created) = (job.state.name(), job.created);
        self.with(|database| {
            let values =
                params![id, new.client, new.model, request, previews, new.attended, job.prompt, seed, state, created];
            database.execute(row, values)
        })?;
        Ok(())
    }

    /// A job that is begun.
    pub(crate) fn started(&self, job: &Job) -> Result<(), StoreError> {
        let row = "UPDATE jobs SET state = ?2, started = ?3, attempts = attempts + 1 WHERE id = ?1";
        self.with(|database| database.execute(row, params![job.id.to_string(), job.state.name(), job.started]))?;
        Ok(())
    }

    /// A job that is not drawn now. That it was begun does not count.
    pub(crate) fn given_back(&self, id: JobId) -> Result<(), StoreError> {
        let row =
            "UPDATE jobs SET attempts = attempts - (state = 'running'), state = 'queued', started = NULL WHERE id = ?1";
        self.with(|database| database.execute(row, params![id.to_string()]))?;
        Ok(())
    }

    /// A job that was drawn when the last server ended. That it was begun counts.
    pub(crate) fn waits(&self, id: JobId) -> Result<(), StoreError> {
        let row = "UPDATE jobs SET state = 'queued', started = NULL WHERE id = ?1";
        self.with(|database| database.execute(row, params![id.to_string()]))?;
        Ok(())
    }

    /// A job that is over. Its request is forgotten: it may hold pictures.
    pub(crate) fn ended(&self, job: &Job) -> Result<(), StoreError> {
        let error = job.error.as_ref().map(serde_json::to_string).transpose();
        let error = error.map_err(|error| self.unreadable(&job.id.to_string(), error.to_string()))?;
        let row = "UPDATE jobs SET state = ?2, ended = ?3, error = ?4, request = NULL WHERE id = ?1";
        self.with(|database| database.execute(row, params![job.id.to_string(), job.state.name(), job.ended, error]))?;
        Ok(())
    }

    /// A finished picture: the file first, so that whatever the list names is there.
    pub(crate) fn picture(&self, id: JobId, image: &JobImage, file: &[u8]) -> Result<(), StoreError> {
        let path = self.file(id, image.index);
        let unwritten = |source| StoreError::File { path: path.clone(), source };
        let beside = path.with_extension("part");
        let write = || -> std::io::Result<()> {
            let mut part = File::create(&beside)?;
            std::io::Write::write_all(&mut part, file)?;
            part.sync_all()?;
            fs::rename(&beside, &path)?;
            // The name is on disk, too.
            File::open(self.folder.join("pictures"))?.sync_all()
        };
        write().map_err(unwritten)?;
        let image_json =
            serde_json::to_string(image).map_err(|error| self.unreadable(&id.to_string(), error.to_string()))?;
        let row = "INSERT OR REPLACE INTO images (job, number, image) VALUES (?1, ?2, ?3)";
        self.with(|database| database.execute(row, params![id.to_string(), image.index as i64, image_json]))?;
        Ok(())
    }

    /// The file of a picture.
    pub(crate) fn read(&self, id: JobId, index: usize) -> Result<Option<Bytes>, StoreError> {
        let path = self.file(id, index);
        match fs::read(&path) {
            Ok(file) => Ok(Some(file.into())),
            // It was removed since the list was looked at.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::File { path, source }),
        }
    }

    /// Forgets a job: the list first, so that whatever it names is there.
    pub(crate) fn remove(&self, id: JobId) -> Result<(), StoreError> {
        let numbers: Vec<usize> = self.with(|database| {
            let mut rows = database.prepare("SELECT number FROM images WHERE job = ?1")?;
            let numbers = rows.query_map(params![id.to_string()], |row| row.get::<_, i64>(0))?;
            let numbers: rusqlite::Result<Vec<i64>> = numbers.collect();
            database.execute("DELETE FROM jobs WHERE id = ?1", params![id.to_string()])?;
            Ok(numbers?.into_iter().filter_map(|number| usize::try_from(number).ok()).collect())
        })?;
        for number in numbers {
            remove_file(&self.file(id, number))?;
        }
        Ok(())
    }

    fn stored(&self) -> Result<Vec<Stored>, StoreError> {
        let rows: Vec<Row> = self.with(|database| {
            let mut rows = database.prepare("SELECT * FROM jobs ORDER BY id")?;
            rows.query_map([], Row::read)?.collect()
        })?;
        rows.into_iter().map(|row| self.job_of(row)).collect()
    }

    /// A job that waits and cannot be read, as after going back to an older program, fails.
    fn job_of(&self, row: Row) -> Result<Stored, StoreError> {
        let id: JobId = row.id.parse().map_err(|_| self.unreadable(&row.id, "its name is none".to_owned()))?;
        let unreadable = |error: serde_json::Error| self.unreadable(&row.id, error.to_string());
        let mut state: JobState = serde_json::from_value(row.state.into()).map_err(unreadable)?;
        let mut error: Option<Failure> =
            row.error.map(|error| serde_json::from_str(&error)).transpose().map_err(unreadable)?;
        let request = Request::from_json(row.request.unwrap_or_default().as_bytes());
        let mut ended = row.ended;
        if let (Err(reason), false) = (&request, state.is_over()) {
            tracing::warn!(%id, %reason, "a job cannot be read");
            (state, ended) = (JobState::Failed, Some(now()));
            error = Some(Failure::new("failed", reason.to_string()));
        }
        let fraction = f64::from(u8::from(state == JobState::Finished));
        let job = Job {
            id,
            model: row.model.clone(),
            state,
            position: None,
            progress: JobProgress { fraction, ..JobProgress::default() },
            created: row.created,
            started: row.started,
            ended,
            prompt: row.prompt,
            seed: row.seed.parse().map_err(|_| self.unreadable(&row.id, "its seed is none".to_owned()))?,
            images: self.images(id)?,
            error,
        };
        let request = Arc::new(request.unwrap_or_else(|_| Request::new("")));
        let previews = usize::try_from(row.previews).unwrap_or(0);
        let new = NewJob { client: row.client, model: row.model, request, previews, attended: row.attended };
        Ok(Stored { job, new, attempts: row.attempts })
    }

    fn images(&self, id: JobId) -> Result<Vec<JobImage>, StoreError> {
        let texts: Vec<String> = self.with(|database| {
            let mut rows = database.prepare("SELECT image FROM images WHERE job = ?1 ORDER BY number")?;
            rows.query_map(params![id.to_string()], |row| row.get(0))?.collect()
        })?;
        let read = |text: &String| {
            serde_json::from_str(text).map_err(|error| self.unreadable(&id.to_string(), error.to_string()))
        };
        texts.iter().map(read).collect()
    }

    /// Removes files that no job has: of a write or a removal that was cut short.
    fn tidy(&self, stored: &[Stored]) -> Result<(), StoreError> {
        let folder = self.folder.join("pictures");
        let known: std::collections::HashSet<PathBuf> = stored
            .iter()
            .flat_map(|stored| stored.job.images.iter().map(|image| self.file(stored.job.id, image.index)))
            .collect();
        let listed = fs::read_dir(&folder).map_err(|source| StoreError::File { path: folder.clone(), source })?;
        for entry in listed {
            let path = entry.map_err(|source| StoreError::File { path: folder.clone(), source })?.path();
            if !known.contains(&path) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn unreadable(&self, id: &str, reason: String) -> StoreError {
        StoreError::Unreadable { path: self.path(), id: id.to_owned(), reason }
    }
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
