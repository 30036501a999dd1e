//! Which noise levels a network is trained on (eDiff-I §4.1).

use ediffi_core::interval::{LogNormal, SigmaInterval};
use rand::Rng;

use crate::Result;

/// Draws noise levels from a log-normal distribution, or from the part of it that one expert owns.
#[derive(Debug, Clone, Copy)]
pub struct NoiseLevels {
    distribution: LogNormal,
    interval: SigmaInterval,
}

impl NoiseLevels {
    /// Levels of `interval`, each as likely as under `distribution`.
    #[must_use]
    pub fn new(distribution: LogNormal, interval: SigmaInterval) -> Self {
        Self { distribution, interval }
    }

    /// One level for each of `rows` pictures. The levels of a batch are stratified over the mass of the interval, which
    /// lowers the variance of the loss and leaves each level's distribution as it is.
    ///
    /// # Errors
    /// None today; drawing goes through the core's fallible interface.
    pub fn draw<R: Rng + ?Sized>(&self, rows: usize, rng: &mut R) -> Result<Vec<f64>> {
        let uniform = |rng: &mut R| (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        Ok((0..rows)
            .map(|row| {
                let u = (row as f64 + uniform(rng)) / rows as f64;
                self.distribution.sigma_at(self.interval, u)
            })
            .collect())
    }
}
