//! The errors of this crate.

use std::path::PathBuf;

/// What fallible functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the training.
    #[error(transparent)]
    Train {
        /// The error.
        #[from]
        source: ediffi_train::Error,
    },
    /// There is no transport of that name.
    #[error("there is no transport {name:?}: alone, mpi and nccl are there")]
    UnknownTransport {
        /// The name.
        name: String,
    },
    /// The transport was left out when this was built.
    #[error("this was built without the transport {feature}: build it with the feature {feature} of ediffi-cluster")]
    NotBuilt {
        /// The feature that has it.
        feature: &'static str,
    },
    /// There are more groups than processes, or none.
    #[error("{world} processes cannot be divided into {groups} groups")]
    Groups {
        /// How many groups were asked for.
        groups: usize,
        /// How many processes there are.
        world: usize,
    },
    /// MPI cannot be started in this process.
    #[error("MPI cannot be started: {reason}")]
    Start {
        /// Why.
        reason: String,
    },
    /// The numbers of a tensor cannot be sent.
    #[error("a tensor cannot be sent to other processes: {reason}")]
    Buffer {
        /// What is wrong with it.
        reason: String,
    },
    /// NCCL's library cannot be loaded, or lacks a function.
    #[error("cannot load {}: {reason}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A function of NCCL failed.
    #[error("{function} of NCCL failed: {reason}")]
    Nccl {
        /// The function.
        function: &'static str,
        /// What NCCL says.
        reason: String,
    },
    /// A process sees more GPUs than its own.
    #[error(
        "{who} sees {count} GPUs: give each process its own, with CUDA_VISIBLE_DEVICES or with --gpus-per-task=1 of srun"
    )]
    Devices {
        /// The process.
        who: String,
        /// How many it sees.
        count: i64,
    },
}

impl From<tch::TchError> for Error {
    fn from(source: tch::TchError) -> Self {
        Self::Train { source: source.into() }
    }
}

/// As an error of [`Reduce`](ediffi_train::reduce::Reduce).
#[cfg(feature = "mpi")]
impl From<Error> for ediffi_train::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Train { source } => source,
            error => Self::Reduce { source: Box::new(error) },
        }
    }
}
