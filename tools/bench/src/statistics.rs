//! What is told of measured times: the middle, the spread, ratios with their interval, and how cost grows.

use evaluate::bootstrap::{Measure, RESAMPLES, interval, resample};

/// The value below which this part of the values lies, between two of them in a straight line; `None` of none.
pub(crate) fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(low + (high - low) * place.fract())
}

/// The middle one, or the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The median of `theirs / ours` in pairs, each of one round, with its 95 % bootstrap interval. Rounds that one of the two did not
/// finish are left out.
pub(crate) fn ratio(theirs: &[f64], ours: &[f64]) -> Option<Measure> {
    let ratios: Vec<f64> = theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
    let value = median(&ratios)?;
    let of = |drawn: &[usize]| {
        let drawn: Vec<f64> = drawn.iter().filter_map(|&index| ratios.get(index).copied()).collect();
        median(&drawn).unwrap_or(value)
    };
    Some(interval(value, resample(ratios.len(), RESAMPLES, of), ratios.len()))
}

/// The exponent of a power law through (size, cost), by least squares over the logarithms: 1 is linear. `None` of fewer than two
/// sizes.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let logarithms: Vec<(f64, f64)> = points.iter().map(|(size, cost)| (size.ln(), cost.ln())).collect();
    let count = logarithms.len() as f64;
    let (x, y) = logarithms.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x / count, b + y / count));
    let (over, under) =
        logarithms.iter().fold((0.0, 0.0), |(over, under), (a, b)| (over + (a - x) * (b - y), under + (a - x).powi(2)));
    (under > 0.0).then(|| over / under)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of n evenly spaced values the part p lies at p (n − 1).
    #[test]
    fn quantiles_of_a_ramp() {
        for n in [1, 2, 5, 9, 10] {
            let ramp: Vec<f64> = (0..n).rev().map(f64::from).collect();
            for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
                let expected = part * f64::from(n - 1);
                assert!((quantile(&ramp, part).unwrap() - expected).abs() < 1e-12, "{part} of {n}");
            }
        }
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 100.0]), Some(3.0), "one far out does not move it");
    }

    /// Rounds that drift alike on both sides leave the ratio where it is, and without any spread.
    #[test]
    fn a_constant_ratio_has_no_interval() {
        let ours: Vec<f64> = (1..=9).map(f64::from).collect();
        let theirs: Vec<f64> = ours.iter().map(|seconds| 1.5 * seconds).collect();
        let got = ratio(&theirs, &ours).unwrap();
        assert_eq!((got.value, got.low, got.high, got.samples), (1.5, 1.5, 1.5, 9));
        assert_eq!(ratio(&theirs[..4], &ours).unwrap().samples, 4);
        assert_eq!(ratio(&[], &ours), None);
    }

    /// The median of 0, 1, …, n − 1 drawn again has the standard error n / (2 √n), as the density there is 1 / n.
    #[test]
    fn the_interval_of_a_median_is_the_closed_form() {
        let (ours, theirs) = ([1.0; 401], (0..401).map(f64::from).collect::<Vec<_>>());
        let got = ratio(&theirs, &ours).unwrap();
        let wide = 1.96 * 401.0 / (2.0 * 401.0_f64.sqrt());
        assert_eq!(got.value, 200.0);
        // The ends of 2000 resamples vary, and the form holds for many values only.
        assert!((got.high - 200.0 - wide).abs() < 0.2 * wide && (200.0 - got.low - wide).abs() < 0.2 * wide, "{got:?}");
    }

    #[test]
    fn the_slope_of_a_power_law_is_its_exponent() {
        for exponent in [0.0, 0.5, 1.0, 2.0] {
            let points = [1.0, 2.0, 4.0, 8.0, 64.0].map(|size: f64| (size, 3.0 * size.powf(exponent)));
            assert!((slope(&points).unwrap() - exponent).abs() < 1e-12, "{exponent}");
        }
        assert_eq!(slope(&[(2.0, 1.0)]), None);
        assert_eq!(slope(&[]), None);
    }
}
