//! OpenAI's images interface, as its official clients speak it.

mod answer;
mod asked;
mod draw;
mod form;
mod format;
mod images;
mod models;
mod pictures;
mod settings;
mod stream;
mod usage;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::gate::authenticate;
use crate::service::Service;
use answer::Refused;

/// The routes below `/v1`.
pub(crate) fn router(service: &Service) -> Router {
    Router::new()
        .route("/images/generations", post(images::generations))
        .route("/images/edits", post(images::edits))
        .route("/images/variations", post(images::variations))
        .route("/models", get(models::list))
        .route("/models/{id}", get(models::show))
        .fallback(answer::unknown)
        .method_not_allowed_fallback(answer::method)
        .layer(middleware::from_fn_with_state(service.clone(), authenticate::<Refused>))
        .with_state(service.clone())
}
