//! The schedules of published samplers, which count on timesteps.

use serde::{Deserialize, Serialize};

use super::ends::Ends;
use super::spacing::Spacing;
use super::table::NoiseTable;
use crate::{Error, Result};

/// Which published samplers: they read one `timestep_spacing` in different ways (diffusers' `set_timesteps`), and begin with other noise
/// (`init_noise_sigma`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Sampler {
    /// DDIM, PNDM and DDPM. They begin with noise of variance 1 in DDPM's view. Even distances from the top to 0 are not theirs: diffusers
    /// rounds the timesteps and steps by another distance.
    Ddim,
    /// Euler, its ancestral form, and Heun. Even distances from the top to 0 have fractions, and their sigmas are linear between timesteps.
    /// Where they begin at the top, the noise has the first sigma; else the variance is 1 in DDPM's view.
    Euler,
    /// DPM-Solver's multistep form. Of one timestep more than there are steps, it leaves the lowest out. Karras's grid goes over the whole
    /// table.
    DpmSolver,
    /// unCLIP's (Karlo): at even distances from the top to 0, rounded to whole timesteps, of which each step goes to the next; two at least. It
    /// begins with noise of variance 1 in DDPM's view.
    #[serde(rename = "unclip")]
    UnClip,
}

/// The schedule of a published sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timesteps {
    /// Whose it is.
    pub sampler: Sampler,
    /// Which timesteps it takes.
    pub spacing: Spacing,
    /// Whether the sigmas between the highest and the lowest are laid anew, on Karras's grid of rho 7 ([`karras`](crate::schedule::karras)).
    #[serde(default)]
    pub karras: bool,
    /// Whether the last step goes to timestep 0 of the table and not to a clean image ([`Ends::last`]). It is not for DPM-Solver.
    #[serde(default)]
    pub to_first: bool,
}

impl Timesteps {
    /// The noise levels of its `steps` timesteps on `table`, descending, then 0; Karras's grid is not laid yet.
    ///
    /// # Errors
    /// [`Error::InvalidSchedule`] for more steps than there are timesteps, and for what the sampler does not do.
    pub(crate) fn sigmas(&self, steps: usize, table: NoiseTable) -> Result<Vec<f64>> {
        let wrong = |reason: &str| Err(Error::InvalidSchedule(reason.to_owned()));
        match (self.sampler, self.spacing) {
            (Sampler::Ddim, Spacing::Linspace) => return wrong("`linspace` is not for the samplers of DDIM's kind"),
            (Sampler::Ddim, _) if self.karras => return wrong("Karras's grid is not for the samplers of DDIM's kind"),
            (Sampler::DpmSolver, _) if self.to_first => return wrong("DPM-Solver does not end at timestep 0 here"),
            (Sampler::UnClip, spacing) if spacing != Spacing::Linspace || self.karras || self.to_first => {
                return wrong("unCLIP's sampler has the spacing `linspace`, and neither Karras's grid nor another end");
            }
            (Sampler::UnClip, _) if steps < 2 => return wrong("unCLIP's sampler makes two steps at least"),
            _ => {}
        }
        self.plain(steps, table)
    }

    /// The lowest and the highest noise level of Karras's grid in the place of `sigmas`, if it is laid.
    pub(crate) fn karras_range(&self, sigmas: &[f64], table: NoiseTable) -> Option<(f64, f64)> {
        let all = table.sigmas();
        let (max, min) = match self.sampler {
            Sampler::DpmSolver => (all.last(), all.first()),
            Sampler::Ddim | Sampler::Euler | Sampler::UnClip => (sigmas.first(), sigmas.iter().rev().nth(1)),
        };
        Some((*min?, *max?)).filter(|_| self.karras)
    }

    /// How its trajectory begins and ends.
    #[must_use]
    pub fn ends(&self, table: NoiseTable) -> Ends {
        let unit_start = match self.sampler {
            Sampler::Ddim | Sampler::DpmSolver | Sampler::UnClip => true,
            Sampler::Euler => matches!(self.spacing, Spacing::Leading { .. }),
        };
        Ends { unit_start, last: table.sigmas().first().copied().filter(|_| self.to_first) }
    }

    /// The noise levels of its timesteps, then 0.
    fn plain(&self, steps: usize, table: NoiseTable) -> Result<Vec<f64>> {
        if (self.sampler, self.spacing) == (Sampler::Euler, Spacing::Linspace) {
            // The rule is checked by the whole timesteps of as many steps.
            let count = self.spacing.timesteps(table, steps)?.len();
            let top = (table.len() - 1) as f64;
            let distance = top / (count.max(2) - 1) as f64;
            let sigmas = (0..count).rev().filter_map(|step| between(table.sigmas(), step as f64 * distance));
            return Ok(sigmas.chain([0.0]).collect());
        }
        let more = usize::from(self.sampler == Sampler::DpmSolver && self.spacing != Spacing::Trailing);
        let timesteps = self.spacing.timesteps(table, steps.saturating_add(more))?;
        Ok(table.schedule(timesteps.get(..timesteps.len() - more).unwrap_or_default()))
    }
}

/// The sigma at a fraction of a timestep, linear between its neighbours (NumPy's `interp`).
fn between(sigmas: &[f64], timestep: f64) -> Option<f64> {
    let (whole, fraction) = (timestep.floor(), timestep.fract());
    let low = *sigmas.get(whole as usize)?;
    let high = sigmas.get(whole as usize + 1).copied().unwrap_or(low);
    Some(low + fraction * (high - low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    const TABLE: NoiseTable = NoiseTable::ScaledLinear;

    fn schedule(sampler: Sampler, spacing: Spacing) -> Timesteps {
        Timesteps { sampler, spacing, karras: false, to_first: false }
    }

    /// The timesteps of the first steps, by their noise levels.
    fn timesteps(timesteps: Timesteps, steps: usize) -> Vec<f64> {
        let sigmas = Schedule::Timesteps(timesteps).sigmas_on(steps, TABLE).unwrap();
        assert_eq!((sigmas.len(), sigmas.last()), (steps + 1, Some(&0.0)));
        sigmas.iter().take(steps).map(|&sigma| (TABLE.timestep(sigma) * 1e3).round() / 1e3).collect()
    }

    /// diffusers' `set_timesteps` of four steps.
    #[test]
    fn samplers_read_one_spacing_in_different_ways() {
        let leading = Spacing::Leading { offset: 1 };
        assert_eq!(timesteps(schedule(Sampler::Ddim, leading), 4), [751.0, 501.0, 251.0, 1.0]);
        assert_eq!(timesteps(schedule(Sampler::Euler, leading), 4), [751.0, 501.0, 251.0, 1.0]);
        assert_eq!(timesteps(schedule(Sampler::DpmSolver, leading), 4), [801.0, 601.0, 401.0, 201.0]);
        for sampler in [Sampler::Ddim, Sampler::Euler, Sampler::DpmSolver] {
            assert_eq!(timesteps(schedule(sampler, Spacing::Trailing), 4), [999.0, 749.0, 499.0, 249.0]);
        }
        assert_eq!(timesteps(schedule(Sampler::DpmSolver, Spacing::Linspace), 4), [999.0, 749.0, 500.0, 250.0]);
        // Of a whole number of thirds there is no fraction; of five steps there is one of a half.
        assert_eq!(timesteps(schedule(Sampler::Euler, Spacing::Linspace), 4), [999.0, 666.0, 333.0, 0.0]);
        let sigmas = schedule(Sampler::Euler, Spacing::Linspace).sigmas(3, TABLE).unwrap();
        let middle = 0.5 * (TABLE.sigmas()[499] + TABLE.sigmas()[500]);
        assert!((sigmas[1] - middle).abs() < 1e-12, "{sigmas:?}");
    }

    #[test]
    fn karras_is_laid_between_the_ends_of_the_sampler() {
        let sigmas = |sampler, spacing| {
            let timesteps = Timesteps { karras: true, ..schedule(sampler, spacing) };
            Schedule::Timesteps(timesteps).sigmas_on(5, TABLE).unwrap()
        };
        let all = TABLE.sigmas();
        let euler = sigmas(Sampler::Euler, Spacing::Leading { offset: 1 });
        assert_eq!((euler[0], euler[4]), (all[801], all[1]));
        let dpm = sigmas(Sampler::DpmSolver, Spacing::Linspace);
        assert_eq!((dpm[0], dpm[4]), (all[999], all[0]));
        let between = |ends: (f64, f64)| crate::schedule::karras(5, ends.0, ends.1, 7.0).unwrap();
        assert_eq!(dpm, between((all[0], all[999])));
    }

    #[test]
    fn ends_are_those_of_the_sampler() {
        let ends = |sampler, spacing, to_first| Timesteps { to_first, ..schedule(sampler, spacing) }.ends(TABLE);
        let leading = Spacing::Leading { offset: 1 };
        assert_eq!(ends(Sampler::Euler, leading, false), Ends { unit_start: true, last: None });
        assert_eq!(ends(Sampler::Euler, Spacing::Trailing, false), Ends::default());
        let first = Some(TABLE.sigmas()[0]);
        assert_eq!(ends(Sampler::Ddim, Spacing::Trailing, true), Ends { unit_start: true, last: first });
        assert_eq!(ends(Sampler::DpmSolver, Spacing::Linspace, false), Ends { unit_start: true, last: None });
    }

    #[test]
    fn what_a_sampler_does_not_do_is_an_error() {
        let karras = |timesteps| Timesteps { karras: true, ..timesteps };
        for (timesteps, what) in [
            (schedule(Sampler::Ddim, Spacing::Linspace), "linspace"),
            (karras(schedule(Sampler::Ddim, Spacing::Trailing)), "Karras"),
            (Timesteps { to_first: true, ..schedule(Sampler::DpmSolver, Spacing::Linspace) }, "timestep 0"),
            (schedule(Sampler::Euler, Spacing::Leading { offset: 999 }), "lead beyond"),
        ] {
            let error = timesteps.sigmas(4, TABLE).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(schedule(Sampler::DpmSolver, Spacing::Linspace).sigmas(usize::MAX, TABLE).is_err());
        let json = r#"{"timesteps":{"sampler":"dpm-solver","spacing":"linspace","karras":true,"to_first":false}}"#;
        let schedule: Schedule = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&schedule).unwrap(), json);
    }
}
