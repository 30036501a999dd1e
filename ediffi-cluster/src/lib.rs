//! Training of ediffi's networks on many machines.
//!
//! Every process computes the gradients of its own batches. [`connect`] finds the others, over MPI or over NCCL, and what it returns adds
//! the gradients up: [`fit_together`](ediffi_train::fit::fit_together) takes it. Who starts the processes is `mpirun`, Slurm's `srun`
//! or Kubeflow's MPIJob; nothing of a transport is written here. [`branches`] trains the branches of an expert tree side by side, and
//! [`scaling`] says how long a step takes on how many GPUs.
//!
//! Without the features `mpi` and `nccl` there is [one process](Transport::Alone), and nothing to install.
//!
//! # Example
//!
//! ```
//! use ediffi_cluster::{Options, Transport};
//! use ediffi_train::reduce::gather;
//!
//! let options = Options { transport: "alone".parse::<Transport>()?, ..Options::default() };
//! let ranks = ediffi_cluster::run(&options, |cluster| {
//!     let reduce = cluster.reduce();
//!     Ok::<_, ediffi_cluster::Error>(gather(reduce, &[reduce.rank() as f64])?.len())
//! })?;
//! assert_eq!(ranks, 1);
//! # Ok::<(), ediffi_cluster::Error>(())
//! ```

pub mod branches;
mod cluster;
mod error;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
pub mod scaling;

pub use cluster::{Cluster, Options, Transport, connect, run};
pub use error::{Error, Result};
