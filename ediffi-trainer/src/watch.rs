//! A run as it is watched: its numbers for TensorBoard, and its events.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ediffi_train::log::Entry;
use ediffi_train::run::Run;
use ediffi_train::state::TrainState;

use crate::Result;
use crate::observer::{Event, Observer};
use crate::run_folder::Anew;
use crate::tensorboard::Events;

/// Watches a run: its scalars for TensorBoard, and its events.
pub(crate) struct Watch {
    name: String,
    steps: u64,
    folder: PathBuf,
    events: Option<Events>,
    anew: Anew,
}

impl Watch {
    pub(crate) fn new(run: &Run<'_>, folder: &Path, anew: Anew) -> Self {
        let folder = folder.join("tensorboard").join(run.name);
        Self { name: run.name.to_owned(), steps: run.steps, folder, events: None, anew }
    }

    /// Sees to it that a restart counts as begun, once there is a checkpoint.
    pub(crate) fn begun(&mut self) -> Result<()> {
        self.anew.look()
    }

    /// The file of events, which begins with the first step that is done.
    pub(crate) fn events(&mut self, step: u64) -> Result<&mut Events> {
        match &mut self.events {
            Some(events) => Ok(events),
            none => Ok(none.insert(Events::begin(&self.folder, step)?)),
        }
    }

    /// Says that a step is done.
    pub(crate) fn step(
        &mut self,
        state: &TrainState,
        entry: Option<&Entry>,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<()>> {
        self.begun()?;
        let step = state.step();
        let events = self.events(step)?;
        if let Some(Entry { loss, gradient, rate, speed, waiting, .. }) = entry {
            for (tag, value) in [
                ("loss", loss),
                ("gradient", gradient),
                ("rate", rate),
                ("pictures a second", speed),
                ("waiting for batches", waiting),
            ] {
                events.scalar(tag, step, *value)?;
            }
        }
        Ok(observer.event(&Event::Step { name: &self.name, step, steps: self.steps, entry }))
    }
}
