//! What happens to a job, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;

use super::answer::{ErrorBody, Refused};
use super::jobs::job_id;
use crate::job::JobEvent;
use crate::service::{Service, Watch};

/// How often a comment is sent when nothing happens, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Watch a job: `job`, `progress`, `preview` and `image` events, until it is over.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", tag = "jobs", params(("id" = String, Path)), responses(
    (status = 200, description = "Events: `job` (a Job) first, at every change, and last; `progress` (a JobProgress); \
        `preview` (a JobPreview); `image` (a JobImage)", content_type = "text/event-stream"),
    (status = 404, description = "There is no such job, or it is not kept any more", body = ErrorBody),
))]
pub(crate) async fn events(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let watch = service.watch(job_id(&id)?).await?;
    let next = async |mut watch: Watch| Some((Ok(sent(&watch.next().await?)), watch));
    Ok(Sse::new(unfold(watch, next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn sent(event: &JobEvent) -> Event {
    match event {
        JobEvent::Job(job) => named("job", job),
        JobEvent::Progress(progress) => named("progress", progress),
        JobEvent::Preview(preview) => named("preview", preview),
        JobEvent::Image(image) => named("image", image),
    }
}

/// An event with JSON on one line.
fn named(name: &str, data: &impl Serialize) -> Event {
    let data = serde_json::to_string(data).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    Event::default().event(name).data(data)
}
