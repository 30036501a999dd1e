//! How a stage samples, and what a request changes of it.

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
}

/// Every setting replaced, the tiling left alone.
impl From<SamplerSettings> for SettingsPatch {
    fn from(SamplerSettings { solver, steps, schedule, guidance }: SamplerSettings) -> Self {
        let (solver, steps, schedule, guidance) = (Some(solver), Some(steps), Some(schedule), Some(guidance));
        Self { solver, steps, schedule, guidance, ..Self::default() }
    }
}

impl SamplerSettings {
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
        settings
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
        let checks =
            [(schedule, self.sigmas(table).map(drop)), ("solver", self.solver.validate()), ("guidance", guidance)];
        checks.into_iter().filter_map(|(name, result)| Some((name, result.err()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> SamplerSettings {
        let (schedule, guidance) = (Schedule::edm(), Guidance::new(5.0));
        SamplerSettings { solver: Solver::Euler, steps: 5, schedule, guidance }
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
