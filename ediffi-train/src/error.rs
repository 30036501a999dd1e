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
    /// A file cannot be read or written.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint does not belong to this training.
    #[error("the checkpoint {} cannot be resumed: {}", path.display(), told(reason))]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Another run of this name, or another job, is at work in the folder.
    #[error("another run is at work here: it has locked {}", path.display())]
    Locked {
        /// The file that it has locked.
        path: PathBuf,
    },
    /// libtorch's kernel of AdamW failed. Weights and moments may be half of this step and half of the one before.
    #[error("libtorch's fused AdamW failed, most likely for want of memory: resume from the last checkpoint")]
    Fused,
    /// A sample of a data set cannot be read.
    #[error("the sample {} cannot be read: {source}", brief(name))]
    Sample {
        /// Its name.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A setting makes no sense.
    #[error("invalid training setting, {field}: {reason}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A training plan is no TOML, or has other fields than a plan.
    #[error("not a training plan")]
    PlanText {
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Something in a training plan makes no sense.
    #[error("{}: {}", brief(what), told(reason))]
    Plan {
        /// The network, encoder or field.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The experts of a stage do not tile the noise levels.
    #[error("the experts of stage {} are no ensemble: {source}", brief(stage))]
    Ensemble {
        /// The stage.
        stage: String,
        /// The hole or the overlap.
        source: ediffi_core::Error,
    },
    /// A plan has no network or encoder of that name.
    #[error("the plan has no {name:?}; it has {}", known.join(", "))]
    UnknownTask {
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A file was trained beside others, or with other settings.
    #[error("{} {}", path.display(), trained_with(fact, found.as_deref(), expected.as_deref()))]
    Lineage {
        /// The file.
        path: PathBuf,
        /// What differs.
        fact: String,
        /// As the file has it; `None` for a file that does not say.
        found: Option<String>,
        /// As it is now; `None` for a setting that was taken away.
        expected: Option<String>,
    },
    /// A checkpoint is there, and nobody said what to do with it.
    #[error("{} exists: resume it, or restart and replace it", path.display())]
    Exists {
        /// The checkpoint.
        path: PathBuf,
    },
    /// A restart was killed before its first checkpoint, and the one that it was to replace is still there.
    #[error(
        "a restart was killed before its first checkpoint; what it was to replace is in {}: restart again to begin anew, or rename it to {} to go on \
         from it",
        replaced.display(),
        checkpoint.display()
    )]
    RestartKilled {
        /// Where the old checkpoint is.
        replaced: PathBuf,
        /// Where a run would go on from it.
        checkpoint: PathBuf,
    },
    /// A tensor of a training step has another shape than the batch asks for.
    #[error("the {what} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        what: &'static str,
        /// The shape that fits.
        expected: Vec<i64>,
        /// Its shape.
        got: Vec<i64>,
    },
    /// Random numbers of a negative size, or more than memory has room for.
    #[error("there are no random numbers of shape {shape:?}: a size is negative, or memory has no room for them")]
    RandomShape {
        /// The shape that was asked for.
        shape: Vec<i64>,
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
    /// A thread of the training cannot be started.
    #[error("a thread of the training cannot be started")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
    /// The loss of a worker panicked.
    #[error("a worker of the data-parallel training panicked")]
    WorkerPanicked,
    /// The processes of a training cannot talk to each other.
    #[error("the processes of the training cannot talk to each other")]
    Reduce {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process of the training failed.
    #[error("{who} failed, and the others stop with it: why stands in its own words")]
    Elsewhere {
        /// The process.
        who: String,
    },
    /// Processes that should be alike are not.
    #[error("{who} has other {what} than rank 0")]
    Apart {
        /// The process.
        who: String,
        /// What differs.
        what: &'static str,
    },
    /// The thread that makes batches is gone: the function that makes them panicked.
    #[error("the thread that makes batches stopped")]
    NoBatches,
}

impl From<tch::TchError> for Error {
    fn from(source: tch::TchError) -> Self {
        Self::Core { source: source.into() }
    }
}

/// Fails unless `x` has the shape that fits.
pub(crate) fn expect_shape(what: &'static str, expected: &[i64], got: &[i64]) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Shape { what, expected: expected.to_vec(), got: got.to_vec() }) }
}

/// Fails with the field and its value unless `ok`.
pub(crate) fn expect_setting(ok: bool, field: &'static str, value: f64, rule: &str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Setting { field, reason: format!("{value} {rule}") }) }
}

pub(crate) fn expect_positive(field: &'static str, value: f64) -> Result<()> {
    expect_setting(value > 0.0 && value.is_finite(), field, value, "is not positive and finite")
}

pub(crate) fn expect_not_negative(field: &'static str, value: f64) -> Result<()> {
    expect_setting(value >= 0.0 && value.is_finite(), field, value, "is negative or not finite")
}

pub(crate) fn expect_share(field: &'static str, value: f64) -> Result<()> {
    expect_setting((0.0..=1.0).contains(&value), field, value, "is not in [0, 1]")
}

pub(crate) fn expect_decay(field: &'static str, value: f64) -> Result<()> {
    expect_setting((0.0..1.0).contains(&value), field, value, "is not in [0, 1)")
}

/// What is wrong with something in a plan.
pub(crate) fn wrong<T>(what: impl Into<String>, reason: impl Into<String>) -> Result<T> {
    Err(Error::Plan { what: what.into(), reason: reason.into() })
}

/// What `path` failed with.
pub(crate) fn file_error(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}

/// How a file of another lineage was trained.
fn trained_with(fact: &str, found: Option<&str>, expected: Option<&str>) -> String {
    match (found, expected) {
        (Some(found), Some(expected)) => format!("was trained with {fact} {}, not {expected}", brief(found)),
        (Some(found), None) => format!("was trained with {fact} {}, and there is none now", brief(found)),
        (None, expected) => format!(
            "does not say with which {fact} it was trained, perhaps by an earlier version; {} is expected",
            expected.unwrap_or("none")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// A machine without room for a thread cannot be arranged in a test; what the caller would read can be looked at.
    /// Every other variant is provoked by a test of the room that returns it.
    #[test]
    fn a_thread_that_does_not_start_keeps_its_reason() {
        let error = Error::Thread { source: std::io::ErrorKind::OutOfMemory.into() };
        assert_eq!(error.to_string(), "a thread of the training cannot be started");
        assert_eq!(error.source().unwrap().to_string(), "out of memory");
    }
}
