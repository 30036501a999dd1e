//! One run of a name in a folder at a time.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use crate::error::file_error;
use crate::{Error, Result};

/// A file that is locked for as long as this lives, or until the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the file at `path`, and makes it if need be. It stays: another run may be about to lock it.
    ///
    /// # Errors
    /// [`Error::Locked`] while somebody else has it.
    pub(crate) fn take(path: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&path).map_err(file_error(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path }),
            // Some file systems know no locks.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(file = %path.display(), %error, "the run cannot be locked");
                Ok(Self { _file: file })
            }
        }
    }
}
