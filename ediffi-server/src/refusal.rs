//! Why a request is not answered with what it asks for, in the terms of no interface: each says it in its own.

use std::time::Duration;

use axum::http::StatusCode;

use crate::job::{Failure, JobState};
use crate::store::StoreError;

/// Why a request is refused.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    /// Something is wrong with it.
    Invalid(Failure),
    /// There is no model of this name.
    UnknownModel(String),
    /// There is no such job, or it is not kept any more.
    NoJob,
    /// The job has no such picture.
    NoPicture,
    /// The job is not over, and what was asked for needs that.
    NotOver,
    /// The body is too long.
    TooLong,
    /// No token, or a wrong one.
    Unauthorized,
    /// The queue is full.
    Full { message: String, retry_after: Duration },
    /// The server is about to end.
    Stopping,
    /// The job that was waited for failed.
    Failed(Failure),
    /// The job that was waited for was cancelled.
    Cancelled,
    /// Something is wrong with the server.
    Internal(String),
}

impl Refusal {
    /// An error of the library: the fault of the request, or of the server.
    pub(crate) fn of(error: &ediffi::Error) -> Self {
        let failure = Failure::of(error);
        if failure.code == "invalid_request" { Self::Invalid(failure) } else { Self::Internal(failure.message) }
    }

    /// Something is wrong with the request, in these words.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(Failure::new("invalid_request", message))
    }

    /// A job that is over without having finished.
    pub(crate) fn of_job(state: JobState, error: Option<Failure>) -> Self {
        match error {
            Some(failure) if failure.code == "shutting_down" => Self::Stopping,
            Some(failure) if failure.code == "invalid_request" => Self::Invalid(failure),
            Some(failure) => Self::Failed(failure),
            None if state == JobState::Cancelled => Self::Cancelled,
            None => Self::Internal("the job ended without a reason".to_owned()),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::UnknownModel(_) | Self::NoJob | Self::NoPicture => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Full { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Cancelled | Self::NotOver => StatusCode::CONFLICT,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Failed(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// One word for programs.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Invalid(failure) | Self::Failed(failure) => &failure.code,
            Self::UnknownModel(_) => "model_not_found",
            Self::NoJob | Self::NoPicture => "not_found",
            Self::NotOver => "not_over",
            Self::TooLong => "too_long",
            Self::Unauthorized => "unauthorized",
            Self::Full { .. } => "queue_full",
            Self::Stopping => "shutting_down",
            Self::Cancelled => "cancelled",
            Self::Internal(_) => "internal",
        }
    }

    /// For people.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Invalid(failure) | Self::Failed(failure) => failure.message.clone(),
            Self::UnknownModel(name) => {
                format!("there is no model `{}`", name.chars().take(100).collect::<String>())
            }
            Self::NoJob => "there is no such job, or it is not kept any more".to_owned(),
            Self::NotOver => "the job is not over: cancel it first".to_owned(),
            Self::TooLong => "the body is too long".to_owned(),
            Self::NoPicture => "the job has no such picture".to_owned(),
            Self::Unauthorized => "a token is needed: `Authorization: Bearer TOKEN`".to_owned(),
            Self::Full { message, .. } | Self::Internal(message) => message.clone(),
            Self::Stopping => "the server is shutting down".to_owned(),
            Self::Cancelled => "the job was cancelled".to_owned(),
        }
    }

    /// Each thing that is wrong with the request.
    pub(crate) fn problems(&self) -> &[String] {
        match self {
            Self::Invalid(failure) | Self::Failed(failure) => &failure.problems,
            _ => &[],
        }
    }

    /// After how many seconds to try again.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Full { retry_after, .. } => Some(retry_after.as_secs().max(1)),
            Self::Stopping => Some(10),
            _ => None,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            // The service knows better how long the queue takes.
            StoreError::Full { .. } | StoreError::ClientFull { .. } => {
                Self::Full { message: error.to_string(), retry_after: Duration::from_secs(1) }
            }
            StoreError::Stopped => Self::Stopping,
            other => Self::Internal(other.to_string()),
        }
    }
}
