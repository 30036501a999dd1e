//! Processes that talk over MPI.

mod processes;
mod session;
mod waiting;
mod watchdog;
mod words;

pub(crate) use processes::Mpi;
#[cfg(feature = "nccl")]
pub(crate) use processes::expect_flat;
pub(crate) use session::Session;
