//! What is answered without drawing: what the server can do, plans, the tokens of a canvas, the request inside a picture.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use ediffi::{Canvas, Limits, Provenance, Request, StagePlan};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::{self, Asked, AskedSchema, ErrorBody, Refused};
use crate::model::ModelInfo;
use crate::refusal::Refusal;
use crate::service::Service;

/// What the server can do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Capabilities {
    /// Version of the server.
    version: &'static str,
    /// The model that draws where none is named.
    default_model: String,
    /// Whether a token is needed.
    token_required: bool,
    /// The models.
    models: Vec<ModelInfo>,
    /// Names of solvers.
    solvers: Vec<String>,
    /// The most that a request may ask for: `Limits` of the library, and `body_bytes`.
    #[schema(value_type = Object)]
    limits: Value,
}

/// What the server can do.
#[utoipa::path(get, path = "/api/v1/capabilities", tag = "models", responses((status = 200, body = Capabilities)))]
pub(crate) async fn capabilities(State(service): State<Service>) -> Result<Json<Capabilities>, Refused> {
    Ok(Json(Capabilities {
        version: env!("CARGO_PKG_VERSION"),
        default_model: service.model(None)?.info.id.clone(),
        token_required: service.tokens.are_needed(),
        models: service.models.iter().map(|model| model.info.clone()).collect(),
        solvers: ediffi::Solver::all().map(|solver| solver.to_string()).collect(),
        limits: limits(&service.limits, service.body_bytes),
    }))
}

fn limits(limits: &Limits, body_bytes: usize) -> Value {
    let mut limits = serde_json::to_value(limits).unwrap_or_default();
    if let Some(map) = limits.as_object_mut() {
        map.insert("body_bytes".to_owned(), body_bytes.into());
    }
    limits
}

/// A stage as it would run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlannedStage {
    /// Its name.
    name: String,
    /// Width in pixels of its pictures.
    width: u32,
    /// Height in pixels.
    height: u32,
    /// The experts that run, in their order.
    experts: Vec<PlannedExpert>,
    /// Its steps, at descending noise levels.
    steps: Vec<PlannedStep>,
}

/// An expert that runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlannedExpert {
    /// Its number in the stage.
    index: usize,
    /// The highest noise level that it runs at.
    sigma_from: f64,
    /// The lowest.
    sigma_to: f64,
}

/// A step.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlannedStep {
    /// The noise level that it starts from.
    sigma: f64,
    /// The number of the expert that runs it.
    expert: usize,
}

/// Which expert runs which step.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Planned {
    stages: Vec<PlannedStage>,
}

/// Say which expert would run which step. Nothing is drawn.
#[utoipa::path(post, path = "/api/v1/plan", tag = "questions", request_body = AskedSchema, responses(
    (status = 200, body = Planned), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn plan(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Planned>, Refused> {
    let asked: Asked = answer::read(&answer::whole(body)?)?;
    let request = asked.request()?;
    let stages = service.ask(asked.model, move |pipeline| pipeline.plan(&request)).await?;
    Ok(Json(Planned { stages: stages.iter().map(planned).collect() }))
}

fn planned(stage: &StagePlan) -> PlannedStage {
    let steps = stage.plan.steps().iter();
    let segments = stage.plan.segments().iter();
    let experts = segments.map(|segment| PlannedExpert {
        index: segment.expert,
        sigma_from: segment.first_sigma,
        sigma_to: segment.last_sigma,
    });
    PlannedStage {
        name: stage.stage.clone(),
        width: stage.width,
        height: stage.height,
        experts: experts.collect(),
        steps: steps.map(|step| PlannedStep { sigma: step.sigma, expert: step.expert }).collect(),
    }
}

/// A token that a region takes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BoundToken {
    /// Its number in the encoder's text.
    index: usize,
    /// The text that it covers.
    text: String,
}

/// The tokens of an encoder that a region takes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BoundEncoder {
    /// `t5` or `clip`.
    encoder: String,
    /// None if the encoder cut the prompt off before the phrase.
    tokens: Vec<BoundToken>,
}

/// What a region of a canvas takes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BoundRegion {
    /// Its number, from 0.
    index: usize,
    /// Its phrase.
    phrase: String,
    /// The share of the canvas that it covers, from 0 to 1.
    coverage: f64,
    /// The tokens of each encoder.
    encoders: Vec<BoundEncoder>,
}

/// What the regions of a canvas take.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Bound {
    regions: Vec<BoundRegion>,
}

/// Say which tokens each region of a canvas takes, and how much of it is painted. Nothing is drawn.
#[utoipa::path(post, path = "/api/v1/bindings", tag = "questions", request_body = AskedSchema, responses(
    (status = 200, body = Bound), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn bindings(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Bound>, Refused> {
    let asked: Asked = answer::read(&answer::whole(body)?)?;
    let request = asked.request()?;
    let covered = request.canvas.as_ref().map_or_else(Vec::new, coverage);
    let bindings = service.ask(asked.model, move |pipeline| pipeline.bindings(&request)).await?;
    let region = |(index, (binding, coverage)): (usize, (ediffi::Binding, f64))| BoundRegion {
        index,
        phrase: binding.phrase,
        coverage,
        encoders: binding.encoders.into_iter().map(bound).collect(),
    };
    Ok(Json(Bound { regions: bindings.into_iter().zip(covered).enumerate().map(region).collect() }))
}

fn bound(tokens: ediffi::BoundTokens) -> BoundEncoder {
    let token = |(index, text)| BoundToken { index, text };
    BoundEncoder { encoder: tokens.encoder, tokens: tokens.tokens.into_iter().zip(tokens.pieces).map(token).collect() }
}

/// The share of the canvas that each region covers.
fn coverage(canvas: &Canvas) -> Vec<f64> {
    let pixels = f64::from(canvas.width()) * f64::from(canvas.height());
    let share = |region: &ediffi::Region| {
        let painted: f64 = region.mask.runs().map(|(level, run)| f64::from(level) / 255.0 * run as f64).sum();
        painted / pixels.max(1.0)
    };
    canvas.regions().iter().map(share).collect()
}

/// The request inside a picture.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Read {
    /// What was drawn: a request of the library.
    #[schema(value_type = Object)]
    request: Value,
    /// What it was drawn with; none of an old file.
    #[schema(value_type = Option<Object>)]
    made: Option<Value>,
}

/// Read the request inside a PNG file that ediffi wrote.
#[utoipa::path(post, path = "/api/v1/read", tag = "questions",
    request_body(content_type = "image/png", description = "The PNG file"),
    responses((status = 200, body = Read), (status = 400, description = "It holds none", body = ErrorBody)))]
pub(crate) async fn read(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Read>, Refused> {
    let body = answer::whole(body)?;
    let read = service.aside(move |_| {
        let request = Request::from_png_bytes(&body).map_err(|error| Refusal::invalid(chain(&error)))?;
        let made = Provenance::from_png_bytes(&body).ok();
        let json = |error: serde_json::Error| Refusal::Internal(error.to_string());
        let made = made.map(serde_json::to_value).transpose().map_err(json)?;
        Ok::<_, Refusal>(Read { request: serde_json::to_value(request).map_err(json)?, made })
    });
    Ok(Json(read.await??))
}

fn chain(error: &ediffi::Error) -> String {
    crate::job::Failure::of(error).message
}
