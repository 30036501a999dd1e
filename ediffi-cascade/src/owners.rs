//! Which expert of a stage owns which noise level, and the steps that follow from that.
//!
//! Two things are decided by the settings of a run and not when a stage is opened: the noise levels of experts whose interval is counted in
//! steps, and the steps of experts that have a number of their own. The first are counted on the schedule of the stage. The second are laid
//! anew between the first and the last noise level that the schedule has in the interval of the expert, so all experts still go along one list
//! of descending noise levels.

use std::collections::BTreeMap;

use ediffi_core::expert_interval::{ExpertInterval, experts};
use ediffi_core::experts::Experts;
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::{Error, Result};

use crate::settings::SamplerSettings;

/// The intervals of a stage's experts as they were said, and what they are counted on: [`StageConfig::owners`](crate::StageConfig::owners).
#[derive(Debug, Clone, PartialEq)]
pub struct Owners {
    /// Of each expert.
    pub(crate) said: Vec<ExpertInterval>,
    /// The timesteps that schedules count on.
    pub(crate) table: NoiseTable,
    /// Whether the networks count on them, too.
    pub(crate) counted: bool,
}

/// The experts and the steps of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Owned {
    /// Which expert owns which noise level.
    pub experts: Experts,
    /// The noise levels, descending, as [`Schedule::sigmas_on`](ediffi_core::schedule::Schedule::sigmas_on) has them, with the steps of experts
    /// that have a number of their own.
    pub sigmas: Vec<f64>,
}

impl Owners {
    /// One expert for all noise levels, on this table.
    #[must_use]
    pub fn single(table: NoiseTable) -> Self {
        Self { said: vec![ExpertInterval::Sigma(ediffi_core::interval::SigmaInterval::ALL)], table, counted: true }
    }

    /// How many experts there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.said.len()
    }

    /// The experts and steps with these settings.
    ///
    /// # Errors
    /// Those of the schedule and of [`experts`]; [`Error::NoSuchExpert`] for settings of an expert that there is not; [`Error::InvalidSchedule`]
    /// for steps of an expert that cannot be laid into its interval.
    pub fn owned(&self, settings: &SamplerSettings) -> Result<Owned> {
        let sigmas = settings.sigmas(self.table)?;
        let experts = experts(&self.said, Some(self.table).filter(|_| self.counted), &sigmas)?;
        let count = experts.len();
        if let Some(&index) = settings.experts.keys().find(|index| **index >= count) {
            return Err(Error::NoSuchExpert { index, experts: count });
        }
        let wanted: BTreeMap<usize, usize> =
            settings.experts.iter().filter_map(|(index, own)| Some((*index, own.steps?))).collect();
        let sigmas = if wanted.is_empty() { sigmas } else { laid(&sigmas, &experts, &wanted, self.table)? };
        Ok(Owned { experts, sigmas })
    }
}

/// The schedule with other numbers of steps of some experts. A number that the schedule has changes no bit of it.
fn laid(sigmas: &[f64], experts: &Experts, wanted: &BTreeMap<usize, usize>, table: NoiseTable) -> Result<Vec<f64>> {
    let plan = experts.plan(sigmas)?;
    let wrong =
        |expert: usize, reason: String| Err(Error::InvalidSchedule(format!("steps of expert {expert}: {reason}")));
    let idle = wanted.keys().find(|expert| !plan.experts().any(|own| own == **expert));
    if let Some(&expert) = idle {
        return wrong(expert, "the schedule has none in its interval: more steps of the stage may have".to_owned());
    }
    // Timesteps stay whole where all of them are.
    let whole = plan.steps().iter().all(|step| table.index_of(step.sigma).is_some());
    let mut laid = Vec::new();
    for segment in plan.segments() {
        let own: Vec<f64> =
            plan.steps().iter().take(segment.steps.end).skip(segment.steps.start).map(|s| s.sigma).collect();
        let steps = wanted.get(&segment.expert).copied().unwrap_or(own.len());
        if steps == 0 {
            return wrong(segment.expert, "it needs one at least".to_owned());
        }
        if own.len() == 1 && steps > 1 {
            let reason = format!("the schedule has a single one in its interval, between which no {steps} can lie");
            return wrong(segment.expert, format!("{reason}: more steps of the stage may have two"));
        }
        if steps == own.len() {
            laid.extend(own);
            continue;
        }
        let spread = spread(&own, steps, table, whole);
        if !spread.array_windows().all(|[above, below]| below < above) {
            return wrong(
                segment.expert,
                format!("its interval has no {steps} timesteps between the first and the last"),
            );
        }
        laid.extend(spread);
    }
    laid.extend(sigmas.last().copied().filter(|last| *last == 0.0));
    Ok(laid)
}

/// So many noise levels from the first to the last of `levels`: at the same places among these, linear between two of them in timesteps where
/// they are `whole`, else in the logarithm of sigma.
fn spread(levels: &[f64], steps: usize, table: NoiseTable, whole: bool) -> Vec<f64> {
    let distance = if steps > 1 { (levels.len() - 1) as f64 / (steps - 1) as f64 } else { 0.0 };
    let at = |step: usize| {
        let place = step as f64 * distance;
        let (index, part) = (place.floor() as usize, place.fract());
        let above = *levels.get(index)?;
        let Some(&below) = levels.get(index + 1).filter(|_| part > 0.0) else { return Some(above) };
        if whole {
            let (above, below) = (table.timestep(above), table.timestep(below));
            return table.sigmas().get((above + part * (below - above)).round() as usize).copied();
        }
        Some((above.ln() + part * (below.ln() - above.ln())).exp())
    };
    let last = steps.checked_sub(1).filter(|last| *last > 0);
    // Rounding may miss the last place.
    let inner = (0..last.unwrap_or(steps)).filter_map(at);
    inner.chain(levels.last().copied().filter(|_| last.is_some())).collect()
}

#[cfg(test)]
mod tests {
    use ediffi_core::guidance::Guidance;
    use ediffi_core::schedule::Schedule;
    use ediffi_core::solver::Solver;
    use ediffi_core::timesteps::{Sampler, Spacing, Timesteps};
    use proptest::prelude::*;

    use super::*;
    use crate::settings::ExpertSettings;

    const TABLE: NoiseTable = NoiseTable::ScaledLinear;

    fn owners(said: &[&str]) -> Owners {
        Owners { said: said.iter().map(|one| one.parse().unwrap()).collect(), table: TABLE, counted: true }
    }

    fn leading() -> Schedule {
        let spacing = Spacing::Leading { offset: 1 };
        Schedule::Timesteps(Timesteps { sampler: Sampler::Euler, spacing, karras: false, to_first: false })
    }

    fn settings(schedule: Schedule, steps: usize, own: &[(usize, usize)]) -> SamplerSettings {
        let own =
            own.iter().map(|&(index, steps)| (index, ExpertSettings { steps: Some(steps), ..Default::default() }));
        let (solver, guidance) = (Solver::Euler, Guidance::new(1.0));
        SamplerSettings { solver, steps, schedule, guidance, experts: own.collect() }
    }

    fn counts(owned: &Owned) -> Vec<usize> {
        let plan = owned.experts.plan(&owned.sigmas).unwrap();
        plan.segments().iter().map(|segment| segment.steps.len()).collect()
    }

    /// diffusers' leading timesteps of 20 steps are 951, 901, ..., 1.
    #[test]
    fn an_expert_has_its_own_number_of_steps() {
        let pair = owners(&["rest", "timesteps:..200"]);
        let plain = pair.owned(&settings(leading(), 20, &[])).unwrap();
        assert_eq!(counts(&plain), [16, 4]);
        let more = pair.owned(&settings(leading(), 20, &[(1, 7)])).unwrap();
        assert_eq!(counts(&more), [16, 7]);
        assert_eq!(more.sigmas[..16], plain.sigmas[..16]);
        let timesteps: Vec<_> = more.sigmas[16..].iter().filter_map(|sigma| TABLE.index_of(*sigma)).collect();
        assert_eq!(timesteps, [151, 126, 101, 76, 51, 26, 1]);
        assert_eq!(more.sigmas.last(), Some(&0.0));
        let fewer = pair.owned(&settings(leading(), 20, &[(0, 1), (1, 2)])).unwrap();
        assert_eq!(counts(&fewer), [1, 2]);
        assert_eq!(fewer.sigmas, [TABLE.sigmas()[951], TABLE.sigmas()[151], TABLE.sigmas()[1], 0.0]);
    }

    /// Twenty and five of 25, and of 50 the last five.
    #[test]
    fn intervals_by_steps_follow_the_schedule() {
        let pair = owners(&["steps:..-5", "steps:-5.."]);
        for steps in [25, 50] {
            assert_eq!(counts(&pair.owned(&settings(leading(), steps, &[])).unwrap()), [steps - 5, 5]);
        }
        assert_eq!(counts(&pair.owned(&settings(leading(), 25, &[(0, 40)])).unwrap()), [40, 5]);
        let fixed = owners(&["rest", "steps:20..25"]);
        assert_eq!(counts(&fixed.owned(&settings(leading(), 25, &[])).unwrap()), [20, 5]);
        let error = fixed.owned(&settings(leading(), 50, &[])).unwrap_err().to_string();
        assert!(error.contains("1 experts take it, and the others leave 2"), "{error}");
    }

    #[test]
    fn what_cannot_be_laid_names_the_expert() {
        let pair = owners(&["rest", "timesteps:..200"]);
        for (steps, own, words) in [
            (20, &[(1, 0)][..], "steps of expert 1: it needs one"),
            (20, &[(1, 300)], "steps of expert 1: its interval has no 300 timesteps"),
            (5, &[(1, 3)], "steps of expert 1: the schedule has a single one"),
            (20, &[(2, 3)], "there is no expert 2"),
        ] {
            let error = pair.owned(&settings(leading(), steps, own)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let narrow = owners(&["timesteps:10..", "timesteps:..10"]);
        let trailing =
            Timesteps { sampler: Sampler::Euler, spacing: Spacing::Trailing, karras: false, to_first: false };
        let error = narrow.owned(&settings(Schedule::Timesteps(trailing), 4, &[(1, 3)])).unwrap_err().to_string();
        assert!(error.contains("steps of expert 1: the schedule has none"), "{error}");
        let uncounted = Owners { counted: false, ..pair };
        assert!(
            uncounted.owned(&settings(leading(), 20, &[])).unwrap_err().to_string().contains("counts no timesteps")
        );
    }

    proptest! {
        /// Each expert has as many steps as it was given, inside its interval, and as many as there are change no bit.
        #[test]
        fn steps_stay_inside_and_equal_ones_change_nothing(
            steps in 8..40_usize, cut in 0.25..0.75_f64, own in (2..30_usize, 2..30_usize), deis in any::<bool>(),
        ) {
            let schedule =
                if deis { Schedule::Deis { min: 0.03, max: 14.0, order: 3.0 } } else { leading() };
            let pair = owners(&[&format!("fraction:..{cut}"), &format!("fraction:{cut}..")]);
            let plain = pair.owned(&settings(schedule.clone(), steps, &[])).unwrap();
            let found = counts(&plain);
            prop_assume!(found.len() == 2 && found.iter().all(|count| *count > 1));
            let same = pair.owned(&settings(schedule.clone(), steps, &[(0, found[0]), (1, found[1])])).unwrap();
            prop_assert_eq!(&same, &plain);
            let other = pair.owned(&settings(schedule, steps, &[(0, own.0), (1, own.1)])).unwrap();
            prop_assert_eq!(counts(&other), vec![own.0, own.1]);
            prop_assert!(ediffi_core::schedule::validate(&other.sigmas).is_ok());
            prop_assert_eq!(other.sigmas.first(), plain.sigmas.first());
            prop_assert_eq!(other.sigmas.last(), plain.sigmas.last());
        }
    }
}
