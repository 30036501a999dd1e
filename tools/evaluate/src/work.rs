//! Work side by side: small networks gain far more from pictures computed beside each other than from threads that share
//! one operation.

use crate::error::{Error, Result};

/// Runs each item on a thread of its own and gives the results in their order.
///
/// # Errors
/// The first error, in the order of the items; [`Error::Worker`] when a thread panicked.
pub fn spread<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    run: impl Fn(I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let run = &run;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || run(item))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| Error::Worker)?).collect()
    })
}
