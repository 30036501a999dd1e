//! Schedules: the descending noise levels that a solver visits.
//!
//! A schedule is a plain `Vec<f64>`. **N steps are N + 1 sigmas**. It ends in one of two ways:
//!
//! * *in 0* ([`karras`], [`exponential`]): N positive sigmas, then 0. The N-th step goes from the lowest positive sigma
//!   to 0.
//! * *above 0* ([`deis`], the grid of the paper): N + 1 positive sigmas. A solver takes the N steps between them and then
//!   finishes with `x <- D(x; sigma_min)`.
//!
//! A step to 0 is a plain denoising, too (see [`crate::solver`]). So either way, the image is the denoiser's estimate at
//! the lowest positive sigma.

use serde::{Deserialize, Serialize};

use crate::timesteps::{Ends, NoiseTable, Preset, Timesteps};
use crate::{Error, Result};

/// The highest number of steps of a schedule. A higher number is taken for a mistake.
pub const MAX_STEPS: usize = 10_000;

/// The range of a positive sigma. One outside it is taken for a mistake, and its square would leave the range of f32. Schedules of
/// DDPM start at some ten thousand, and EDM's end at 0.002.
pub const SIGMAS: std::ops::RangeInclusive<f64> = 1e-9..=1e9;

/// The exponent of Karras's grid in published samplers (`_convert_to_karras` in diffusers).
const TIMESTEPS_RHO: f64 = 7.0;

/// A rule that makes a schedule for any number of steps.
///
/// In JSON: `{"karras": {"min": 0.002, "max": 80, "rho": 7}}`, `{"deis": {"min": 0.002, "max": 80, "order": 6}}`,
/// `{"exponential": {"min": 0.002, "max": 80}}`, `{"custom": [80, 10, 1, 0]}`, `"leading"`, `{"preset": "smart100"}` or
/// `{"timesteps": {"sampler": "euler", "spacing": {"leading": {"offset": 1}}}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// [`karras`].
    Karras {
        /// The lowest positive sigma.
        min: f64,
        /// The first sigma.
        max: f64,
        /// The exponent: the higher it is, the more steps are at low noise.
        rho: f64,
    },
    /// [`deis`].
    Deis {
        /// The last sigma.
        min: f64,
        /// The first sigma.
        max: f64,
        /// The exponent, the paper's "order": the higher it is, the more steps are at low noise.
        order: f64,
    },
    /// [`exponential`].
    Exponential {
        /// The lowest positive sigma.
        min: f64,
        /// The first sigma.
        max: f64,
    },
    /// A list of sigmas.
    Custom(Vec<f64>),
    /// The noise levels of evenly spaced timesteps: [`NoiseTable::leading`].
    Leading,
    /// The noise levels of a published list of timesteps.
    Preset(Preset),
    /// The noise levels of a published sampler, which also says how it begins and ends.
    Timesteps(Timesteps),
}

impl Schedule {
    /// The schedule EDM samples with: 80 down to 0.002, `rho = 7` (EDM, table 1).
    #[must_use]
    pub fn edm() -> Self {
        Self::Karras { min: 0.002, max: 80.0, rho: 7.0 }
    }

    /// The grid of the paper's base model: order 6 (eDiff-I, appendix, table 7; it runs 25 steps).
    ///
    /// The paper does not state the two ends; they are EDM's.
    #[must_use]
    pub fn paper_base() -> Self {
        Self::Deis { min: 0.002, max: 80.0, order: 6.0 }
    }

    /// The number of steps of a schedule that fixes it: a list of sigmas or a preset.
    #[must_use]
    pub fn own_steps(&self) -> Option<usize> {
        match self {
            Self::Custom(sigmas) => Some(sigmas.len().saturating_sub(1)),
            Self::Preset(preset) => Some(preset.timesteps().len()),
            _ => None,
        }
    }

    /// The `steps + 1` sigmas of this schedule. Timesteps are those of [`NoiseTable::SquaredCosine`]; for a network on another
    /// table use [`sigmas_on`](Self::sigmas_on).
    ///
    /// # Errors
    /// [`Error::InvalidSchedule`] for parameters that make no schedule, for no or more than [`MAX_STEPS`] steps, and for
    /// a list or a preset of another length; [`Error::InvalidSigmas`] for a custom list that does not descend.
    pub fn sigmas(&self, steps: usize) -> Result<Vec<f64>> {
        self.sigmas_on(steps, NoiseTable::SquaredCosine)
    }

    /// As [`sigmas`](Self::sigmas), for a network that was trained on the timesteps of `table`.
    ///
    /// # Errors
    /// As [`sigmas`](Self::sigmas).
    pub fn sigmas_on(&self, steps: usize, table: NoiseTable) -> Result<Vec<f64>> {
        match self {
            Self::Karras { min, max, rho } => karras(steps, *min, *max, *rho),
            Self::Deis { min, max, order } => deis(steps, *min, *max, *order),
            Self::Exponential { min, max } => exponential(steps, *min, *max),
            Self::Custom(sigmas) => {
                validate(sigmas)?;
                // Two sigmas at least.
                let own = sigmas.len() - 1;
                if own != steps {
                    let reason = format!("the custom list has {own} steps, {steps} were asked for");
                    return Err(Error::InvalidSchedule(reason));
                }
                Ok(sigmas.clone())
            }
            Self::Leading => Ok(table.schedule(&table.leading(steps)?)),
            Self::Preset(preset) => {
                let own = preset.timesteps();
                if own.len() != steps {
                    let reason = format!("the preset {preset} has {} steps, {steps} were asked for", own.len());
                    return Err(Error::InvalidSchedule(reason));
                }
                Ok(table.schedule(own))
            }
            Self::Timesteps(timesteps) => {
                let sigmas = timesteps.sigmas(steps, table)?;
                match timesteps.karras_range(&sigmas, table) {
                    Some((min, max)) if steps > 1 => karras(steps, min, max, TIMESTEPS_RHO),
                    _ => Ok(sigmas),
                }
            }
        }
    }

    /// How a trajectory along this schedule begins and ends, for a network that was trained on the timesteps of `table`.
    #[must_use]
    pub fn ends(&self, table: NoiseTable) -> Ends {
        match self {
            Self::Timesteps(timesteps) => timesteps.ends(table),
            _ => Ends::default(),
        }
    }
}

/// EDM's schedule: `steps` sigmas, then 0.
///
/// `sigma_i = (max^(1/rho) + i/(N-1) (min^(1/rho) - max^(1/rho)))^rho` for `i < N`, and `sigma_N = 0`
/// (EDM, equation 5).
///
/// # Errors
/// [`Error::InvalidSchedule`] unless `min < max`, both in [`SIGMAS`], `rho` is positive and finite, and `steps` is in `1..=MAX_STEPS`.
pub fn karras(steps: usize, min: f64, max: f64, rho: f64) -> Result<Vec<f64>> {
    let mut sigmas = power_grid(steps, steps.saturating_sub(1), min, max, rho, "rho")?;
    sigmas.push(0.0);
    Ok(sigmas)
}

/// The paper's schedule: the time grid of DEIS with exponent `order`, `steps + 1` positive sigmas down to `min`.
///
/// `sigma_i = (max^(1/order) + i/N (min^(1/order) - max^(1/order)))^order` for `i <= N` (the DEIS package's `ts_order`;
/// eDiff-I, appendix, table 7 gives order 6 for the base and order 3 for the super-resolution models). Reading the
/// table's "order" as this exponent is an inference: a three-stage Runge-Kutta rule cannot have order 6.
///
/// # Errors
/// As [`karras`].
pub fn deis(steps: usize, min: f64, max: f64, order: f64) -> Result<Vec<f64>> {
    power_grid(steps, steps, min, max, order, "order")
}

/// `steps` sigmas, evenly spread in `ln(sigma)`, then 0: [`karras`] for `rho` towards infinity.
///
/// # Errors
/// As [`karras`].
pub fn exponential(steps: usize, min: f64, max: f64) -> Result<Vec<f64>> {
    check(steps, min, max)?;
    let mut sigmas = between(steps.saturating_sub(1), min, max, |s| s.ln(), |t| t.exp());
    sigmas.push(0.0);
    validate(&sigmas)?;
    Ok(sigmas)
}

/// Checks that a list of sigmas is a schedule: at least one step, finite, strictly descending, within [`SIGMAS`] except that it
/// may end in 0.
///
/// # Errors
/// [`Error::InvalidSchedule`] for fewer than two sigmas, [`Error::InvalidSigmas`] for the first entry out of place.
pub fn validate(sigmas: &[f64]) -> Result<()> {
    if sigmas.len() < 2 {
        let reason = format!("{} sigmas make no step: at least two are needed", sigmas.len());
        return Err(Error::InvalidSchedule(reason));
    }
    let mut previous = f64::INFINITY;
    for (index, &sigma) in sigmas.iter().enumerate() {
        let wrong = |reason| Err(Error::InvalidSigmas { index, sigma, reason });
        if !sigma.is_finite() {
            return wrong("is not finite");
        }
        if sigma < 0.0 || (sigma == 0.0 && index + 1 < sigmas.len()) {
            return wrong("is not positive");
        }
        if sigma > 0.0 && !SIGMAS.contains(&sigma) {
            return wrong("is out of range, 1e-9 to 1e9");
        }
        if sigma >= previous {
            return wrong("is not below the one before");
        }
        previous = sigma;
    }
    Ok(())
}

fn check(steps: usize, min: f64, max: f64) -> Result<()> {
    let reason = if steps == 0 || steps > MAX_STEPS {
        format!("{steps} steps: the number of steps has to be in 1..={MAX_STEPS}")
    } else if !(SIGMAS.contains(&min) && min < max && SIGMAS.contains(&max)) {
        format!("min {min:?} and max {max:?}: min < max has to hold, and both have to be from 1e-9 to 1e9")
    } else {
        return Ok(());
    };
    Err(Error::InvalidSchedule(reason))
}

/// `intervals + 1` sigmas from `max` to `min`, evenly spread in `sigma^(1/rho)`.
fn power_grid(steps: usize, intervals: usize, min: f64, max: f64, rho: f64, name: &str) -> Result<Vec<f64>> {
    check(steps, min, max)?;
    if !(rho > 0.0 && rho.is_finite()) {
        return Err(Error::InvalidSchedule(format!("{name} {rho:?} has to be positive and finite")));
    }
    let sigmas = between(intervals, min, max, |s| s.powf(1.0 / rho), |t| t.powf(rho));
    if sigmas.len() > 1 {
        validate(&sigmas)?;
    }
    Ok(sigmas)
}

/// `intervals + 1` sigmas from `max` to `min`, evenly spread after `forward`. The two ends are exact.
fn between(intervals: usize, min: f64, max: f64, forward: impl Fn(f64) -> f64, back: impl Fn(f64) -> f64) -> Vec<f64> {
    let (start, end) = (forward(max), forward(min));
    let inner = (1..intervals).map(|i| back(start + i as f64 / intervals as f64 * (end - start)));
    let last = (intervals > 0).then_some(min);
    std::iter::once(max).chain(inner).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn karras_matches_the_published_formula() {
        // Python: [(80**(1/7) + i/4*(0.002**(1/7) - 80**(1/7)))**7 for i in range(5)] + [0]
        let expected = [80.0, 17.527_831_964_644_11, 2.515_218_976_147_159, 0.169_752_756_268_764_13, 0.002, 0.0];
        for (got, expected) in karras(5, 0.002, 80.0, 7.0).unwrap().iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-12 * expected, "{got} {expected}");
        }
    }

    #[test]
    fn the_paper_s_grid_ends_above_zero() {
        let sigmas = Schedule::paper_base().sigmas(25).unwrap();
        assert_eq!((sigmas.len(), sigmas[0], sigmas[25]), (26, 80.0, 0.002));
        // The square grid of order 2 in closed form: sqrt(sigma) falls from 2 to 1 in 4 equal steps.
        for (i, got) in deis(4, 1.0, 4.0, 2.0).unwrap().iter().enumerate() {
            assert!((got - (2.0 - 0.25 * i as f64).powi(2)).abs() < 1e-14);
        }
    }

    /// A model folder may ask for as many steps as 64 bits can count.
    #[test]
    fn a_list_of_other_steps_is_an_error_for_any_number_of_them() {
        for steps in [0, 1, 3, usize::MAX] {
            let error = Schedule::Custom(vec![4.0, 2.0, 1.0]).sigmas(steps).unwrap_err();
            assert!(error.to_string().contains(&format!("2 steps, {steps} were")), "{error}");
        }
    }

    #[test]
    fn one_step_goes_from_the_top_to_the_end() {
        assert_eq!(karras(1, 0.002, 80.0, 7.0).unwrap(), [80.0, 0.0]);
        assert_eq!(deis(1, 0.002, 80.0, 3.0).unwrap(), [80.0, 0.002]);
        assert_eq!(exponential(1, 0.002, 80.0).unwrap(), [80.0, 0.0]);
        assert_eq!(exponential(3, 1.0, 100.0).unwrap()[..], [100.0, 10.000_000_000_000_002, 1.0, 0.0]);
    }

    #[test]
    fn bad_parameters_name_themselves() {
        let message = |result: Result<Vec<f64>>| result.unwrap_err().to_string();
        assert!(message(karras(0, 0.002, 80.0, 7.0)).contains("0 steps"));
        assert!(message(karras(MAX_STEPS + 1, 0.002, 80.0, 7.0)).contains("10001 steps"));
        assert!(message(karras(5, 80.0, 0.002, 7.0)).contains("min 80"));
        assert!(message(karras(5, 0.0, 80.0, 7.0)).contains("min 0"));
        assert!(message(karras(5, 0.002, 80.0, f64::NAN)).contains("rho NaN"));
        assert!(message(deis(5, 0.002, 80.0, 0.0)).contains("order 0"));
        assert!(message(exponential(5, f64::NAN, 80.0)).contains("min NaN"));
    }

    #[test]
    fn validation_names_the_first_entry_out_of_place() {
        assert!(validate(&[2.0, 1.0]).is_ok());
        assert!(validate(&[2.0, 0.0]).is_ok());
        assert!(matches!(validate(&[1.0]), Err(Error::InvalidSchedule { .. })));
        let cases: [(&[f64], usize, &str); 6] = [
            (&[2.0, 2.0, 1.0], 1, "is not below the one before"),
            (&[2.0, 1.0, 1.5], 2, "is not below the one before"),
            (&[f64::INFINITY, 1.0], 0, "is not finite"),
            (&[2.0, f64::NAN], 1, "is not finite"),
            (&[2.0, 0.0, -1.0], 1, "is not positive"),
            (&[2.0, -1.0], 1, "is not positive"),
        ];
        for (sigmas, at, what) in cases {
            let error = validate(sigmas).unwrap_err();
            assert!(
                matches!(&error, Error::InvalidSigmas { index, reason, .. } if *index == at && *reason == what),
                "{sigmas:?}: {error}"
            );
        }
    }

    #[test]
    fn json_names_the_rule() {
        let schedule: Schedule = serde_json::from_str(r#"{"karras": {"min": 0.002, "max": 80, "rho": 7}}"#).unwrap();
        assert_eq!(schedule, Schedule::edm());
        let custom: Schedule = serde_json::from_str(r#"{"custom": [80, 10, 1, 0]}"#).unwrap();
        assert_eq!(custom.sigmas(3).unwrap(), [80.0, 10.0, 1.0, 0.0]);
        assert!(matches!(custom.sigmas(4), Err(Error::InvalidSchedule { .. })));
        let smart: Schedule = serde_json::from_str(r#"{"preset": "smart27"}"#).unwrap();
        assert_eq!((smart.own_steps(), smart.sigmas(27).unwrap().len()), (Some(27), 28));
        assert!(smart.sigmas(26).unwrap_err().to_string().contains("smart27 has 27 steps, 26 were asked for"));
        let leading: Schedule = serde_json::from_str(r#""leading""#).unwrap();
        assert_eq!(
            (leading.own_steps(), leading.sigmas(10).unwrap()[0]),
            (None, NoiseTable::SquaredCosine.sigmas()[900])
        );
        let wrong = serde_json::from_str::<Schedule>(r#"{"deis": {"min": 1, "max": 8, "order": 6, "rho": 7}}"#);
        assert!(wrong.unwrap_err().to_string().contains("rho"));
    }

    proptest! {
        #[test]
        fn schedules_descend_and_end_where_they_should(
            steps in 1..300_usize, min in 1e-4..0.5_f64, factor in 1.5..1e6_f64, rho in 0.5..12.0_f64,
        ) {
            let max = min * factor;
            for (schedule, end) in [
                (Schedule::Karras { min, max, rho }, 0.0),
                (Schedule::Deis { min, max, order: rho }, min),
                (Schedule::Exponential { min, max }, 0.0),
            ] {
                let sigmas = schedule.sigmas(steps).unwrap();
                prop_assert!(validate(&sigmas).is_ok());
                prop_assert_eq!(sigmas.len(), steps + 1);
                prop_assert_eq!((sigmas[0], sigmas[steps]), (max, end));
            }
        }
    }
}
