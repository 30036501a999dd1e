//! Checkpoints written while the training goes on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use ediffi_core::guard::guarded;

use crate::checkpoint::Checkpoint;
use crate::error::file_error;
use crate::{Error, Result};

/// Removes a checkpoint that has been replaced, if there is one.
pub(crate) fn forget(replaced: &Path) -> Result<()> {
    match std::fs::remove_file(replaced) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(file_error(replaced)(error)),
        _ => Ok(()),
    }
}

/// Writes checkpoints to a file, one at a time, on a thread beside the training.
pub(crate) struct Writer<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    path: PathBuf,
    /// The checkpoint that the first one replaces.
    replaced: PathBuf,
    writing: Option<ScopedJoinHandle<'scope, Result<()>>>,
}

impl<'scope, 'env> Writer<'scope, 'env> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, path: PathBuf, replaced: PathBuf) -> Self {
        Self { scope, path, replaced, writing: None }
    }

    /// Begins to write what `make` returns, which is called when the one before is written: two are never in memory.
    ///
    /// # Errors
    /// Those of `make` and [`finish`](Self::finish); [`Error::Thread`].
    pub(crate) fn write(&mut self, make: impl FnOnce() -> Result<Checkpoint>) -> Result<()> {
        self.finish()?;
        let (checkpoint, path, replaced) = (make()?, self.path.clone(), self.replaced.clone());
        let work = move || guarded(|| checkpoint.write(&path).and_then(|()| forget(&replaced)));
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ediffi_core::weights::WeightsFile;
    use tch::{Device, Kind, Tensor};

    use crate::optimizer::AdamWSettings;
    use crate::state::TrainState;

    /// What is written beside the training is the state as it was, whatever the training does meanwhile.
    #[test]
    fn a_snapshot_is_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let [then, now] = ["then", "now"].map(|name| folder.path().join(name).with_extension("safetensors"));
        let weight = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        let mut state = TrainState::new(vec![("w".to_owned(), weight)], AdamWSettings::default(), 0.9).unwrap();
        let step = |state: &mut TrainState| {
            state.parameters()[0].1.sum(Kind::Float).backward();
            state.update(1, 1).unwrap();
        };
        step(&mut state);
        state.save(&then, HashMap::new()).unwrap();
        let snapshot = state.snapshot(HashMap::new()).unwrap();
        for _ in 0..3 {
            step(&mut state);
        }
        snapshot.write(&now).unwrap();
        let bytes = |path| {
            let mut bytes = Vec::new();
            let file = WeightsFile::open(path, |name| Some(name.to_owned())).unwrap();
            file.sample(|_| true, |part| bytes.extend_from_slice(part)).unwrap();
            bytes
        };
        assert_eq!(bytes(&then), bytes(&now));
    }
}
