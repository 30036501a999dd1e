//! Half-open ranges of noise levels. The type stands apart from what makes one ([`crate::interval`]), because errors hold it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A half-open range `[low, high)` of noise levels. `low` may be 0, `high` may be infinite.
///
/// In JSON it is a pair whose open end is `null`: `[0.0757, 9.61]`, `[9.61, null]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(f64, Option<f64>)", into = "(f64, Option<f64>)")]
pub struct SigmaInterval {
    low: f64,
    high: f64,
}

impl SigmaInterval {
    /// Every noise level: `[0, inf)`.
    pub const ALL: Self = Self { low: 0.0, high: f64::INFINITY };

    /// The caller has checked that `0 <= low < high`, and that `low` is finite.
    pub(crate) const fn checked(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    /// The included end.
    #[must_use]
    pub fn low(&self) -> f64 {
        self.low
    }

    /// The excluded end; may be infinite.
    #[must_use]
    pub fn high(&self) -> f64 {
        self.high
    }

    /// Whether `low <= sigma < high`.
    #[must_use]
    pub fn contains(&self, sigma: f64) -> bool {
        self.low <= sigma && sigma < self.high
    }
}

/// Writes `[low, high)`; a precision, as in `{:.3}`, applies to both ends.
impl fmt::Display for SigmaInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        fmt::Display::fmt(&self.low, f)?;
        f.write_str(", ")?;
        fmt::Display::fmt(&self.high, f)?;
        f.write_str(")")
    }
}

impl From<SigmaInterval> for (f64, Option<f64>) {
    fn from(interval: SigmaInterval) -> Self {
        (interval.low, interval.high.is_finite().then_some(interval.high))
    }
}
