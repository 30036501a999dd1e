//! Which two numbers make a [`SigmaInterval`].

use crate::sigma_interval::SigmaInterval;
use crate::{Error, Result};

impl SigmaInterval {
    /// The interval `[low, high)`.
    ///
    /// # Errors
    /// [`Error::InvalidInterval`] unless `0 <= low < high` and `low` is finite.
    pub fn new(low: f64, high: f64) -> Result<Self> {
        if low >= 0.0 && low.is_finite() && low < high {
            // `-0.0 >= 0.0` holds; adding zero makes it 0.0, so that equal intervals also print alike.
            Ok(Self::checked(low + 0.0, high))
        } else {
            Err(Error::InvalidInterval { low, high })
        }
    }
}

impl TryFrom<(f64, Option<f64>)> for SigmaInterval {
    type Error = Error;

    fn try_from((low, high): (f64, Option<f64>)) -> Result<Self> {
        Self::new(low, high.unwrap_or(f64::INFINITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_intervals_are_refused() {
        for (low, high) in [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0), (0.0, f64::NAN), (f64::INFINITY, 1.0)]
        {
            assert!(matches!(SigmaInterval::new(low, high), Err(Error::InvalidInterval { .. })), "{low} {high}");
        }
    }

    #[test]
    fn json_uses_null_for_the_open_end_and_checks() {
        let open: SigmaInterval = serde_json::from_str("[9.61, null]").unwrap();
        assert_eq!(open, SigmaInterval::new(9.61, f64::INFINITY).unwrap());
        assert_eq!(serde_json::to_string(&open).unwrap(), "[9.61,null]");
        let error = serde_json::from_str::<SigmaInterval>("[3, 2]").unwrap_err();
        assert!(error.to_string().contains("[3, 2) is no sigma interval"), "{error}");
    }
}
