//! What can go wrong with an evaluation: one enum for the crate.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of an evaluation. Every message names the culprit.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what variants and fields are")]
pub enum Error {
    #[error(transparent)]
    Model(#[from] ediffi::Error),
    #[error(transparent)]
    Cascade(#[from] ediffi_cascade::Error),
    #[error(transparent)]
    Core(#[from] ediffi_core::Error),
    #[error(transparent)]
    Train(#[from] ediffi_train::Error),
    #[error(transparent)]
    Icons(#[from] train_icons::error::IconsError),
    #[error(transparent)]
    Tch(#[from] tch::TchError),
    #[error("`{path}` is no judge of this version: {reason}", path = path.display())]
    NoJudge { path: PathBuf, reason: String },
    #[error("`{path}` recognises {found:.1} % of {what}, and {needed:.0} % are needed: train it longer", path = path.display())]
    Unreliable { path: PathBuf, what: &'static str, found: f64, needed: f64 },
    #[error("`{path}` has no line `{marker}`", path = path.display())]
    Marker { path: PathBuf, marker: String },
    #[error("the results cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot draw the plot `{name}`: {reason}")]
    Plot { name: String, reason: String },
    #[error("{what}: {reason}")]
    Setting { what: &'static str, reason: String },
    #[error("none of {tried} scenes in a row makes {what}")]
    Candidates { what: &'static str, tried: u64 },
    #[error("{what}: {found} for {expected} prompts")]
    Rows { what: &'static str, expected: usize, found: usize },
    #[error("`{path}`: {reason}", path = path.display())]
    Picture { path: PathBuf, reason: String },
    #[error("a worker panicked")]
    Worker,
}
