//! The models, in OpenAI's form.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::answer::Refused;
use crate::model::ModelInfo;
use crate::service::Service;

pub(super) async fn list(State(service): State<Service>) -> Json<Value> {
    let models: Vec<_> = service.models.iter().map(|model| told(&model.info)).collect();
    Json(json!({ "object": "list", "data": models }))
}

pub(super) async fn show(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Value>, Refused> {
    Ok(Json(told(&service.model(Some(&id))?.info)))
}

/// When a model was made is not known.
fn told(info: &ModelInfo) -> Value {
    json!({ "id": info.id, "object": "model", "created": 0, "owned_by": "ediffi" })
}
