//! The description of the native interface, made from its types.

use axum::Json;
use utoipa::OpenApi;

use super::{events, jobs, questions};
use crate::job::{JobImage, JobPreview, JobProgress};

/// The description.
#[derive(OpenApi)]
#[openapi(
    info(title = "ediffi", description = "eDiff-I over HTTP: jobs with progress and previews, paint-with-words, plans."),
    paths(
        questions::capabilities, jobs::submit, jobs::list, jobs::show, jobs::cancel, jobs::image, events::events,
        questions::plan, questions::bindings, questions::read,
    ),
    components(schemas(JobProgress, JobPreview, JobImage)),
    security((), ("token" = []))
)]
struct Description;

pub(super) async fn json() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}
