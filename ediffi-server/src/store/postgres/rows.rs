//! Jobs as the database has them.

use std::sync::Arc;

use ediffi::Request;
use postgres::Row;

use super::connection::Connection;
use super::tables;
use crate::job::{Job, JobId, JobPreview, JobProgress, JobState};
use crate::store::{Depth, NewJob, StoreError};

/// A job as it was submitted, or why it cannot be read.
pub(super) fn new_job(row: &Row) -> Result<NewJob, String> {
    let request = Request::from_json(row.get::<_, String>("request").as_bytes()).map_err(|error| error.to_string())?;
    let previews = usize::try_from(row.get::<_, i64>("previews")).unwrap_or(0);
    let (client, model) = (row.get("client"), row.get("model"));
    // Who waits may do so at another replica, which lives.
    Ok(NewJob { client, model, request: Arc::new(request), previews, attended: false })
}

/// A job, and the previews that were made last, one of each picture.
fn seen(row: &Row) -> Option<(Job, Vec<JobPreview>)> {
    let text = |name: &str| row.get::<_, Option<String>>(name);
    let state: JobState = serde_json::from_value(row.get::<_, String>("state").into()).ok()?;
    let progress = text("progress").and_then(|progress| serde_json::from_str(&progress).ok());
    let fraction = f64::from(u8::from(state == JobState::Finished));
    let job = Job {
        id: row.get("id"),
        model: row.get("model"),
        state,
        position: row.get::<_, Option<i64>>("place").and_then(|place| usize::try_from(place).ok()),
        progress: progress.filter(|_| !state.is_over()).unwrap_or(JobProgress { fraction, ..JobProgress::default() }),
        created: row.get("created"),
        started: row.get("started"),
        ended: row.get("ended"),
        prompt: row.get("prompt"),
        seed: row.get::<_, String>("seed").parse().ok()?,
        images: row
            .get::<_, Vec<String>>("images")
            .iter()
            .filter_map(|image| serde_json::from_str(image).ok())
            .collect(),
        error: text("error").and_then(|error| serde_json::from_str(&error).ok()),
    };
    let previews = text("preview").and_then(|previews| serde_json::from_str(&previews).ok());
    Some((job, previews.unwrap_or_default()))
}

/// The jobs of these names or of this client, newest first.
pub(super) fn find(
    connection: &Connection,
    ids: &[JobId],
    client: Option<&str>,
) -> Result<Vec<(Job, Vec<JobPreview>)>, StoreError> {
    let rows = connection.with(|database| database.query(tables::JOBS, &[&ids, &client]))?;
    Ok(rows.iter().filter_map(seen).collect())
}

pub(super) fn job(connection: &Connection, id: JobId) -> Result<Option<Job>, StoreError> {
    Ok(find(connection, &[id], None)?.pop().map(|(job, _)| job))
}

pub(super) fn jobs(connection: &Connection, client: &str) -> Result<Vec<Job>, StoreError> {
    Ok(find(connection, &[], Some(client))?.into_iter().map(|(job, _)| job).collect())
}

pub(super) fn depth(connection: &Connection) -> Result<Depth, StoreError> {
    let count = |number: i64| usize::try_from(number).unwrap_or(0);
    let row = connection.with(|client| client.query_one(tables::DEPTH, &[]))?;
    let bytes = u64::try_from(row.get::<_, i64>(3)).unwrap_or(0);
    Ok(Depth { waiting: count(row.get(0)), running: count(row.get(1)), kept: count(row.get(2)), bytes })
}
