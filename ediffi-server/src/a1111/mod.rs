//! The interface of A1111's web UI, as its clients speak it.

mod answer;
mod draw;
mod info;
mod names;
mod picture;
mod settings;
mod state;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::gate::authenticate;
use crate::service::Service;
use answer::Refused;
use state::Desk;

/// The routes below `/sdapi/v1`.
pub(crate) fn router(service: &Service) -> Router {
    Router::new()
        .route("/txt2img", post(draw::txt2img))
        .route("/img2img", post(draw::img2img))
        .route("/progress", get(state::progress))
        .route("/interrupt", post(state::interrupt))
        .route("/samplers", get(names::samplers))
        .route("/schedulers", get(names::schedulers))
        .route("/sd-models", get(state::models))
        .route("/options", get(state::options).post(state::set_options))
        .fallback(answer::unknown)
        .method_not_allowed_fallback(answer::method)
        .layer(middleware::from_fn_with_state(service.clone(), authenticate::<Refused>))
        .with_state(Desk::new(service.clone()))
}
