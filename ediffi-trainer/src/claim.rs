//! One job in the folder of a run.

use std::collections::BTreeSet;
use std::path::Path;

use ediffi_train::lock::Lock;

use crate::Result;
use crate::error::file_error;

/// What a job locks for as long as it works.
const FOLDER: &str = "run.lock";
/// What is locked while the record of the run is read and written.
const RECORD: &str = "run.json.lock";

/// The folder of a run, or some of its networks: no other job has them while this lives.
#[derive(Debug)]
pub(crate) struct Claim {
    _folder: Lock,
    _networks: Vec<Lock>,
}

impl Claim {
    /// Claims the folder, which is made if need be. A job for some networks `only` claims these, and leaves the others to jobs of their own.
    ///
    /// # Errors
    /// [`Locked`](ediffi_train::Error::Locked) while another job has what is claimed.
    pub(crate) fn of(folder: &Path, only: &[String]) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(file_error(folder))?;
        let path = folder.join(FOLDER);
        let lock = if only.is_empty() { Lock::take(path)? } else { Lock::share(path)? };
        let names: BTreeSet<&String> = only.iter().collect();
        let networks = names.into_iter().map(|name| network(folder, name)).collect::<Result<_>>()?;
        Ok(Self { _folder: lock, _networks: networks })
    }
}

/// Locks one network, against other jobs for some.
///
/// # Errors
/// [`Locked`](ediffi_train::Error::Locked) while another job has it.
pub(crate) fn network(folder: &Path, name: &str) -> Result<Lock> {
    Ok(Lock::take(folder.join(format!("{name}.job.lock")))?)
}

/// Waits until nobody else reads or writes the record.
pub(crate) fn record(folder: &Path) -> Result<Lock> {
    Ok(Lock::wait(folder.join(RECORD))?)
}

/// Whether a file is one that jobs lock.
pub(crate) fn is_lock(name: &str) -> bool {
    [FOLDER, RECORD].contains(&name) || name.ends_with(".job.lock")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_job_for_all_is_alone_and_jobs_for_some_share_the_folder() {
        let within = tempfile::tempdir().unwrap();
        let folder = within.path().join("run");
        let claim = |only: &[&str]| Claim::of(&folder, &only.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let locked = |claim: Result<Claim>| match claim {
            Err(Error::Train { source: ediffi_train::Error::Locked { path } }) => path,
            other => panic!("{other:?}"),
        };
        let all = claim(&[]).unwrap();
        assert_eq!(locked(claim(&[])), folder.join("run.lock"));
        assert_eq!(locked(claim(&["base.low"])), folder.join("run.lock"));
        drop(all);
        let (high, low) = (claim(&["base.high", "base.high"]).unwrap(), claim(&["base.low"]).unwrap());
        assert_eq!(locked(claim(&[])), folder.join("run.lock"));
        assert_eq!(locked(claim(&["sr.shared", "base.low"])), folder.join("base.low.job.lock"));
        drop((high, low));
        claim(&[]).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            assert!(is_lock(entry.unwrap().file_name().to_str().unwrap()));
        }
    }
}
