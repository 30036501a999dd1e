//! From intervals as they were said to noise levels.

use super::{ExpertInterval, HalfOpen};
use crate::experts::Experts;
use crate::interval::SigmaInterval;
use crate::timesteps::NoiseTable;
use crate::{Error, Result};

impl ExpertInterval {
    /// The noise levels of this interval. `table` has the timesteps that the network was trained on, if it was; `sigmas` is the schedule
    /// that is sampled.
    ///
    /// The border of an interval by steps lies just above the noise level of its first step: what a solver evaluates on the way to it belongs to
    /// the expert before.
    ///
    /// # Errors
    /// [`Error::ExpertInterval`] for an empty interval, for ends that there are not, for timesteps of a network that counts none, and for
    /// [`Rest`](Self::Rest), which [`experts`] resolves.
    pub fn resolve(self, table: Option<NoiseTable>, sigmas: &[f64]) -> Result<SigmaInterval> {
        let counted = || table.ok_or_else(|| self.wrong("the network counts no timesteps"));
        match self {
            Self::Sigma(interval) => Ok(interval),
            Self::Timesteps(range) => self.timesteps_of(range, counted()?),
            Self::Fraction(HalfOpen { from, to }) => {
                let table = counted()?;
                let cutoff = |done: Option<f64>| done.map(|done| self.cutoff(done, table)).transpose();
                self.timesteps_of(HalfOpen { from: cutoff(to)?, to: cutoff(from)? }, table)
            }
            Self::Snr(HalfOpen { from, to }) => {
                if [from, to].into_iter().flatten().any(|snr| snr.is_nan() || snr < 0.0) {
                    return Err(self.wrong("a ratio is 0 or above"));
                }
                self.between(to.map(|snr| snr.powf(-0.5)), from.map(|snr| snr.powf(-0.5)))
            }
            Self::LogSnr(HalfOpen { from, to }) => {
                let sigma = |log_snr: Option<f64>| log_snr.map(|log_snr| (-0.5 * log_snr).exp());
                self.between(sigma(to), sigma(from))
            }
            Self::Steps(range) => self.steps_of(range, sigmas),
            Self::Rest => Err(self.wrong("only what the other experts leave says what it is")),
        }
    }

    fn wrong(self, reason: impl Into<String>) -> Error {
        Error::ExpertInterval { said: self.to_string(), reason: reason.into() }
    }

    fn between(self, low: Option<f64>, high: Option<f64>) -> Result<SigmaInterval> {
        let interval = SigmaInterval::new(low.unwrap_or(0.0), high.unwrap_or(f64::INFINITY));
        interval.map_err(|error| self.wrong(error.to_string()))
    }

    /// The timestep at which a fraction is done: diffusers' `round(n - fraction n)`.
    fn cutoff(self, done: f64, table: NoiseTable) -> Result<usize> {
        if !(0.0..=1.0).contains(&done) {
            return Err(self.wrong("a fraction is from 0 to 1"));
        }
        Ok(table.left_after(done))
    }

    fn timesteps_of(self, HalfOpen { from, to }: HalfOpen<usize>, table: NoiseTable) -> Result<SigmaInterval> {
        let (from, all) = (from.unwrap_or(0), table.len());
        let to = to.unwrap_or(all);
        if from >= to || to > all {
            return Err(
                self.wrong(format!("timesteps from {from} up to {to}: it has to be some of the {all} that there are"))
            );
        }
        let level = |timestep: usize| table.sigmas().get(timestep).copied();
        self.between(level(from).filter(|_| from > 0), level(to))
    }

    fn steps_of(self, HalfOpen { from, to }: HalfOpen<i64>, sigmas: &[f64]) -> Result<SigmaInterval> {
        let levels: Vec<f64> = sigmas.iter().copied().filter(|sigma| *sigma > 0.0).collect();
        let steps = levels.len();
        let place = |step: i64| {
            let back = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
            if step < 0 { steps.checked_sub(back) } else { Some(back) }
        };
        let ends = from.map_or(Some(0), place).zip(to.map_or(Some(steps), place));
        let Some((from, to)) = ends.filter(|(from, to)| from < to && *to <= steps) else {
            return Err(self.wrong(format!("it has to be some of the {steps} steps that are made, counted from 0")));
        };
        let above = |step: usize| levels.get(step).map(|level| level.next_up());
        self.between(above(to), above(from).filter(|_| from > 0))
    }
}

/// The experts that own these intervals, in their order: see [`ExpertInterval::resolve`].
///
/// # Errors
/// As [`ExpertInterval::resolve`] and [`Experts::new`]; [`Error::ExpertInterval`] where as many experts take the rest as the others leave no ranges.
pub fn experts(said: &[ExpertInterval], table: Option<NoiseTable>, sigmas: &[f64]) -> Result<Experts> {
    let given = said.iter().filter(|interval| **interval != ExpertInterval::Rest);
    let given = given.map(|interval| interval.resolve(table, sigmas)).collect::<Result<Vec<_>>>()?;
    let (taking, mut left) = (said.len() - given.len(), outside(given.clone()));
    if taking == 0 {
        return Experts::new(given);
    }
    if taking != left.len() {
        let ranges = left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let reason = format!("{taking} experts take it, and the others leave {}: {ranges}", left.len());
        return Err(ExpertInterval::Rest.wrong(reason));
    }
    left.reverse();
    let (mut given, mut left) = (given.into_iter(), left.into_iter());
    let own = said.iter().filter_map(|interval| match interval {
        ExpertInterval::Rest => left.next(),
        _ => given.next(),
    });
    Experts::new(own.collect())
}

/// The noise levels outside of `taken`, from low to high. Where two of these overlap, [`Experts::new`] refuses them.
#[must_use]
pub fn outside(mut taken: Vec<SigmaInterval>) -> Vec<SigmaInterval> {
    taken.sort_by(|a, b| a.low().total_cmp(&b.low()));
    let mut free = Vec::new();
    let mut from = 0.0;
    for interval in taken {
        free.extend(SigmaInterval::new(from, interval.low()));
        from = interval.high().max(from);
    }
    free.extend(SigmaInterval::new(from, f64::INFINITY));
    free
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schedule::Schedule;
    use crate::timesteps::{Sampler, Spacing, Timesteps};

    const TABLE: NoiseTable = NoiseTable::ScaledLinear;

    fn resolved(text: &str, sigmas: &[f64]) -> SigmaInterval {
        text.parse::<ExpertInterval>().unwrap().resolve(Some(TABLE), sigmas).unwrap()
    }

    fn refused(text: &str, sigmas: &[f64]) -> String {
        let interval: ExpertInterval = text.parse().unwrap();
        interval.resolve(Some(TABLE), sigmas).unwrap_err().to_string()
    }

    fn interval(low: f64, high: f64) -> SigmaInterval {
        SigmaInterval::new(low, high).unwrap()
    }

    fn euler(steps: usize) -> Vec<f64> {
        let spacing = Spacing::Leading { offset: 1 };
        let timesteps = Timesteps { sampler: Sampler::Euler, spacing, karras: false, to_first: false };
        Schedule::Timesteps(timesteps).sigmas_on(steps, TABLE).unwrap()
    }

    /// diffusers 0.42: the base runs `ts >= cutoff`, the refiner `ts < cutoff`, with `cutoff = int(round(1000 - fraction * 1000))`.
    #[test]
    fn fractions_are_those_of_denoising_end_and_start() {
        let all = TABLE.sigmas();
        for fraction in [0.0015, 0.25, 0.3, 0.6, 0.7, 0.8, 0.9, 0.9985] {
            let cutoff = (1000.0 - fraction * 1000.0_f64).round_ties_even() as usize;
            let (early, late) = (
                ExpertInterval::fraction(..fraction).resolve(Some(TABLE), &[]).unwrap(),
                ExpertInterval::fraction(fraction..).resolve(Some(TABLE), &[]).unwrap(),
            );
            for (t, &sigma) in all.iter().enumerate() {
                assert_eq!((early.contains(sigma), late.contains(sigma)), (t >= cutoff, t < cutoff), "{fraction}, {t}");
            }
            assert_eq!(late, TABLE.after(fraction).unwrap(), "{fraction}");
        }
        assert_eq!(resolved("fraction:0..0.8", &[]), resolved("timesteps:200..", &[]));
        assert_eq!(resolved("fraction:0.8..1", &[]), resolved("timesteps:0..200", &[]));
        assert_eq!(resolved("fraction:..", &[]), SigmaInterval::ALL);
    }

    #[test]
    fn signal_to_noise_is_that_of_the_table() {
        for t in [1, 100, 500, 998] {
            let alpha_bar = f64::from(TABLE.alpha_bars()[t]);
            let snr = alpha_bar / (1.0 - alpha_bar);
            let near = |found: SigmaInterval| (found.high() / TABLE.sigmas()[t] - 1.0).abs() < 1e-9;
            assert!(near(ExpertInterval::snr(snr..).resolve(None, &[]).unwrap()), "{t}");
            assert!(near(ExpertInterval::log_snr(snr.ln()..).resolve(None, &[]).unwrap()), "{t}");
        }
        assert_eq!(resolved("snr:0.25..4", &[]), interval(0.5, 2.0));
        assert_eq!(resolved("snr:0..4", &[]), interval(0.5, f64::INFINITY));
        assert_eq!(resolved("log-snr:..0", &[]), interval(1.0, f64::INFINITY));
    }

    /// Twenty steps of one and five of the other, whatever there are in all.
    #[test]
    fn steps_are_those_of_the_schedule() {
        let sigmas = euler(25);
        let (high, low) = (resolved("steps:..20", &sigmas), resolved("steps:20..25", &sigmas));
        assert_eq!((high.low(), low.low(), high.high()), (low.high(), 0.0, f64::INFINITY));
        let experts = Experts::new(vec![high, low]).unwrap();
        let owners: Vec<usize> = experts.plan(&sigmas).unwrap().steps().iter().map(|step| step.expert).collect();
        assert_eq!(owners, [[0; 20].as_slice(), &[1; 5]].concat());
        assert_eq!(resolved("steps:-5..", &sigmas), low);
        assert_eq!(resolved("steps:..-5", &sigmas), high);
        // What lies between two steps belongs to the first of them.
        assert!(high.contains(0.5 * (sigmas[19] + sigmas[20])) && low.contains(sigmas[20]));
        for wrong in ["steps:20..26", "steps:-26..", "steps:5..5", "steps:9..3", "steps:25.."] {
            assert!(refused(wrong, &sigmas).contains("some of the 25 steps"), "{wrong}");
        }
        // A schedule that ends above 0 makes one step more.
        assert_eq!(resolved("steps:2..", &[4.0, 2.0, 1.0]).high(), 1.0_f64.next_up());
    }

    #[test]
    fn ends_that_there_are_not_are_refused() {
        for (text, words) in [
            ("timesteps:200..200", "some of the 1000"),
            ("timesteps:..1001", "some of the 1000"),
            ("timesteps:0..0", "some of the 1000"),
            ("fraction:0.8..1.1", "from 0 to 1"),
            ("fraction:NaN..", "from 0 to 1"),
            ("fraction:0.5..0.5", "some of the 1000"),
            ("fraction:1..", "some of the 1000"),
            ("snr:-1..", "0 or above"),
            ("snr:4..2", "no sigma interval"),
            ("log-snr:NaN..", "no sigma interval"),
            ("rest", "leave"),
        ] {
            let error = refused(text, &[]);
            assert!(error.contains(text) && error.contains(words), "{error}");
        }
        let error = ExpertInterval::timesteps(..200).resolve(None, &[]).unwrap_err();
        assert!(error.to_string().contains("counts no timesteps"), "{error}");
    }

    #[test]
    fn the_rest_is_what_the_others_leave() {
        let said = |text: &str| text.split(' ').map(|one| one.parse().unwrap()).collect::<Vec<ExpertInterval>>();
        let found =
            |text: &str| experts(&said(text), Some(TABLE), &euler(25)).map(|experts| experts.intervals().to_vec());
        let (low, rest) = (TABLE.below(200).unwrap(), interval(TABLE.sigmas()[200], f64::INFINITY));
        assert_eq!(found("rest timesteps:..200").unwrap(), [rest, low]);
        assert_eq!(found("timesteps:..200 rest").unwrap(), [low, rest]);
        let middle = found("rest timesteps:300..400 rest").unwrap();
        assert_eq!((middle[0].low(), middle[2].high()), (TABLE.sigmas()[400], TABLE.sigmas()[300]));
        for (wrong, words) in [
            ("rest timesteps:300..400", "1 experts take it, and the others leave 2"),
            ("rest timesteps:..", "1 experts take it, and the others leave 0"),
        ] {
            let error = found(wrong).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(matches!(found("timesteps:..200 timesteps:300.."), Err(Error::ExpertHole { .. })));
        assert!(matches!(found("timesteps:..200 timesteps:100.."), Err(Error::ExpertOverlap { .. })));
        assert_eq!(outside(vec![interval(2.0, 3.0), interval(0.5, 1.0)]).len(), 3);
    }

    proptest! {
        /// Whatever the unit, the two sides of one border share it.
        #[test]
        fn two_sides_of_a_border_tile(
            timestep in 1..999_usize, fraction in 0.002..0.998_f64, log_snr in -9.0..9.0_f64, step in 1..24_i64,
        ) {
            let sigmas = euler(25);
            for pair in [
                [ExpertInterval::timesteps(timestep..), ExpertInterval::timesteps(..timestep)],
                [ExpertInterval::fraction(..fraction), ExpertInterval::fraction(fraction..)],
                [ExpertInterval::log_snr(..log_snr), ExpertInterval::log_snr(log_snr..)],
                [ExpertInterval::snr(..log_snr.exp()), ExpertInterval::snr(log_snr.exp()..)],
                [ExpertInterval::steps(..step), ExpertInterval::steps(step..)],
            ] {
                let found = experts(&pair, Some(TABLE), &sigmas);
                prop_assert!(found.is_ok(), "{pair:?}: {found:?}");
                prop_assert_eq!(&found.unwrap(), &experts(&[ExpertInterval::Rest, pair[1]], Some(TABLE), &sigmas).unwrap());
            }
        }
    }
}
