//! Which noise levels a network is trained on (eDiff-I §4.1).

use ediffi_core::interval::{LogNormal, SigmaInterval};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::{expect_positive, expect_setting, expect_share};
use crate::random::{draws, uniform};

/// More noise levels at the high end of the distribution, evenly spread in ln σ.
///
/// Sampling starts at σ = 80 and takes a third of its steps above 10. The paper's distribution puts one level in 500 above 9.6
/// and one in 600 000 above 80. Without a tail, the expert of the highest noise hardly sees in training what it is asked for in
/// sampling.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    /// The share of the levels, from 0 to 1, that a network draws from the tail if it owns all of it. A network that owns a part of
    /// the tail draws the same part of the share, measured in ln σ.
    pub share: f64,
    /// The lowest σ of the tail.
    pub from: f64,
    /// The highest, which sampling starts from.
    pub to: f64,
}

impl Tail {
    /// Fails with the first field that makes no sense.
    pub(crate) fn validate(&self) -> Result<()> {
        expect_share("tail.share", self.share)?;
        expect_positive("tail.from", self.from)?;
        expect_setting(self.to > self.from && self.to.is_finite(), "tail.to", self.to, "is not above tail.from")
    }

    /// The part of the tail inside `interval`, with its part of the share: whole for E⁹₅₁₁, whose levels begin at 9.6096, of a
    /// tail from 9.61; next to nothing for a network that reaches into the tail by a sliver.
    fn inside(&self, interval: SigmaInterval) -> Option<Self> {
        let (from, to) = (self.from.max(interval.low()), self.to.min(interval.high()));
        // At most the whole, however the logarithms round.
        let part = ((to / from).ln() / (self.to / self.from).ln()).min(1.0);
        (from < to && self.share * part > 0.0).then_some(Self { share: self.share * part, from, to })
    }
}

/// Draws noise levels from a log-normal distribution, or from the part of it that one expert owns.
#[derive(Debug, Clone, Copy)]
pub struct NoiseLevels {
    distribution: LogNormal,
    interval: SigmaInterval,
    tail: Option<Tail>,
}

impl NoiseLevels {
    /// Levels of `interval`, each as likely as under `distribution`.
    #[must_use]
    pub fn new(distribution: LogNormal, interval: SigmaInterval) -> Self {
        Self { distribution, interval, tail: None }
    }

    /// The same, with a share of the levels drawn from the part of `tail` that lies inside the interval. The share is the tail's
    /// times that part, in ln σ.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) naming the first field of the tail that makes no sense.
    pub fn with_tail(self, tail: &Tail) -> Result<Self> {
        tail.validate()?;
        Ok(Self { tail: tail.inside(self.interval), ..self })
    }

    /// The share of the levels that lie at or above `sigma`.
    #[must_use]
    pub fn share_above(&self, sigma: f64) -> f64 {
        let (low, high) = (self.distribution.cdf(self.interval.low()), self.distribution.cdf(self.interval.high()));
        let sigma = sigma.clamp(self.interval.low(), self.interval.high());
        let share = (high - self.distribution.cdf(sigma)) / (high - low);
        match self.tail {
            None => share,
            Some(tail) => {
                let above = (tail.to / sigma.clamp(tail.from, tail.to)).ln() / (tail.to / tail.from).ln();
                (1.0 - tail.share) * share + tail.share * above
            }
        }
    }

    /// One level for each of `rows` pictures. The levels are stratified: row i of n draws its level from slice i of n of the mass of
    /// the interval, lowest noise first, the tail last. The distribution stays the same, and the loss varies less.
    ///
    /// # Errors
    /// [`Error::RandomShape`](crate::Error::RandomShape) for more rows than memory has room for.
    pub fn draw<R: Rng + ?Sized>(&self, rows: usize, rng: &mut R) -> Result<Vec<f64>> {
        let mut row = 0.0;
        draws(rows, || {
            let u = (row + uniform(rng)) / rows as f64;
            row += 1.0;
            self.level(u)
        })
    }

    /// The level at the fraction `u` of the mass.
    fn level(&self, u: f64) -> f64 {
        let Some(tail) = self.tail else { return self.distribution.sigma_at(self.interval, u) };
        let body = 1.0 - tail.share;
        if u < body {
            return self.distribution.sigma_at(self.interval, u / body);
        }
        let (from, to) = (tail.from.ln(), tail.to.ln());
        // Rounding must not carry a level out of the interval.
        (from + (u - body) / tail.share * (to - from)).exp().clamp(tail.from, tail.to.next_down())
    }
}

#[cfg(test)]
mod tests {
    use ediffi_core::interval::Node;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::Error;

    #[test]
    fn every_level_lies_in_its_slice_of_the_interval() {
        let noise = LogNormal::default();
        let middle = noise.complement(&[Node::new(3, 0).unwrap(), Node::new(9, 511).unwrap()]).unwrap()[0];
        let high = noise.interval(Node::new(9, 511).unwrap());
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for interval in [SigmaInterval::ALL, noise.interval(Node::new(3, 0).unwrap()), middle, high] {
            let (below, mass) = (noise.cdf(interval.low()), noise.cdf(interval.high()) - noise.cdf(interval.low()));
            for rows in [1, 2, 64] {
                for (row, sigma) in
                    NoiseLevels::new(noise, interval).draw(rows, &mut rng).unwrap().into_iter().enumerate()
                {
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
        let mut drawn: Vec<f64> = (0..4000).flat_map(|_| levels.draw(1, &mut rng).unwrap()).collect();
        drawn.sort_by(f64::total_cmp);
        for part in [0.1, 0.25, 0.5, 0.75, 0.9] {
            let mass = noise.cdf(drawn[(part * 4000.0) as usize]);
            // Five standard deviations of an order statistic, in mass of the interval.
            let tolerance = 5.0 * (part * (1.0 - part) / 4000.0_f64).sqrt() * 0.5;
            assert!((mass - (0.25 + 0.5 * part)).abs() < tolerance, "quantile {part}: {mass}");
        }
    }

    const TAIL: Tail = Tail { share: 0.25, from: 9.61, to: 80.0 };

    /// Without a tail, hardly any level of E⁹₅₁₁ is above 30; with a quarter of the levels evenly in ln σ, many are. The
    /// shares drawn are those of the closed form.
    #[test]
    fn the_tail_has_its_share_of_the_levels_evenly_in_their_logarithm() {
        let noise = LogNormal::default();
        let high = noise.interval(Node::new(9, 511).unwrap());
        assert!(NoiseLevels::new(noise, high).share_above(30.0) < 0.04);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for interval in [high, SigmaInterval::ALL] {
            let levels = NoiseLevels::new(noise, interval).with_tail(&TAIL).unwrap();
            let drawn = levels.draw(20_000, &mut rng).unwrap();
            assert!(drawn.iter().all(|sigma| interval.contains(*sigma)));
            for sigma in [0.3, 9.7, 20.0, 30.0, 60.0, 79.9] {
                let share = drawn.iter().filter(|s| **s >= sigma).count() as f64 / 20_000.0;
                assert!((share - levels.share_above(sigma)).abs() < 2e-4, "{interval} above {sigma}: {share}");
            }
            let above = 0.25 * (80.0_f64 / 30.0).ln() / (80.0_f64 / TAIL.from.max(interval.low())).ln();
            let body = 0.75 * NoiseLevels::new(noise, interval).share_above(30.0);
            assert!((levels.share_above(30.0) - above - body).abs() < 1e-12);
        }
    }

    /// A network that owns a part of the tail draws that part of the share: 0.25 · ln(20/10) / ln(160/10) is a sixteenth.
    #[test]
    fn a_part_of_the_tail_has_its_part_of_the_share() {
        let noise = LogNormal::default();
        let tail = Tail { share: 0.25, from: 10.0, to: 160.0 };
        let share = |low: f64, high: f64| {
            let levels = NoiseLevels::new(noise, SigmaInterval::new(low, high).unwrap()).with_tail(&tail).unwrap();
            levels.tail.map_or(0.0, |tail| tail.share)
        };
        assert!((share(1.0, 20.0) - 0.0625).abs() < 1e-12, "{}", share(1.0, 20.0));
        assert!((share(20.0, 500.0) - 0.1875).abs() < 1e-12, "{}", share(20.0, 500.0));
        assert_eq!((share(9.0, 500.0), share(10.0, 160.0), share(1.0, 10.0)), (0.25, 0.25, 0.0));
        // A sliver has hardly any, and its levels are drawn.
        let sliver = SigmaInterval::new(1.0, 10.001).unwrap();
        let levels = NoiseLevels::new(noise, sliver).with_tail(&tail).unwrap();
        assert!(levels.tail.unwrap().share < 1e-5 && levels.share_above(10.0) < 2e-5);
        let drawn = levels.draw(1000, &mut ChaCha8Rng::seed_from_u64(7)).unwrap();
        assert!(drawn.iter().all(|sigma| sliver.contains(*sigma)) && drawn.iter().any(|sigma| *sigma < 2.0));
    }

    /// E⁹₅₁₁ begins a little below the tail: it owns the whole of it.
    #[test]
    fn the_expert_of_the_highest_noise_has_the_whole_share() {
        let noise = LogNormal::default();
        let high = noise.interval(Node::new(9, 511).unwrap());
        assert!(high.low() < TAIL.from && (high.low() - 9.6096).abs() < 1e-3, "{high}");
        let levels = NoiseLevels::new(noise, high).with_tail(&TAIL).unwrap();
        assert_eq!(levels.tail.unwrap(), TAIL);
    }

    #[test]
    fn a_tail_outside_the_interval_changes_nothing() {
        let noise = LogNormal::default();
        let low = noise.interval(Node::new(3, 0).unwrap());
        let draw = |levels: NoiseLevels| levels.draw(64, &mut ChaCha8Rng::seed_from_u64(6)).unwrap();
        let plain = NoiseLevels::new(noise, low);
        assert_eq!(draw(plain.with_tail(&TAIL).unwrap()), draw(plain));
        let none = Tail { share: 0.0, ..TAIL };
        let all = NoiseLevels::new(noise, SigmaInterval::ALL);
        assert_eq!(draw(all.with_tail(&none).unwrap()), draw(all));
        let error = all.draw(usize::MAX, &mut ChaCha8Rng::seed_from_u64(6)).unwrap_err();
        assert!(matches!(error, Error::RandomShape { .. }), "{error}");
    }

    #[test]
    fn a_tail_that_makes_no_sense_is_refused_by_its_field() {
        for (tail, field) in [
            (Tail { share: 1.5, ..TAIL }, "tail.share"),
            (Tail { from: 0.0, ..TAIL }, "tail.from"),
            (Tail { to: 9.0, ..TAIL }, "tail.to"),
            (Tail { to: f64::INFINITY, ..TAIL }, "tail.to"),
        ] {
            let error = NoiseLevels::new(LogNormal::default(), SigmaInterval::ALL).with_tail(&tail).unwrap_err();
            assert!(matches!(error, Error::Setting { field: named, .. } if named == field), "{error}");
        }
    }
}
