//! Batches made ahead of time on background threads, in a fixed order.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::{Error, Result};

/// Hands out batches number `first`, `first + 1`, … while the next ones are being made.
#[derive(Debug)]
pub struct Prefetch<T> {
    batches: Receiver<T>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Makes batches with `make`, a pure function of the batch's number, keeping up to `depth` ready. `make` runs on one
    /// thread of its own and is free to spread its work with rayon.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn new(first: u64, depth: usize, make: impl Fn(u64) -> T + Send + 'static) -> Result<Self> {
        let (sender, batches): (SyncSender<T>, _) = sync_channel(depth.max(1));
        std::thread::Builder::new()
            .name("prefetch".to_owned())
            .spawn(move || {
                // The channel closes when the trainer is done, which ends the thread.
                for number in first.. {
                    if sender.send(make(number)).is_err() {
                        return;
                    }
                }
            })
            .map_err(|source| Error::File { path: "prefetch thread".into(), source })?;
        Ok(Self { batches })
    }

    /// The next batch, waiting for it if need be.
    ///
    /// # Errors
    /// [`Error::NoBatches`] when the thread that makes them has ended.
    pub fn next(&self) -> Result<T> {
        self.batches.recv().map_err(|_| Error::NoBatches)
    }
}
