//! A1111's form of errors.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::fields::Wrong;
use crate::refusal::Refusal;

/// Its names of the parts are those of A1111.
#[derive(Debug, Serialize)]
struct Told {
    /// One word for programs.
    error: String,
    /// For people.
    detail: String,
    /// The field that is wrong; empty if it is none.
    body: String,
    /// Each thing that is wrong, in one text.
    errors: String,
}

/// Why there are no pictures.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    told: Told,
    retry_after: Option<u64>,
}

impl Refused {
    fn new(status: StatusCode, code: &str, message: String) -> Self {
        let told = Told { error: code.to_owned(), errors: message.clone(), detail: message, body: String::new() };
        Self { status, told, retry_after: None }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let mut refused = Self::new(refusal.status(), refusal.code(), refusal.message());
        if !refusal.problems().is_empty() {
            refused.told.errors = refusal.problems().join("; ");
        }
        Self { retry_after: refusal.retry_after(), ..refused }
    }
}

/// A field is wrong: 422, as A1111 answers what its types do not take.
impl From<Wrong> for Refused {
    fn from(Wrong { field, code, message }: Wrong) -> Self {
        let mut refused = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message);
        refused.told.body = field.unwrap_or_default();
        refused
    }
}

impl From<BytesRejection> for Refused {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), "invalid_body", rejection.body_text())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.told)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        }
        response
    }
}

/// There is nothing at this path.
pub(super) async fn unknown() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "Not Found", "there is nothing at this path".to_owned())
}

/// The path takes other methods.
pub(super) async fn method() -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", "the path takes other methods".to_owned())
}
