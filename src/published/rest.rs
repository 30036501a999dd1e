//! The noise levels that are left over.

use ediffi_core::expert_interval::outside;
use ediffi_core::interval::SigmaInterval;

/// The noise levels outside of `taken`. Where two of these overlap, the ensemble refuses them.
pub(crate) fn rest(taken: Vec<SigmaInterval>) -> Vec<SigmaInterval> {
    outside(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(low: f64, high: f64) -> SigmaInterval {
        SigmaInterval::new(low, high).unwrap()
    }

    #[test]
    fn the_rest_fills_the_holes() {
        let all = f64::INFINITY;
        assert_eq!(rest(Vec::new()), [interval(0.0, all)]);
        assert_eq!(rest(vec![interval(1.0, all)]), [interval(0.0, 1.0)]);
        assert_eq!(rest(vec![interval(0.0, 1.0)]), [interval(1.0, all)]);
        assert_eq!(
            rest(vec![interval(2.0, 3.0), interval(0.5, 1.0)]),
            [interval(0.0, 0.5), interval(1.0, 2.0), interval(3.0, all)]
        );
        assert_eq!(rest(vec![interval(0.0, all)]), []);
    }
}
