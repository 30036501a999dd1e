//! The noise levels of an expert as people say them: by sigma, by timestep, by signal to noise, by the part of the schedule that is done, or by
//! steps.
//!
//! | written | the expert owns |
//! |---|---|
//! | `sigma:1.2..80` | the noise levels from 1.2 up to, but not with, 80 |
//! | `timesteps:..200` | the timesteps 0 to 199 of the table that the network was trained on |
//! | `snr:4..` | the noise levels whose signal to noise ratio, `1 / sigma^2`, is above 4 |
//! | `log-snr:1.4..` | the same in natural logarithms, as Kingma et al. 2021 (arXiv 2107.00630) have it |
//! | `fraction:0.8..` | what is left when 0.8 of the timesteps are done: diffusers' `denoising_start` |
//! | `steps:20..25` | the steps 20 to 24, counted from 0, of the schedule that is sampled; `steps:-5..` its last five |
//! | `rest` | what the others leave |
//!
//! Either end may be left out. An interval by steps, and a rest beside one, are other noise levels with another schedule; all others are
//! the same with each.
//!
//! ```
//! use ediffi_core::expert_interval::ExpertInterval;
//! use ediffi_core::timesteps::NoiseTable;
//!
//! let table = NoiseTable::ScaledLinear;
//! let late: ExpertInterval = "fraction:0.8..".parse()?;
//! assert_eq!(late.resolve(Some(table), &[])?, table.below(200)?);
//! assert_eq!(late.to_string(), "fraction:0.8..");
//! # Ok::<(), ediffi_core::Error>(())
//! ```

mod resolve;
mod text;

use std::ops::{Range, RangeFrom, RangeFull, RangeTo};

use crate::interval::SigmaInterval;

pub use resolve::{experts, outside};

/// The noise levels that an expert owns, in the unit in which somebody said them. As text, and in JSON, it is what the table
/// [above](self) shows.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ExpertInterval {
    /// Noise levels in EDM's units.
    Sigma(SigmaInterval),
    /// Timesteps of the network's table. An open end goes beyond the table.
    Timesteps(HalfOpen<usize>),
    /// Signal to noise ratios, `1 / sigma^2`: above `from`, and up to `to`.
    Snr(HalfOpen<f64>),
    /// Natural logarithms of signal to noise ratios, `-2 ln(sigma)`: above `from`, and up to `to`.
    LogSnr(HalfOpen<f64>),
    /// Parts of the schedule that are done, from 0 to 1, counted in timesteps: those from `round(n - to n)` up to, but not with, `round(n -
    /// from n)`, of `n` in the table. So diffusers counts `denoising_end` and `denoising_start`.
    Fraction(HalfOpen<f64>),
    /// Steps of the schedule that is sampled, from 0; negative ones are counted from its end.
    Steps(HalfOpen<i64>),
    /// What the others leave. Of several experts that take it, each has one range without a hole, the first the noisiest.
    Rest,
}

/// What lies between two ends, the lower one included; either may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfOpen<T> {
    /// The lower end, which is included.
    pub from: Option<T>,
    /// The upper end, which is not.
    pub to: Option<T>,
}

impl<T> From<Range<T>> for HalfOpen<T> {
    fn from(Range { start, end }: Range<T>) -> Self {
        Self { from: Some(start), to: Some(end) }
    }
}

impl<T> From<RangeFrom<T>> for HalfOpen<T> {
    fn from(RangeFrom { start }: RangeFrom<T>) -> Self {
        Self { from: Some(start), to: None }
    }
}

impl<T> From<RangeTo<T>> for HalfOpen<T> {
    fn from(RangeTo { end }: RangeTo<T>) -> Self {
        Self { from: None, to: Some(end) }
    }
}

impl<T> From<RangeFull> for HalfOpen<T> {
    fn from(_: RangeFull) -> Self {
        Self { from: None, to: None }
    }
}

impl From<SigmaInterval> for ExpertInterval {
    fn from(interval: SigmaInterval) -> Self {
        Self::Sigma(interval)
    }
}

impl ExpertInterval {
    /// The timesteps of a range: `ExpertInterval::timesteps(..200)`.
    #[must_use]
    pub fn timesteps(range: impl Into<HalfOpen<usize>>) -> Self {
        Self::Timesteps(range.into())
    }

    /// The signal to noise ratios of a range.
    #[must_use]
    pub fn snr(range: impl Into<HalfOpen<f64>>) -> Self {
        Self::Snr(range.into())
    }

    /// The natural logarithms of signal to noise ratios of a range.
    #[must_use]
    pub fn log_snr(range: impl Into<HalfOpen<f64>>) -> Self {
        Self::LogSnr(range.into())
    }

    /// A part of the schedule: `ExpertInterval::fraction(0.8..)` is what is left when 0.8 of the timesteps are done.
    #[must_use]
    pub fn fraction(range: impl Into<HalfOpen<f64>>) -> Self {
        Self::Fraction(range.into())
    }

    /// The steps of a range, counted from 0; negative ones from the end: `ExpertInterval::steps(-5..)`.
    #[must_use]
    pub fn steps(range: impl Into<HalfOpen<i64>>) -> Self {
        Self::Steps(range.into())
    }

    /// Whether it is other noise levels with another schedule.
    #[must_use]
    pub fn follows_steps(&self) -> bool {
        matches!(self, Self::Steps(_))
    }
}
