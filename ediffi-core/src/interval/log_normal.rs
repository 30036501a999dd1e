//! The log-normal distribution of noise levels in training.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::tree::Node;
use crate::normal::{cdf, quantile_below_half};
use crate::sigma_interval::SigmaInterval;
use crate::{Error, Result};

/// The distribution of noise levels in training: `ln(sigma) ~ N(p_mean, p_std^2)`.
///
/// The default is EDM's and eDiff-I's: `p_mean = -1.2`, `p_std = 1.2` (EDM, table 1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parameters")]
pub struct LogNormal {
    p_mean: f64,
    p_std: f64,
}

/// A [`LogNormal`] in a file, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    p_mean: f64,
    p_std: f64,
}

impl TryFrom<Parameters> for LogNormal {
    type Error = Error;

    fn try_from(Parameters { p_mean, p_std }: Parameters) -> Result<Self> {
        Self::new(p_mean, p_std)
    }
}

impl Default for LogNormal {
    fn default() -> Self {
        Self { p_mean: -1.2, p_std: 1.2 }
    }
}

impl LogNormal {
    /// A distribution with the mean and the standard deviation of `ln(sigma)`.
    ///
    /// # Errors
    /// [`Error::InvalidDistribution`] unless both are finite and `p_std > 0`.
    pub fn new(p_mean: f64, p_std: f64) -> Result<Self> {
        if p_mean.is_finite() && p_std.is_finite() && p_std > 0.0 {
            Ok(Self { p_mean, p_std })
        } else {
            let reason = format!("p_mean {p_mean} and p_std {p_std} have to be finite, p_std positive");
            Err(Error::InvalidDistribution(reason))
        }
    }

    /// The mean of `ln(sigma)`.
    #[must_use]
    pub fn p_mean(&self) -> f64 {
        self.p_mean
    }

    /// The standard deviation of `ln(sigma)`.
    #[must_use]
    pub fn p_std(&self) -> f64 {
        self.p_std
    }

    /// The probability of a noise level below `sigma`.
    #[must_use]
    pub fn cdf(&self, sigma: f64) -> f64 {
        cdf(self.z(sigma))
    }

    /// The noise level with probability `mass` below it: 0 for `mass <= 0`, infinite for `mass >= 1`.
    #[must_use]
    pub fn quantile(&self, mass: f64) -> f64 {
        // Each half is computed from its own tail, where the precision is.
        let z = if mass < 0.5 { quantile_below_half(mass) } else { -quantile_below_half(1.0 - mass) };
        self.sigma(z)
    }

    /// The noise levels of a cell of the tree. Neighbouring cells, of any two levels, share an end exactly.
    #[must_use]
    pub fn interval(&self, node: Node) -> SigmaInterval {
        let (low, high) = node.mass();
        SigmaInterval::checked(self.quantile(low), self.quantile(high))
    }

    /// The noise levels that `nodes` do not cover, lowest first.
    ///
    /// So eDiff-I finds the interval of its third expert: it owns all between the lowest and the highest expert (section
    /// 4.1). Nodes may overlap. If they cover everything, the result is empty.
    ///
    /// # Errors
    /// [`Error::InvalidInterval`] if a gap is so thin that its two ends are the same `f64`.
    pub fn complement(&self, nodes: &[Node]) -> Result<Vec<SigmaInterval>> {
        let mut covered: Vec<_> = nodes.iter().map(Node::mass).collect();
        covered.sort_by(|a, b| a.0.total_cmp(&b.0));
        covered.push((1.0, 1.0));
        let mut gaps = Vec::new();
        let mut end = 0.0_f64;
        for (low, high) in covered {
            if low > end {
                gaps.push(SigmaInterval::new(self.quantile(end), self.quantile(low))?);
            }
            end = end.max(high);
        }
        Ok(gaps)
    }

    /// The noise level in `interval` that has the fraction `u` of the interval's probability below it.
    ///
    /// A uniform `u` from (0, 1) gives a draw from this distribution, restricted to the interval. Evenly spread `u` give a
    /// stratified draw. The result is positive, finite and inside the interval, whatever `u` is.
    #[must_use]
    pub fn sigma_at(&self, interval: SigmaInterval, u: f64) -> f64 {
        let u = if u.is_nan() { 0.5 } else { u.clamp(f64::EPSILON / 2.0, 1.0 - f64::EPSILON / 2.0) };
        let (low, high) = (self.z(interval.low()), self.z(interval.high()));
        let z = if low < 0.0 {
            let (below, until) = (cdf(low), cdf(high));
            let mass = below + u * (until - below);
            if mass < 0.5 { quantile_below_half(mass) } else { -quantile_below_half(1.0 - mass) }
        } else {
            // Measured from the upper end: an expert that owns the highest noise has a mass close to 1 below it.
            let (above, from) = (cdf(-high), cdf(-low));
            -quantile_below_half(above + (1.0 - u) * (from - above))
        };
        // Not `clamp`, which panics for an interval below the normal numbers.
        self.sigma(z).max(interval.low().max(f64::MIN_POSITIVE)).min(interval.high().next_down())
    }

    /// Draws a noise level from this distribution, restricted to `interval`.
    pub fn sample<R: Rng + ?Sized>(&self, interval: SigmaInterval, rng: &mut R) -> f64 {
        self.sigma_at(interval, rng.random::<f64>())
    }

    fn z(&self, sigma: f64) -> f64 {
        (sigma.ln() - self.p_mean) / self.p_std
    }

    fn sigma(&self, z: f64) -> f64 {
        (self.p_mean + self.p_std * z).exp()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn node(level: u32, index: u64) -> Node {
        Node::new(level, index).unwrap()
    }

    #[test]
    fn cuts_are_those_of_the_default_distribution() {
        // exp(-1.2 + 1.2 * Phi^-1(u)); the outer two are the edges of the paper's E^3_0 and E^9_511.
        let table = [
            (1.0 / 8.0, 0.0757),
            (1.0 / 4.0, 0.1341),
            (1.0 / 2.0, 0.3012),
            (3.0 / 4.0, 0.6766),
            (7.0 / 8.0, 1.1977),
            (15.0 / 16.0, 1.898),
            (31.0 / 32.0, 2.816),
            (63.0 / 64.0, 3.993),
            (127.0 / 128.0, 5.480),
            (255.0 / 256.0, 7.331),
            (511.0 / 512.0, 9.610),
        ];
        for (u, sigma) in table {
            let got = LogNormal::default().quantile(u);
            assert!((got / sigma - 1.0).abs() < 6e-4, "quantile({u}) = {got}, expected {sigma}");
        }
        assert_eq!(LogNormal::default().quantile(0.0), 0.0);
        assert_eq!(LogNormal::default().quantile(1.0), f64::INFINITY);
        assert_eq!(LogNormal::default().cdf(0.0), 0.0);
        assert_eq!(LogNormal::default().cdf(f64::INFINITY), 1.0);
    }

    #[test]
    fn neighbours_share_their_end_and_the_paper_s_middle_fits() {
        let noise = LogNormal::default();
        assert_eq!(noise.interval(node(0, 0)), SigmaInterval::ALL);
        assert_eq!(noise.interval(node(3, 0)).high(), noise.interval(node(5, 4)).low());
        let middle = noise.complement(&[node(9, 511), node(3, 0)]).unwrap();
        assert_eq!(
            middle,
            [SigmaInterval::new(noise.interval(node(3, 0)).high(), noise.interval(node(9, 511)).low()).unwrap()]
        );
        assert_eq!(
            noise.complement(&[node(9, 511)]).unwrap(),
            [SigmaInterval::new(0.0, noise.interval(node(9, 511)).low()).unwrap()]
        );
        assert_eq!(noise.complement(&[]).unwrap(), [SigmaInterval::ALL]);
        assert_eq!(noise.complement(&[node(1, 0), node(1, 1), node(4, 3)]).unwrap(), []);
    }

    #[test]
    fn bad_distributions_are_refused() {
        assert!(matches!(LogNormal::new(0.0, 0.0), Err(Error::InvalidDistribution { .. })));
        assert!(matches!(LogNormal::new(f64::NAN, 1.0), Err(Error::InvalidDistribution { .. })));
    }

    #[test]
    fn json_is_checked() {
        let noise: LogNormal = serde_json::from_str(r#"{"p_mean": -1.2, "p_std": 1.2}"#).unwrap();
        assert_eq!(noise, LogNormal::default());
        assert!(serde_json::from_str::<LogNormal>(r#"{"p_mean": 0, "p_std": -1}"#).is_err());
    }

    #[test]
    fn samples_of_a_cell_halve_at_its_middle() {
        let noise = LogNormal::default();
        for cell in [node(0, 0), node(3, 0), node(9, 511)] {
            let middle = noise.interval(cell.children().unwrap()[1]).low();
            let mut rng = ChaCha20Rng::from_seed([7; 32]);
            let below = (0..4000).filter(|_| noise.sample(noise.interval(cell), &mut rng) < middle).count();
            // Five standard deviations of a fair coin thrown 4000 times.
            assert!(below.abs_diff(2000) < 160, "{cell:?}: {below}");
        }
    }

    proptest! {
        #[test]
        fn quantile_inverts_cdf(ln_sigma in -9.0..6.0_f64) {
            let noise = LogNormal::default();
            let sigma = ln_sigma.exp();
            let back = noise.quantile(noise.cdf(sigma));
            // In the upper tail the mass itself carries the rounding of 1.0.
            let slope = 1e-15 / (1.0 - noise.cdf(sigma));
            prop_assert!((back / sigma - 1.0).abs() < 1e-11 + slope, "{} {}", sigma, back);
        }

        #[test]
        fn samples_stay_inside(low in -12.0..9.0_f64, width in 1e-9..5.0_f64, u in 0.0..=1.0_f64) {
            let noise = LogNormal::default();
            for interval in [
                SigmaInterval::new(low.exp(), (low + width).exp()).unwrap(),
                SigmaInterval::new(low.exp(), f64::INFINITY).unwrap(),
                SigmaInterval::new(0.0, low.exp()).unwrap(),
            ] {
                let sigma = noise.sigma_at(interval, u);
                prop_assert!(interval.contains(sigma) && sigma > 0.0 && sigma.is_finite(), "{} {}", interval, sigma);
            }
        }
    }
}
