//! Batches made ahead of time on background threads, in a fixed order.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::{Error, Result};

/// Hands out batches number `first`, `first + 1`, … while the next ones are being made.
#[derive(Debug)]
pub struct Prefetch<T> {
    batches: Receiver<T>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Makes batches with `make`, a pure function of the batch's number, keeping up to `depth` ready (at least one) and one
    /// more in hand. `make` runs on one thread of its own and is free to spread its work with rayon. Dropping the
    /// `Prefetch` ends the thread once the batch it is making is done.
    ///
    /// # Errors
    /// [`Error::Thread`] when the thread cannot be started.
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
            .map_err(|source| Error::Thread { source })?;
        Ok(Self { batches })
    }

    /// The next batch, waiting for it if need be.
    ///
    /// # Errors
    /// [`Error::NoBatches`] when the thread that makes them has ended: `make` panicked.
    pub fn next(&self) -> Result<T> {
        self.batches.recv().map_err(|_| Error::NoBatches)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// Long enough for a machine with other work; only a failing test waits it out.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn batches_come_in_order_from_the_first() {
        let batches = Prefetch::new(7, 3, |number| number * 10).unwrap();
        let got: Vec<u64> = (0..5).map(|_| batches.next().unwrap()).collect();
        assert_eq!(got, [70, 80, 90, 100, 110]);
    }

    #[test]
    fn works_ahead_by_its_depth_and_one_and_ends_when_dropped() {
        let (made, making) = channel();
        let batches = Prefetch::new(0, 2, move |number| made.send(number).unwrap()).unwrap();
        // Two wait in the queue and the third is in hand before anyone asks; the fourth only after.
        for number in 0..3 {
            assert_eq!(making.recv_timeout(PATIENCE), Ok(number));
        }
        assert!(making.recv_timeout(Duration::from_millis(50)).is_err(), "the fourth batch is too early");
        batches.next().unwrap();
        assert_eq!(making.recv_timeout(PATIENCE), Ok(3));
        drop(batches);
        // The thread drops the function, and with it the sender, when it ends.
        assert_eq!(making.recv_timeout(PATIENCE), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_maker_that_panics_is_an_error_not_a_hang() {
        let batches =
            Prefetch::new(0, 1, |number| if number < 2 { number } else { panic!("the test's maker breaks here") })
                .unwrap();
        assert_eq!((batches.next().unwrap(), batches.next().unwrap()), (0, 1));
        assert!(matches!(batches.next(), Err(Error::NoBatches)));
    }
}
