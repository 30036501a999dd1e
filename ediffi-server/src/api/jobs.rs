//! Jobs: submit, look, cancel, and their pictures.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{self, Asked, AskedSchema, ErrorBody, Refused};
use crate::auth::Client;
use crate::job::{Job, JobId};
use crate::picture;
use crate::refusal::Refusal;
use crate::service::Service;

/// Jobs, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Jobs {
    jobs: Vec<Job>,
}

/// How a picture is sent.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    /// Without the request inside (default: false).
    #[serde(default)]
    plain: bool,
}

/// Submit a job.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", request_body = AskedSchema, responses(
    (status = 202, description = "It waits for its turn", body = Job, headers(("Location" = String))),
    (status = 400, description = "What is wrong with the request", body = ErrorBody),
    (status = 404, description = "There is no such model", body = ErrorBody),
    (status = 429, description = "The queue is full", body = ErrorBody, headers(("Retry-After" = u64))),
    (status = 503, description = "The server is shutting down", body = ErrorBody),
))]
pub(crate) async fn submit(
    State(service): State<Service>,
    Extension(Client(client)): Extension<Client>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let asked: Asked = answer::read(&answer::whole(body)?)?;
    let request = asked.request()?;
    let job = service.submit(client, asked.model, request, asked.previews).await?;
    Ok((StatusCode::ACCEPTED, [(LOCATION, format!("/api/v1/jobs/{}", job.id))], Json(job)).into_response())
}

/// The jobs of this client, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", responses((status = 200, body = Jobs)))]
pub(crate) async fn list(
    State(service): State<Service>,
    Extension(Client(client)): Extension<Client>,
) -> Result<Json<Jobs>, Refused> {
    Ok(Json(Jobs { jobs: service.jobs(client).await? }))
}

/// A job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path)), responses(
    (status = 200, body = Job),
    (status = 404, description = "There is no such job, or it is not kept any more", body = ErrorBody),
))]
pub(crate) async fn show(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Job>, Refused> {
    Ok(Json(service.job(job_id(&id)?).await?))
}

/// Cancel a job. One that is over stays as it is.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = String, Path)), responses(
    (status = 200, description = "It is cancelled, or will be after the evaluation that runs", body = Job),
    (status = 404, description = "There is no such job, or it is not kept any more", body = ErrorBody),
))]
pub(crate) async fn cancel(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Job>, Refused> {
    let id = job_id(&id)?;
    let job = service.aside(move |service| service.store.cancel(id)).await?.map_err(Refusal::from)?;
    Ok(Json(job.ok_or(Refusal::NoJob)?))
}

/// Delete a job that is over, with its pictures.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path)), responses(
    (status = 204, description = "It is deleted"),
    (status = 404, description = "There is no such job, or it is not kept any more", body = ErrorBody),
    (status = 409, description = "It is not over: cancel it first", body = ErrorBody),
))]
pub(crate) async fn delete(State(service): State<Service>, Path(id): Path<String>) -> Result<StatusCode, Refused> {
    let id = job_id(&id)?;
    if !service.job(id).await?.state.is_over() {
        return Err(Refusal::NotOver.into());
    }
    service.aside(move |service| service.store.remove(id)).await?.map_err(Refusal::from)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A finished picture.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/images/{index}", tag = "jobs",
    params(("id" = String, Path), ("index" = usize, Path), Sent), responses(
    (status = 200, description = "The PNG file, with its request inside", content_type = "image/png"),
    (status = 404, description = "There is no such job or picture, or it is not kept any more", body = ErrorBody),
))]
pub(crate) async fn image(
    State(service): State<Service>,
    Path((id, index)): Path<(String, String)>,
    sent: Result<Query<Sent>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(Sent { plain }) = sent.map_err(|error| Refusal::invalid(error.body_text()))?;
    let (id, index) = (job_id(&id)?, index.parse().map_err(|_| Refusal::NoPicture)?);
    service.job(id).await?;
    let file = service.picture(id, index).await?;
    let file = if plain { service.aside(move |_| picture::plain_png(&file)).await?? } else { file };
    // It never changes.
    let headers =
        [(CONTENT_TYPE, "image/png"), (axum::http::header::CACHE_CONTROL, "private, max-age=31536000, immutable")];
    Ok((headers, file).into_response())
}

/// What is no name names no job.
pub(super) fn job_id(text: &str) -> Result<JobId, Refusal> {
    text.parse().map_err(|_| Refusal::NoJob)
}
