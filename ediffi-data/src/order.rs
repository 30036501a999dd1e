//! In which order samples are seen.

use crate::permutation::Permutation;
use crate::{Error, Result};

/// The order of the samples of a run: each once in an epoch, and in another order in each. Which sample stands at a position follows from the
/// seed, the position and the number of samples, so a run that is resumed, or divided into batches in another way, goes on in the same
/// order. No list is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    seed: u64,
    len: u64,
}

impl Order {
    /// That of `len` samples.
    ///
    /// # Errors
    /// [`Error::Empty`] for none.
    pub fn new(seed: u64, len: usize) -> Result<Self> {
        if len == 0 {
            return Err(Error::Empty { what: "an order".to_owned() });
        }
        Ok(Self { seed, len: len as u64 })
    }

    /// The sample at `position` of the run, from 0. Epoch e has the positions from e · len on.
    #[must_use]
    pub fn at(&self, position: u64) -> usize {
        let permutation = Permutation::new(self.seed, position / self.len, self.len);
        // It is below the length, which came from a `usize`.
        permutation.forward(position % self.len) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(seed: u64, len: usize, number: u64) -> Vec<usize> {
        let order = Order::new(seed, len).unwrap();
        let first = number * len as u64;
        (first..first + len as u64).map(|position| order.at(position)).collect()
    }

    #[test]
    fn an_epoch_has_every_sample_and_no_two_are_alike() {
        for len in [1, 2, 3, 10, 64, 65, 1000] {
            let mut sorted = epoch(3, len, 4);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..len).collect::<Vec<_>>());
        }
        let first = epoch(3, 100, 0);
        assert_ne!(first, epoch(3, 100, 1));
        assert_ne!(first, epoch(4, 100, 0));
        assert_ne!(first, (0..100).collect::<Vec<_>>());
        assert_eq!(first, epoch(3, 100, 0));
        assert!(matches!(Order::new(3, 0), Err(Error::Empty { .. })));
    }
}
