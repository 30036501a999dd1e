//! The standard normal distribution, in f64.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// `Phi(z)`, the standard normal distribution function; accurate in the lower tail too.
pub(crate) fn cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// `Phi^-1(p)` for `p <= 1/2`: a rational start (Abramowitz and Stegun, 26.2.23, error below 4.5e-4), then Halley's
/// method on `Phi`, which triples the number of correct digits each time.
pub(crate) fn quantile_below_half(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    // Below the normal numbers, `exp(z^2 / 2)` would overflow.
    let p = p.max(f64::MIN_POSITIVE);
    let t = (-2.0 * p.ln()).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let denominator = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let mut z = numerator / denominator - t;
    for _ in 0..3 {
        let error = (cdf(z) - p) * (2.0 * PI).sqrt() * (0.5 * z * z).exp();
        z -= error / (1.0 + 0.5 * z * error);
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_match_the_tables() {
        // Phi(-z) = p for well-known z.
        for (p, z) in [(0.5, 0.0), (0.025, -1.959_963_984_540_054), (1e-9, -5.997_807_015_007_686)] {
            assert!((quantile_below_half(p) - z).abs() < 1e-12, "{p}: {} {z}", quantile_below_half(p));
        }
        assert!((cdf(-1.0) - 0.158_655_253_931_457_05).abs() < 1e-15);
    }

    #[test]
    fn the_far_tail_stays_finite() {
        for p in [1e-300, f64::MIN_POSITIVE, 5e-324] {
            let z = quantile_below_half(p);
            assert!((-38.5..-37.0).contains(&z), "{p}: {z}");
        }
        assert_eq!(quantile_below_half(0.0), f64::NEG_INFINITY);
    }
}
