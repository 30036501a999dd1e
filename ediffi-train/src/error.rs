//! The errors of this crate.

use std::path::PathBuf;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

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
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint does not belong to this training.
    #[error("the checkpoint {} cannot be resumed: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("invalid training setting, {field}: {reason}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The loss or the gradients are no longer finite.
    #[error("training diverged at step {step}: the {what} is {value}")]
    Diverged {
        /// The step.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The threads that make batches are gone.
    #[error("the threads that make batches stopped")]
    NoBatches,
}

impl From<tch::TchError> for Error {
    fn from(source: tch::TchError) -> Self {
        Self::Core { source: source.into() }
    }
}
