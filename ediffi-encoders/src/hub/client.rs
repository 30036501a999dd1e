//! Requests to the hub with the user's token, and what its answers and silences mean.

use std::path::PathBuf;
use std::{fs, io};

use hf_hub::HFError;
use reqwest::StatusCode;
use reqwest::blocking::{RequestBuilder, Response};

use crate::Error;

/// Whether the hub gave no answer, so that what the cache has is the best there is.
pub(super) fn no_answer(error: &Error) -> bool {
    let Error::Hub { source, .. } = error else { return false };
    match source.as_ref() {
        HFError::Request { source, .. } => {
            source.is_connect() || source.is_timeout() || source.status().is_some_and(is_busy)
        }
        HFError::Http { context } => is_busy(context.status),
        HFError::RateLimited { .. } => true,
        _ => false,
    }
}

fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// Runs `work` on a thread of its own: the blocking client must not be used on one that runs asynchronous tasks.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The answer to `request` under the user's token; an answer that says no is an error.
pub(super) fn send(request: RequestBuilder) -> std::result::Result<Response, HFError> {
    let request = match token() {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    Ok(request.send()?.error_for_status()?)
}

/// Why an answer ended too early.
pub(super) fn broken(error: io::Error) -> HFError {
    error.downcast::<reqwest::Error>().map_or_else(HFError::Io, HFError::from)
}

/// The user's token, from where `hf-hub` takes it too.
fn token() -> Option<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if set("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
        return None;
    }
    let read = |path: PathBuf| Some(fs::read_to_string(path).ok()?.trim().to_owned()).filter(|token| !token.is_empty());
    set("HF_TOKEN").or_else(|| read(set("HF_TOKEN_PATH")?.into())).or_else(|| read(hf_hub::hf_home().join("token")))
}
