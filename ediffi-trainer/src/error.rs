//! The errors of this crate.

use std::path::{Path, PathBuf};

use ediffi_core::brief::{brief, told};

/// What fallible functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the numerical core.
    #[error(transparent)]
    Core {
        /// The error.
        #[from]
        source: ediffi_core::Error,
    },
    /// An error of the cascade.
    #[error(transparent)]
    Cascade {
        /// The error.
        #[from]
        source: ediffi_cascade::Error,
    },
    /// An error of an encoder.
    #[error(transparent)]
    Encoders {
        /// The error.
        #[from]
        source: ediffi_encoders::Error,
    },
    /// An error of a model folder.
    #[error(transparent)]
    Model {
        /// The error.
        source: Box<ediffi::Error>,
    },
    /// An error of the training.
    #[error(transparent)]
    Train {
        /// The error.
        #[from]
        source: ediffi_train::Error,
    },
    /// An error of the data.
    #[error(transparent)]
    Data {
        /// The error.
        source: Box<ediffi_data::Error>,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A plan is no TOML, or has other keys than a plan.
    #[error("not a plan")]
    PlanText {
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A plan in a file cannot be used.
    #[error("{}", path.display())]
    PlanFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<Self>,
    },
    /// There is no plan of that name, and no such file.
    #[error("there is no plan {name:?}: it is neither a file nor one of {}", known.join(", "))]
    UnknownPlan {
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Something in a plan makes no sense.
    #[error("{}: {}", brief(what), told(reason))]
    Plan {
        /// The key, stage or network.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A network cannot start from a folder.
    #[error("{network} cannot start from {}: {}", folder.display(), told(reason))]
    Start {
        /// The network.
        network: String,
        /// The model folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// A network cannot start from one that is built otherwise.
    #[error("{network} cannot start from {}: its {key} is {}, that of the plan is {}", folder.display(), brief(found), brief(expected))]
    OtherNetwork {
        /// The network.
        network: String,
        /// The model folder.
        folder: PathBuf,
        /// The first key that differs.
        key: Box<str>,
        /// What the folder has there.
        found: Box<str>,
        /// What the plan has there.
        expected: Box<str>,
    },
    /// Too little data for the plan.
    #[error("the data has {samples} samples, {reason}")]
    TooLittle {
        /// How many there are.
        samples: usize,
        /// What they do not do.
        reason: String,
    },
    /// A run is in the folder where a new one was to begin.
    #[error("{} holds a run of the plan {plan:?}: resume it, or restart and replace it", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
        /// The name of its plan.
        plan: String,
    },
    /// The folder holds another run.
    #[error("{} holds another run: its {what} is {}, not {}", folder.display(), brief(found), brief(expected))]
    OtherRun {
        /// The folder.
        folder: PathBuf,
        /// What differs.
        what: &'static str,
        /// As it is there.
        found: String,
        /// As it is now.
        expected: String,
    },
    /// The folder holds something else than a run.
    #[error("{} is not empty, and holds no run", folder.display())]
    NoRun {
        /// The folder.
        folder: PathBuf,
    },
    /// A network starts from one that is not trained.
    #[error("{network} starts from {parent}, which is not trained yet: there is no {}", weights.display())]
    ParentMissing {
        /// The network.
        network: String,
        /// The one that it starts from.
        parent: String,
        /// Where its weights would be.
        weights: PathBuf,
    },
    /// No validation of a network gave a number, so none of its weights are the best.
    #[error("no validation of {network} gave a number: there are no best weights, which `keep.export` asks for")]
    NoBest {
        /// The network.
        network: String,
    },
    /// The place of the model holds something else.
    #[error("{} is to be replaced by the model, but {reason}", folder.display())]
    NotAModel {
        /// The folder.
        folder: PathBuf,
        /// What is there.
        reason: String,
    },
    /// A sheet cannot be written as a PNG.
    #[error("the sheet {} cannot be made", path.display())]
    Sheet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// A thread that encoded captions panicked.
    #[error("a thread that encoded captions panicked")]
    Poisoned,
}

impl From<tch::TchError> for Error {
    fn from(source: tch::TchError) -> Self {
        Self::Core { source: source.into() }
    }
}

impl From<ediffi_data::Error> for Error {
    fn from(source: ediffi_data::Error) -> Self {
        Self::Data { source: Box::new(source) }
    }
}

impl From<ediffi::Error> for Error {
    fn from(source: ediffi::Error) -> Self {
        Self::Model { source: Box::new(source) }
    }
}

impl From<toml::de::Error> for Error {
    fn from(source: toml::de::Error) -> Self {
        Self::PlanText { source: Box::new(source) }
    }
}

/// What is wrong with something in a plan.
pub(crate) fn wrong<T>(what: impl Into<String>, reason: impl Into<String>) -> Result<T> {
    Err(Error::Plan { what: what.into(), reason: reason.into() })
}

/// What `path` failed with.
pub(crate) fn file_error(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}
