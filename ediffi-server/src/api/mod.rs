//! The native interface: jobs, plans, bindings.

mod answer;
mod events;
mod jobs;
mod openapi;
mod questions;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::gate::authenticate;
use crate::service::Service;
use answer::Refused;
pub(crate) use openapi::page;

/// The routes below `/api/v1`.
pub(crate) fn router(service: &Service) -> Router {
    Router::new()
        .route("/capabilities", get(questions::capabilities))
        .route("/jobs", get(jobs::list).post(jobs::submit))
        .route("/jobs/{id}", get(jobs::show).delete(jobs::delete))
        .route("/jobs/{id}/cancel", post(jobs::cancel))
        .route("/jobs/{id}/events", get(events::events))
        .route("/jobs/{id}/images/{index}", get(jobs::image))
        .route("/plan", post(questions::plan))
        .route("/bindings", post(questions::bindings))
        .route("/read", post(questions::read))
        .fallback(answer::unknown)
        .method_not_allowed_fallback(answer::method)
        .layer(middleware::from_fn_with_state(service.clone(), authenticate::<Refused>))
        // A description of the interface is no secret.
        .route("/openapi.json", get(openapi::json))
        .with_state(service.clone())
}
