//! One job at a time: files that are locked for as long as somebody works.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use crate::error::file_error;
use crate::{Error, Result};

/// A file that is locked for as long as this lives, or until the process ends, however it ends.
///
/// The file stays: another may be about to lock it. Where a file system knows no locks, a warning says so, and nobody is kept out.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the file at `path` for this alone, and makes it if need be.
    ///
    /// # Errors
    /// [`Error::Locked`] while somebody else has it; [`Error::File`] for one that cannot be made.
    pub fn take(path: impl Into<PathBuf>) -> Result<Self> {
        Self::with(path.into(), File::try_lock)
    }

    /// Locks the file at `path` beside others that share it: whoever would [`take`](Self::take) it is refused.
    ///
    /// # Errors
    /// [`Error::Locked`] while somebody has it alone; [`Error::File`] for one that cannot be made.
    pub fn share(path: impl Into<PathBuf>) -> Result<Self> {
        Self::with(path.into(), File::try_lock_shared)
    }

    /// As [`take`](Self::take), and waits until nobody else has it: for what is done in a moment.
    ///
    /// # Errors
    /// [`Error::File`] for one that cannot be made.
    pub fn wait(path: impl Into<PathBuf>) -> Result<Self> {
        Self::with(path.into(), |file| file.lock().map_err(TryLockError::Error))
    }

    fn with(path: PathBuf, lock: impl FnOnce(&File) -> Result<(), TryLockError>) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&path).map_err(file_error(&path))?;
        match lock(&file) {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path }),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(file = %path.display(), %error, "the file cannot be locked: nobody else is kept out");
                Ok(Self { _file: file })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_or_several_that_share() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        let is_locked = |lock: Result<Lock>| matches!(lock, Err(Error::Locked { path: locked }) if locked == path);
        let shared = [Lock::share(&path).unwrap(), Lock::share(&path).unwrap()];
        assert!(is_locked(Lock::take(&path)));
        drop(shared);
        let alone = Lock::wait(&path).unwrap();
        assert!(is_locked(Lock::take(&path)) && is_locked(Lock::share(&path)));
        drop(alone);
        drop(Lock::take(&path).unwrap());
        assert!(matches!(Lock::take(folder.path().join("absent/run.lock")), Err(Error::File { .. })));
    }
}
