//! Generations, edits, variations.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::multipart::MultipartRejection;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Multipart, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::answer::Refused;
use super::asked::Asked;
use super::draw::draw;
use super::form::Form;
use super::pictures::place;
use super::settings::{Settings, Task};
use crate::auth::Client;
use crate::fields::Fields;
use crate::service::Service;

pub(super) async fn generations(
    State(service): State<Service>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let mut settings = Settings::read(Fields::of_json(&body?)?, Task::Generation)?;
    let low = settings.is_low(&service.model(settings.model.as_deref())?.info.presets);
    let request = settings.request(low)?;
    draw(service, client, &headers, Asked { settings, request, low }).await
}

pub(super) async fn edits(
    State(service): State<Service>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Refused> {
    given(service, client, &headers, form?, Task::Edit).await
}

pub(super) async fn variations(
    State(service): State<Service>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Refused> {
    given(service, client, &headers, form?, Task::Variation).await
}

/// Draws what begins with a picture.
async fn given(
    service: Service,
    client: Client,
    headers: &HeaderMap,
    form: Multipart,
    task: Task,
) -> Result<Response, Refused> {
    let Form { fields, pictures, mask } = Form::read(form).await?;
    let mut settings = Settings::read(fields, task)?;
    let low = settings.is_low(&service.model(settings.model.as_deref())?.info.presets);
    let strength = settings.partial.strength;
    let request = settings.request(low)?;
    let placed = service
        .aside(move |service| place(request, task, strength, &pictures, mask.as_ref(), &service.limits))
        .await??;
    draw(service, client, headers, Asked { settings, request: placed, low }).await
}
