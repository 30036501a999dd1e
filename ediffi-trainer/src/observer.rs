//! What a training tells on its way.

use std::ops::ControlFlow;
use std::path::Path;

use ediffi_train::log::Entry;

/// What has happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A step of a network, or of an encoder, is done.
    Step {
        /// Its name, as `base.shared`.
        name: &'a str,
        /// Steps done.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// The new line of the log, every few steps.
        entry: Option<&'a Entry>,
    },
    /// A network was measured.
    Measured {
        /// Its name.
        name: &'a str,
        /// Steps done.
        step: u64,
        /// The mean loss in each range of noise levels.
        losses: &'a [f64],
    },
    /// A sheet was drawn.
    Sheet {
        /// The file.
        path: &'a Path,
    },
    /// Pictures that cannot be read were skipped in this training of a network: every few steps those of this process, at the end those of all
    /// that train it. One that comes in several epochs counts each time.
    Skipped {
        /// Its name.
        name: &'a str,
        /// How many times.
        times: u64,
    },
    /// A network has had all its steps, now or before, in whichever process.
    Trained {
        /// Its name.
        name: &'a str,
    },
    /// Captions were encoded.
    Encoded {
        /// How many are done.
        done: usize,
        /// Of how many.
        all: usize,
    },
    /// The model is whole.
    Model {
        /// Its folder.
        folder: &'a Path,
    },
}

/// Receives the events of a training, and may stop it. The unit type lets everything pass.
pub trait Observer {
    /// Called on the thread that trains. To break stops the training after its checkpoint is written; the same call goes on from there.
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()>;
}

impl Observer for () {
    fn event(&mut self, _: &Event<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
