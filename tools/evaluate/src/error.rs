//! What can go wrong with an evaluation: one enum for the crate.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of an evaluation. Every message names the culprit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model.
    #[error(transparent)]
    Model(#[from] ediffi::Error),
    /// A stage of the model.
    #[error(transparent)]
    Cascade(#[from] ediffi_cascade::Error),
    /// A network, its weights, a schedule or a solver.
    #[error(transparent)]
    Core(#[from] ediffi_core::Error),
    /// The training of the judge.
    #[error(transparent)]
    Train(#[from] ediffi_train::Error),
    /// The scenes.
    #[error(transparent)]
    Icons(#[from] train_icons::error::IconsError),
    /// libtorch.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
    /// A file of weights that is no judge, or one of another version.
    #[error("`{path}` is no judge of this version: {reason}", path = path.display())]
    NoJudge {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A judge that has not shown that it is right often enough.
    #[error("`{path}` recognises {found:.1} % of {what}, and {needed:.0} % are needed: train it longer", path = path.display())]
    Unreliable {
        /// The file.
        path: PathBuf,
        /// What it was asked about.
        what: &'static str,
        /// Percentage that was right.
        found: f64,
        /// Percentage that has to be.
        needed: f64,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write `{path}`", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A document without the markers that a table goes between.
    #[error("`{path}` has no line `{marker}`", path = path.display())]
    Marker {
        /// The document.
        path: PathBuf,
        /// The marker.
        marker: String,
    },
    /// A result could not be made into JSON.
    #[error("the results cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A plot could not be drawn.
    #[error("cannot draw the plot `{name}`: {reason}")]
    Plot {
        /// Which plot.
        name: String,
        /// Why.
        reason: String,
    },
    /// A setting that makes no sense.
    #[error("{what}: {reason}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The scenes hold nothing of the kind that is looked for.
    #[error("none of {tried} scenes in a row makes {what}")]
    Candidates {
        /// What was looked for.
        what: &'static str,
        /// How many scenes were tried.
        tried: u64,
    },
    /// Two lists that belong together row by row do not have the same number of rows.
    #[error("{what}: {found} for {expected} prompts")]
    Rows {
        /// What there is too much or too little of.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A thread of the sampler ended early.
    #[error("a worker panicked")]
    Worker,
}
