//! How a stage samples, and what a request changes of it.

use std::collections::BTreeMap;

use ediffi_core::Result;
use ediffi_core::guidance::{Against, Guidance, Thresholding};
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::Solver;
use ediffi_core::timesteps::NoiseTable;
use serde::{Deserialize, Serialize};

use crate::tiling::Tiling;

/// How a stage gets from noise to a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerSettings {
    /// The integration rule.
    pub solver: Solver,
    /// Number of steps.
    pub steps: usize,
    /// The rule that makes the noise levels.
    pub schedule: Schedule,
    /// Classifier-free guidance.
    #[serde(default)]
    pub guidance: Guidance,
    /// What single experts do otherwise, by their numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub experts: BTreeMap<usize, ExpertSettings>,
}

/// What one expert of a stage does otherwise than its stage. What is `None` is as in the stage.
///
/// In JSON: `"experts": {"1": {"steps": 5, "solver": "heun", "guidance_scale": 3.0}}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ExpertSettings {
    /// Number of steps in its interval, laid between the first and the last noise level that the schedule of the stage has there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// The integration rule of the steps that begin in its interval. Where another rule takes over, it knows nothing of the steps before: a
    /// multistep rule begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solver: Option<Solver>,
    /// The scale of guidance; interval and thresholding are those of the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f64>,
}

impl ExpertSettings {
    /// These with what `other` sets in their place.
    fn patched(self, other: Self) -> Self {
        Self {
            steps: other.steps.or(self.steps),
            solver: other.solver.or(self.solver),
            guidance_scale: other.guidance_scale.or(self.guidance_scale),
        }
    }
}

/// What differs from a stage's own settings. What is `None` stays as the model has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SettingsPatch {
    /// Number of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// The integration rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solver: Option<Solver>,
    /// The rule that makes the noise levels. One that has a number of steps of its own sets that, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The scale of guidance; interval and thresholding stay as they are. 1 is no guidance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f64>,
    /// The whole of guidance. A `guidance_scale` beside it replaces its scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<Guidance>,
    /// How to cut a picture that is too large for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiling: Option<Tiling>,
    /// What single experts do otherwise, by their numbers, as a plan has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub experts: BTreeMap<usize, ExpertSettings>,
}

/// Every setting replaced, the tiling left alone.
impl From<SamplerSettings> for SettingsPatch {
    fn from(SamplerSettings { solver, steps, schedule, guidance, experts }: SamplerSettings) -> Self {
        let (solver, steps, schedule, guidance) = (Some(solver), Some(steps), Some(schedule), Some(guidance));
        Self { solver, steps, schedule, guidance, experts, ..Self::default() }
    }
}

impl SamplerSettings {
    /// Settings that all experts share.
    #[must_use]
    pub fn new(solver: Solver, steps: usize, schedule: Schedule, guidance: Guidance) -> Self {
        Self { solver, steps, schedule, guidance, experts: BTreeMap::new() }
    }

    /// These settings with those of `patch` in their place.
    #[must_use]
    pub fn patched(&self, patch: Option<&SettingsPatch>) -> Self {
        let mut settings = self.clone();
        let Some(patch) = patch else { return settings };
        if let Some(schedule) = &patch.schedule {
            settings.steps = schedule.own_steps().unwrap_or(settings.steps);
            settings.schedule = schedule.clone();
        }
        settings.steps = patch.steps.unwrap_or(settings.steps);
        settings.solver = patch.solver.unwrap_or(settings.solver);
        if let Some(guidance) = &patch.guidance {
            settings.guidance = guidance.clone();
        }
        settings.guidance.scale = patch.guidance_scale.unwrap_or(settings.guidance.scale);
        for (&index, &own) in &patch.experts {
            let before = settings.experts.entry(index).or_default();
            *before = before.patched(own);
        }
        settings
    }

    /// The integration rule of the steps that an expert begins.
    #[must_use]
    pub fn solver_of(&self, expert: usize) -> Solver {
        self.experts.get(&expert).and_then(|own| own.solver).unwrap_or(self.solver)
    }

    /// The guidance of an expert.
    #[must_use]
    pub fn guidance_of(&self, expert: usize) -> Guidance {
        let scale = self.experts.get(&expert).and_then(|own| own.guidance_scale);
        Guidance { scale: scale.unwrap_or(self.guidance.scale), ..self.guidance.clone() }
    }

    /// Whether what a solver remembers is lost between two steps that these experts begin: where the rule is another one, and with PLMS, whose
    /// weights are those of even steps, where one of them has a number of steps of its own.
    pub(crate) fn forgets(&self, before: usize, after: usize) -> bool {
        let laid = |expert| self.experts.get(&expert).is_some_and(|own| own.steps.is_some());
        let (one, other) = (self.solver_of(before), self.solver_of(after));
        before != after && (one != other || (one == Solver::Plms && (laid(before) || laid(after))))
    }

    /// What of the settings of single experts makes no picture.
    fn expert_problem(&self) -> Result<()> {
        for (&index, own) in &self.experts {
            let named = |error: ediffi_core::Error| match error {
                ediffi_core::Error::InvalidGuidance(reason) => {
                    ediffi_core::Error::InvalidGuidance(format!("expert {index}: {reason}"))
                }
                ediffi_core::Error::InvalidSolver(reason) => {
                    ediffi_core::Error::InvalidSolver(format!("expert {index}: {reason}"))
                }
                other => other,
            };
            self.guidance_of(index).validate().map_err(named)?;
            let Some(solver) = own.solver else { continue };
            solver.validate().map_err(named)?;
            let churns = |solver: Solver| matches!(solver, Solver::Heun(churn) if churn.s_churn > 0.0);
            if solver != self.solver && (churns(solver) || churns(self.solver)) {
                let reason = "churn adds noise before a step, and another rule cannot take over there".to_owned();
                return Err(named(ediffi_core::Error::InvalidSolver(reason)));
            }
        }
        Ok(())
    }

    /// The noise levels, descending; timesteps are those of `table`, the
    /// [stage's own](crate::PreconditionConfig::timesteps).
    ///
    /// # Errors
    /// As [`Schedule::sigmas_on`]: no steps, or parameters that make no schedule.
    pub fn sigmas(&self, table: NoiseTable) -> Result<Vec<f64>> {
        self.schedule.sigmas_on(self.steps, table)
    }

    /// What of guidance is for pixels and makes no latents, which nothing bounds.
    #[must_use]
    pub fn latent_problem(&self) -> Option<ediffi_core::Error> {
        let reason = "thresholding is for pixels, and the stage draws latents, which nothing bounds".to_owned();
        (self.guidance.thresholding != Thresholding::None).then_some(ediffi_core::Error::InvalidGuidance(reason))
    }

    /// Every setting that makes no picture, by name, and what is wrong with it. Timesteps are those of `table`; `weaker` says whether the
    /// stage has a weaker network.
    #[must_use]
    pub fn problems(&self, table: NoiseTable, weaker: bool) -> Vec<(&'static str, ediffi_core::Error)> {
        let guidance = match self.guidance.against {
            Against::Weaker if !weaker => {
                Err(ediffi_core::Error::InvalidGuidance("the stage has no weaker network".to_owned()))
            }
            _ => self.guidance.validate(),
        };
        let schedule = if self.steps == 0 { "steps" } else { "schedule" };
        let checks = [
            (schedule, self.sigmas(table).map(drop)),
            ("solver", self.solver.validate()),
            ("guidance", guidance),
            ("experts", self.expert_problem()),
        ];
        checks.into_iter().filter_map(|(name, result)| Some((name, result.err()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> SamplerSettings {
        let (schedule, guidance) = (Schedule::edm(), Guidance::new(5.0));
        SamplerSettings::new(Solver::Euler, 5, schedule, guidance)
    }

    #[test]
    fn experts_are_patched_one_by_one() {
        let json = r#"{"experts":{"0":{"steps":4},"1":{"guidance_scale":3.0}}}"#;
        let first: SettingsPatch = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&first).unwrap(), json);
        let second: SettingsPatch =
            serde_json::from_str(r#"{"experts":{"1":{"solver":"dpmpp-3m","steps":2}}}"#).unwrap();
        let both = settings().patched(Some(&first)).patched(Some(&second));
        assert_eq!(both.experts[&0], ExpertSettings { steps: Some(4), ..ExpertSettings::default() });
        let expected = ExpertSettings { steps: Some(2), solver: Some(Solver::DpmPp3M), guidance_scale: Some(3.0) };
        assert_eq!(both.experts[&1], expected);
        assert_eq!((both.solver_of(0), both.solver_of(1)), (Solver::Euler, Solver::DpmPp3M));
        assert_eq!((both.guidance_of(0).scale, both.guidance_of(1).scale), (5.0, 3.0));
        assert!(both.forgets(0, 1) && !both.forgets(1, 1));
        let even = SamplerSettings { solver: Solver::Plms, ..settings() };
        let laid = even.patched(Some(&first));
        assert!(!even.forgets(0, 1) && laid.forgets(0, 1) && laid.forgets(1, 0) && !laid.forgets(1, 2));
        assert_eq!(serde_json::from_value::<SamplerSettings>(serde_json::json!(both)).unwrap(), both);
        assert!(!serde_json::to_string(&settings()).unwrap().contains("experts"));
        let unknown = serde_json::from_str::<SettingsPatch>(r#"{"experts":{"1":{"scale":2}}}"#).unwrap_err();
        assert!(unknown.to_string().contains("scale"), "{unknown}");
    }

    #[test]
    fn what_is_wrong_of_an_expert_is_named() {
        let churn = ediffi_core::solver::Churn { s_churn: 4.0, ..ediffi_core::solver::Churn::NONE };
        for (own, words) in [
            (ExpertSettings { guidance_scale: Some(f64::NAN), ..Default::default() }, "expert 1: scale NaN"),
            (
                ExpertSettings { solver: Some(Solver::TabDeis { order: 9 }), ..Default::default() },
                "expert 1: the order",
            ),
            (ExpertSettings { solver: Some(Solver::Heun(churn)), ..Default::default() }, "expert 1: churn adds noise"),
        ] {
            let wrong = SamplerSettings { experts: BTreeMap::from([(1, own)]), ..settings() };
            let found = wrong.problems(NoiseTable::SquaredCosine, false);
            assert!(found.len() == 1 && found[0].0 == "experts", "{found:?}");
            assert!(found[0].1.to_string().contains(words), "{found:?}");
        }
    }

    #[test]
    fn a_patch_replaces_what_it_names() {
        assert_eq!(settings().patched(None), settings());
        assert_eq!(settings().patched(Some(&SettingsPatch::default())), settings());
        let patch = SettingsPatch {
            solver: Some(Solver::DpmPp2M),
            steps: Some(7),
            guidance: Some(Guidance { interval: None, ..Guidance::new(2.0) }),
            guidance_scale: Some(3.0),
            ..SettingsPatch::default()
        };
        let expected =
            SamplerSettings { solver: Solver::DpmPp2M, steps: 7, guidance: Guidance::new(3.0), ..settings() };
        assert_eq!(settings().patched(Some(&patch)), expected);
    }

    #[test]
    fn a_schedule_with_steps_of_its_own_brings_them() {
        let schedule = Schedule::Custom(vec![4.0, 2.0, 1.0, 0.0]);
        let patch = SettingsPatch { schedule: Some(schedule.clone()), ..SettingsPatch::default() };
        assert_eq!(settings().patched(Some(&patch)), SamplerSettings { steps: 3, schedule, ..settings() });
        let both = SettingsPatch { steps: Some(9), ..patch };
        assert_eq!(settings().patched(Some(&both)).steps, 9);
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        assert!(settings().problems(NoiseTable::SquaredCosine, false).is_empty());
        let wrong = SamplerSettings {
            steps: 0,
            solver: Solver::TabDeis { order: 9 },
            guidance: Guidance::new(f64::NAN),
            ..settings()
        };
        let names: Vec<_> =
            wrong.problems(NoiseTable::SquaredCosine, false).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["steps", "solver", "guidance"]);
        let rising = SamplerSettings { schedule: Schedule::Custom(vec![1.0, 2.0]), ..settings() };
        assert_eq!(rising.problems(NoiseTable::SquaredCosine, false)[0].0, "schedule");
        let leaning = Guidance { against: Against::Weaker, ..Guidance::new(2.0) };
        let leaning = SamplerSettings { guidance: leaning, ..settings() };
        assert_eq!(leaning.problems(NoiseTable::SquaredCosine, false)[0].0, "guidance");
        assert!(leaning.problems(NoiseTable::SquaredCosine, true).is_empty());
    }
}
