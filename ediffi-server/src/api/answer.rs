//! How the native interface answers: errors, and the bodies that it reads.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::job::Failure;
use crate::refusal::Refusal;

/// An error, as the native interface tells it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: Failure,
}

/// A refusal in the words of the native interface.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(refusal) = self;
        let failure = Failure {
            code: refusal.code().to_owned(),
            message: refusal.message(),
            problems: refusal.problems().to_vec(),
        };
        let mut response = (refusal.status(), Json(ErrorBody { error: failure })).into_response();
        if let Some(seconds) = refusal.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// There is nothing at this path.
pub(crate) async fn unknown() -> Response {
    told(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path: see /api/v1/openapi.json")
}

/// The path takes other methods.
pub(crate) async fn method() -> Response {
    told(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the path takes other methods: see /api/v1/openapi.json")
}

fn told(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(ErrorBody { error: Failure::new(code, message) })).into_response()
}

/// The characters of an error text that are sent back: it may hold what was sent.
const LONGEST: usize = 500;

/// A body, if all of it has come and it is not too long.
pub(crate) fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Refusal> {
    body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLong,
        _ => Refusal::invalid(error.body_text()),
    })
}

/// Reads a JSON body. Keys that are not known are refused by name.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let said = error.to_string();
        let brief: String = said.chars().take(LONGEST).collect();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let place = if brief.len() < said.len() { place.as_str() } else { "" };
        Refusal::invalid(format!("the body: {brief}{place}"))
    })
}

/// A request for a model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    pub(crate) model: Option<String>,
    request: Box<RawValue>,
    #[serde(default)]
    pub(crate) previews: usize,
}

impl Asked {
    /// What to draw.
    pub(crate) fn request(&self) -> Result<ediffi::Request, Refusal> {
        ediffi::Request::from_json(self.request.get().as_bytes()).map_err(|error| Refusal::of(&error))
    }
}

/// The form of [`Asked`] for the description of the interface.
#[derive(Debug, ToSchema)]
#[schema(as = Asked)]
#[expect(dead_code, reason = "it is described, not made")]
pub(crate) struct AskedSchema {
    /// The model (default: the first one).
    model: Option<String>,
    /// What to draw: a request of the library, as the documentation of `ediffi::Request` describes it.
    #[schema(value_type = Object, example = json!({"prompt": "a red apple, noto style", "seed": 7}))]
    request: serde_json::Value,
    /// A preview after each so many steps (default: 0, none).
    previews: Option<usize>,
}
