//! OpenAI's form of errors.

use axum::Json;
use axum::extract::multipart::{MultipartError, MultipartRejection};
use axum::extract::rejection::BytesRejection;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::fields::Wrong;
use crate::job::JobId;
use crate::refusal::Refusal;

/// What is inside the key `error`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ErrorBody {
    pub(super) message: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) param: Option<String>,
    pub(super) code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ediffi: Option<OfJob>,
}

/// The job that was not finished: the pictures that were, are those of `/api/v1/jobs/JOB`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OfJob {
    pub(super) job: JobId,
}

#[derive(Debug, Serialize)]
struct Told {
    error: ErrorBody,
}

/// Why there are no pictures, as OpenAI's clients expect it.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    pub(super) body: ErrorBody,
    retry_after: Option<u64>,
}

impl Refused {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let body = ErrorBody { message: message.into(), kind, param: None, code: Some(code.to_owned()), ediffi: None };
        Self { status, body, retry_after: None }
    }

    /// Names the job that was not finished.
    pub(super) fn job(mut self, job: JobId) -> Self {
        self.body.ediffi = Some(OfJob { job });
        self
    }

    /// Names the field that is wrong.
    pub(super) fn param(mut self, param: impl Into<String>) -> Self {
        self.body.param = Some(param.into());
        self
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Unauthorized => "invalid_api_key",
            Refusal::Full { .. } => "rate_limit_exceeded",
            other => other.code(),
        };
        let refused = Self::new(refusal.status(), code, refusal.message());
        let refused = if matches!(refusal, Refusal::UnknownModel(_)) { refused.param("model") } else { refused };
        Self { retry_after: refusal.retry_after(), ..refused }
    }
}

impl From<Wrong> for Refused {
    fn from(Wrong { field, code, message }: Wrong) -> Self {
        let refused = Self::new(StatusCode::BAD_REQUEST, code, message);
        match field {
            Some(field) => refused.param(field),
            None => refused,
        }
    }
}

/// A body that is too long, or ends before its end.
impl From<BytesRejection> for Refused {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), "invalid_body", rejection.body_text())
    }
}

impl From<MultipartRejection> for Refused {
    fn from(rejection: MultipartRejection) -> Self {
        Self::new(rejection.status(), "invalid_body", rejection.body_text())
    }
}

impl From<MultipartError> for Refused {
    fn from(error: MultipartError) -> Self {
        Self::new(error.status(), "invalid_body", error.body_text())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        // Clients ask again by themselves after these, and a job that failed would be drawn again.
        let over = matches!(self.status, StatusCode::CONFLICT | StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (self.status, Json(Told { error: self.body })).into_response();
        if over {
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// There is nothing at this path.
pub(super) async fn unknown() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
}

/// The path takes other methods.
pub(super) async fn method() -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the path takes other methods")
}
