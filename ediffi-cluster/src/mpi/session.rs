//! MPI in this process, from its start to its end.

use std::cell::RefCell;
use std::time::Duration;

use ::mpi::Threading;
use ::mpi::environment::{Universe, initialize_with_threading, processor_name};
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, CommunicatorCollectives};

use super::waiting::wait_for_all;
use super::watchdog::{Watchdog, Watched};
use super::words::last_words;
use crate::{Error, Result};

/// A process that has failed waits so long for the others to fail as well.
const GRACE: Duration = Duration::from_secs(5);
/// The longest name of a process, in bytes.
const NAME: usize = 128;

/// MPI, once in a process.
pub(crate) struct Session {
    /// Where all meet for the last time.
    farewell: SimpleCommunicator,
    name: String,
    watchdog: Watchdog,
    /// What this process failed with.
    failed: RefCell<Option<String>>,
    // Last: MPI ends with it, and the communicator has to be gone before.
    _universe: Universe,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("name", &self.name).field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Session {
    /// Starts MPI, and finds all processes of the job.
    pub(crate) fn start(timeout: Duration) -> Result<(Self, SimpleCommunicator)> {
        let no = |reason: &str| Error::Start { reason: reason.to_owned() };
        let started = initialize_with_threading(Threading::Funneled);
        let (universe, threads) = started.ok_or_else(|| no("it was started in this process before"))?;
        let world = universe.world();
        if threads < Threading::Funneled {
            return Err(no("it allows no other thread in the process"));
        }
        let of_slurm = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
        if let Some(reason) = lost_by_slurm(of_slurm("SLURM_STEP_ID"), of_slurm("SLURM_STEP_NUM_TASKS"), world.size()) {
            return Err(Error::Start { reason });
        }
        let host = processor_name().unwrap_or_else(|_| "?".to_owned());
        let name = format!("rank {} ({host}, process {})", world.rank(), std::process::id());
        let watchdog = Watchdog::start(timeout, name.clone()).map_err(|error| no(&error.to_string()))?;
        let (farewell, failed) = (world.duplicate(), RefCell::new(None));
        Ok((Self { farewell, name, watchdog, failed, _universe: universe }, world))
    }

    /// What to call this process.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Ends the job if this process is in `what` for longer than the timeout.
    pub(crate) fn watch(&self, what: &'static str) -> Watched<'_> {
        self.watchdog.watch(what)
    }

    /// Remembers what this process failed with, so that it does not wait long for the others.
    pub(crate) fn fail(&self, why: String) {
        *self.failed.borrow_mut() = Some(why);
    }

    /// Ends all processes of the job. MPI has no way for them to go on without one of them.
    pub(crate) fn end_job(&self, why: &str) -> ! {
        last_words(&format!("{}: {why}", self.name));
        self.farewell.abort(1)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let failed = match self.failed.take() {
            None if std::thread::panicking() => Some("it panicked".to_owned()),
            failed => failed,
        };
        let patience = failed.as_ref().map(|_| GRACE);
        if !wait_for_all(self.farewell.immediate_barrier(), patience) {
            self.end_job(&format!("{}: the job ends", failed.unwrap_or_default()));
        }
    }
}

/// What to say where `srun` started several processes of a step, and MPI knows of one.
fn lost_by_slurm(step: Option<u64>, tasks: Option<u64>, world: i32) -> Option<String> {
    let tasks = tasks.filter(|tasks| *tasks > 1 && step.is_some() && world == 1)?;
    Some(format!(
        "srun started {tasks} processes, and each sees itself alone: try srun --mpi=pmix, or --mpi=pmi2 for MPICH"
    ))
}

/// What each process calls itself, by rank.
pub(super) fn names(communicator: &SimpleCommunicator, own: &str) -> Result<Vec<String>> {
    let mut bytes: Vec<u8> = own.bytes().take(NAME).collect();
    bytes.resize(NAME, b' ');
    let world = usize::try_from(communicator.size()).unwrap_or(1);
    let mut all = vec![0_u8; NAME * world];
    communicator.all_gather_into(bytes.as_slice(), all.as_mut_slice());
    Ok(all.chunks(NAME).map(|name| String::from_utf8_lossy(name).trim_end().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_slurm_that_do_not_find_each_other_are_told_how() {
        let lost = lost_by_slurm(Some(0), Some(4), 1).unwrap();
        assert!(lost.contains("srun started 4 processes") && lost.contains("--mpi=pmix"), "{lost}");
        for found in [(Some(0), Some(4), 4), (Some(0), Some(1), 1), (None, Some(4), 1), (Some(0), None, 1)] {
            assert_eq!(lost_by_slurm(found.0, found.1, found.2), None, "{found:?}");
        }
    }
}
