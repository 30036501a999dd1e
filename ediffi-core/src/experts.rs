//! Experts: which denoiser of an ensemble owns which noise level.
//!
//! The experts of a stage own half-open intervals of noise levels that tile `(0, inf)` (eDiff-I, section 4). Every
//! evaluation runs exactly one expert, so a step costs no more than with a single model.

use crate::interval::SigmaInterval;
use crate::{Error, Result};

/// The noise levels of the experts of one ensemble: intervals without a hole or an overlap.
///
/// ```
/// use ediffi_core::experts::Experts;
/// use ediffi_core::interval::SigmaInterval;
///
/// let high = SigmaInterval::new(9.61, f64::INFINITY)?;
/// let low = SigmaInterval::new(0.0, 9.61)?;
/// let experts = Experts::new(vec![high, low])?;
/// assert_eq!(experts.index_of(80.0)?, 0);
/// assert_eq!(experts.index_of(0.5)?, 1);
/// # Ok::<(), ediffi_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    intervals: Vec<SigmaInterval>,
}

impl Experts {
    /// The experts that own `intervals`, in any order. The index of an expert is its position in the list.
    ///
    /// # Errors
    /// Unless every noise level has exactly one owner: [`Error::NoExperts`], [`Error::ExpertOverlap`],
    /// [`Error::ExpertHole`], or [`Error::ExpertEdge`] if the lowest does not start at 0 or the highest is not open.
    pub fn new(intervals: Vec<SigmaInterval>) -> Result<Self> {
        let mut ascending = intervals.clone();
        ascending.sort_by(|a, b| a.low().total_cmp(&b.low()));
        let (Some(&lowest), Some(&highest)) = (ascending.first(), ascending.last()) else {
            return Err(Error::NoExperts);
        };
        if lowest.low() > 0.0 {
            return Err(Error::ExpertEdge { outermost: lowest, missing: SigmaInterval::new(0.0, lowest.low())? });
        }
        for (&below, &above) in ascending.iter().zip(ascending.iter().skip(1)) {
            if below.high() > above.low() {
                return Err(Error::ExpertOverlap { first: below, second: above });
            }
            if below.high() < above.low() {
                return Err(Error::ExpertHole { below, above });
            }
        }
        if highest.high() < f64::INFINITY {
            let missing = SigmaInterval::new(highest.high(), f64::INFINITY)?;
            return Err(Error::ExpertEdge { outermost: highest, missing });
        }
        Ok(Self { intervals })
    }

    /// One expert for all noise levels.
    #[must_use]
    pub fn single() -> Self {
        Self { intervals: vec![SigmaInterval::ALL] }
    }

    /// The intervals, in the order of the experts' indices.
    #[must_use]
    pub fn intervals(&self) -> &[SigmaInterval] {
        &self.intervals
    }

    /// The number of experts, at least one.
    #[expect(clippy::len_without_is_empty, reason = "an ensemble is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.intervals.len()
    }

    /// The expert that owns `sigma`.
    ///
    /// # Errors
    /// [`Error::SigmaOutOfRange`] unless `sigma` is positive and finite.
    pub fn index_of(&self, sigma: f64) -> Result<usize> {
        let owner = self.intervals.iter().position(|interval| interval.contains(sigma));
        owner.filter(|_| sigma > 0.0).ok_or(Error::SigmaOutOfRange(sigma))
    }
}
