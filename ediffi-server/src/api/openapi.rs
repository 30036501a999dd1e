//! The description of the native interface, made from its types.

use axum::Json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{events, jobs, questions};
use crate::job::{JobImage, JobPreview, JobProgress};

/// The description.
#[derive(OpenApi)]
#[openapi(
    info(title = "ediffi", description = "eDiff-I over HTTP: jobs with progress and previews, paint-with-words, plans."),
    paths(
        questions::capabilities, jobs::submit, jobs::list, jobs::show, jobs::cancel, jobs::delete, jobs::image, events::events,
        questions::plan, questions::bindings, questions::read,
    ),
    components(schemas(JobProgress, JobPreview, JobImage)),
    modifiers(&Token),
    security((), ("token" = []))
)]
struct Description;

/// A token is sent as `Authorization: Bearer TOKEN`.
struct Token;

impl Modify for Token {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        description.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

pub(super) async fn json() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}
