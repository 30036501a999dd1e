//! Batches made ahead of time on a background thread, in order.

use std::sync::mpsc::sync_channel;

use crate::batch::BatchSource;
use crate::{Error, Result};

/// A function that hands out the batches of a source in order, from number `first` on, while the next ones are being made. `depth` of
/// them are kept ready (at least one), and one more is in hand. They are made on one thread; a source is free to spread its work
/// with rayon. Dropping the function ends the thread once the batch it is making is done.
///
/// # Errors
/// [`Error::Thread`] when the thread cannot be started. The function's are the source's own, and [`Error::NoBatches`] when its
/// thread has ended: it panicked.
pub fn prefetch<D: BatchSource<Error: From<Error>>>(
    first: u64,
    depth: usize,
    data: D,
) -> Result<impl FnMut() -> Result<D::Batch, D::Error>> {
    prefetch_some(first.., depth, data)
}

/// As [`prefetch`], of the batches with these `numbers` alone.
///
/// # Errors
/// As [`prefetch`]. [`Error::NoBatches`] also behind the last number.
pub fn prefetch_some<D: BatchSource<Error: From<Error>>>(
    numbers: impl Iterator<Item = u64> + Send + 'static,
    depth: usize,
    data: D,
) -> Result<impl FnMut() -> Result<D::Batch, D::Error>> {
    let (sender, batches) = sync_channel(depth.max(1));
    // The channel closes when the trainer is done, which ends the thread.
    let work = move || numbers.map(|number| data.batch(number)).try_for_each(|batch| sender.send(batch));
    let started = std::thread::Builder::new().name("prefetch".to_owned()).spawn(work);
    started.map_err(|source| Error::Thread { source })?;
    Ok(move || batches.recv().map_err(|_| Error::NoBatches)?)
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
        let mut batches = prefetch(7, 3, |number| Ok::<_, Error>(number * 10)).unwrap();
        let got: Vec<u64> = (0..5).map(|_| batches().unwrap()).collect();
        assert_eq!(got, [70, 80, 90, 100, 110]);
    }

    #[test]
    fn works_ahead_by_its_depth_and_one_and_ends_when_dropped() {
        let (made, making) = channel();
        let mut batches = prefetch(0, 2, move |number| Ok::<_, Error>(made.send(number).is_ok())).unwrap();
        // Two wait in the queue and the third is in hand before anyone asks; the fourth only after.
        for number in 0..3 {
            assert_eq!(making.recv_timeout(PATIENCE), Ok(number));
        }
        assert!(making.recv_timeout(Duration::from_millis(50)).is_err(), "the fourth batch is too early");
        batches().unwrap();
        assert_eq!(making.recv_timeout(PATIENCE), Ok(3));
        drop(batches);
        // The thread drops the function, and with it the sender, when it ends.
        assert_eq!(making.recv_timeout(PATIENCE), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_maker_that_panics_is_an_error_not_a_hang() {
        let make = |number| if number < 2 { Ok::<_, Error>(number) } else { panic!("the test's maker breaks here") };
        let mut batches = prefetch(0, 1, make).unwrap();
        assert_eq!((batches().unwrap(), batches().unwrap()), (0, 1));
        assert!(matches!(batches(), Err(Error::NoBatches)));
    }
}
