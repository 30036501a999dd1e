//! Which noise levels a network is trained on (eDiff-I §4.1).

use ediffi_core::interval::{LogNormal, SigmaInterval};
use rand::Rng;

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
    /// lowers the variance of the loss and leaves the distribution of a batch as it is: row i of n has its level from
    /// slice i of n, lowest noise first.
    pub fn draw<R: Rng + ?Sized>(&self, rows: usize, rng: &mut R) -> Vec<f64> {
        let uniform = |rng: &mut R| (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        (0..rows)
            .map(|row| {
                let u = (row as f64 + uniform(rng)) / rows as f64;
                self.distribution.sigma_at(self.interval, u)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use ediffi_core::interval::Node;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn every_level_lies_in_its_slice_of_the_interval() {
        let noise = LogNormal::default();
        let middle = noise.complement(&[Node::new(3, 0).unwrap(), Node::new(9, 511).unwrap()]).unwrap()[0];
        let high = noise.interval(Node::new(9, 511).unwrap());
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for interval in [SigmaInterval::ALL, noise.interval(Node::new(3, 0).unwrap()), middle, high] {
            let (below, mass) = (noise.cdf(interval.low()), noise.cdf(interval.high()) - noise.cdf(interval.low()));
            for rows in [1, 2, 64] {
                for (row, sigma) in NoiseLevels::new(noise, interval).draw(rows, &mut rng).into_iter().enumerate() {
                    assert!(interval.contains(sigma), "{sigma} is outside {interval}");
                    let slice = (noise.cdf(sigma) - below) / mass * rows as f64;
                    let row = row as f64;
                    assert!(
                        (row - 1e-6..=row + 1.0 + 1e-6).contains(&slice),
                        "row {row} of {rows} in {interval}: {slice}"
                    );
                }
            }
        }
    }

    /// Within a slice the level is drawn evenly by mass: 4000 draws of one row have the distribution's quantiles.
    #[test]
    fn single_draws_have_the_quantiles_of_the_distribution() {
        let noise = LogNormal::new(0.4, 1.4).unwrap();
        let interval = SigmaInterval::new(noise.quantile(0.25), noise.quantile(0.75)).unwrap();
        let levels = NoiseLevels::new(noise, interval);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut drawn: Vec<f64> = (0..4000).flat_map(|_| levels.draw(1, &mut rng)).collect();
        drawn.sort_by(f64::total_cmp);
        for part in [0.1, 0.25, 0.5, 0.75, 0.9] {
            let mass = noise.cdf(drawn[(part * 4000.0) as usize]);
            // Five standard deviations of an order statistic, in mass of the interval.
            let tolerance = 5.0 * (part * (1.0 - part) / 4000.0_f64).sqrt() * 0.5;
            assert!((mass - (0.25 + 0.5 * part)).abs() < tolerance, "quantile {part}: {mass}");
        }
    }
}
