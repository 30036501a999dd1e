//! The description of the native interface, made from its types.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::Response;
use axum::{Json, Router, middleware};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{events, jobs, questions};
use crate::job::{JobImage, JobPreview, JobProgress};
use crate::page::POLICY;

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

/// A page of the description, Swagger UI, below `/api/docs/`. It asks no other host.
pub(crate) fn page<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let config = Config::new(["/api/v1/openapi.json"]).validator_url("none");
    let page: Router<S> = SwaggerUi::new("/api/docs").config(config).into();
    page.layer(middleware::map_response(async |mut response: Response| {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        response
    }))
}
