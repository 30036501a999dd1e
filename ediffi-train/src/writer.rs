//! Checkpoints written while the training goes on.

use std::path::PathBuf;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use ediffi_core::guard::guarded;

use crate::state::Checkpoint;
use crate::{Error, Result};

/// Writes checkpoints to a file, one at a time, on a thread beside the training.
pub(crate) struct Writer<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    path: PathBuf,
    writing: Option<ScopedJoinHandle<'scope, Result<()>>>,
}

impl<'scope, 'env> Writer<'scope, 'env> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, path: PathBuf) -> Self {
        Self { scope, path, writing: None }
    }

    /// Begins to write what `make` returns, which is called when the one before is written: two are never in memory.
    ///
    /// # Errors
    /// Those of `make` and [`finish`](Self::finish); [`Error::Thread`].
    pub(crate) fn write(&mut self, make: impl FnOnce() -> Result<Checkpoint>) -> Result<()> {
        self.finish()?;
        let (checkpoint, path) = (make()?, self.path.clone());
        let work = move || guarded(|| checkpoint.write(&path));
        let started = Builder::new().name("checkpoint".to_owned()).spawn_scoped(self.scope, work);
        self.writing = Some(started.map_err(|source| Error::Thread { source })?);
        Ok(())
    }

    /// What became of a checkpoint that is written.
    ///
    /// # Errors
    /// That it could not be.
    pub(crate) fn look(&mut self) -> Result<()> {
        if self.writing.as_ref().is_some_and(ScopedJoinHandle::is_finished) { self.finish() } else { Ok(()) }
    }

    /// Waits until it is written.
    ///
    /// # Errors
    /// That it could not be.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
