//! What one stage of a run is going to do.

use std::collections::BTreeSet;
use std::fmt;

use ediffi_core::plan::Plan;

use crate::decoding::{Decoding, precision};
use crate::jumps::Jumps;
use crate::owners::{Owned, Owners};
use crate::settings::SamplerSettings;
use crate::tiling::Tiling;
use crate::{Error, Result};

/// What one stage is going to do, known before anything is loaded: see [`Cascade::plan`](crate::Cascade::plan).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StagePlan {
    /// The stage.
    pub stage: String,
    /// Its number in the cascade, from 0.
    pub index: usize,
    /// Width in pixels of its pictures.
    pub width: u32,
    /// Height in pixels of its pictures.
    pub height: u32,
    /// How it samples.
    pub settings: SamplerSettings,
    /// How its pictures are cut, if they are.
    pub tiling: Option<Tiling>,
    /// Steps at the beginning of the schedule that are left out, because a picture is edited: see [`with_strength`](Self::with_strength).
    pub skipped: usize,
    /// Going back up in noise: see [`with_jumps`](Self::with_jumps).
    pub jumps: Option<Jumps>,
    /// How its latents become pictures, if it draws latents.
    pub decoding: Option<Decoding>,
    /// Experts that guidance leads away from a text of their own; it changes what is shown of the plan, and nothing else.
    pub leaning: BTreeSet<usize>,
    /// How many numbers an embedding has, of the [prior](crate::Prior), which draws these in the place of pictures.
    pub embedding: Option<i64>,
    /// Which expert runs which step.
    pub plan: Plan,
}

impl StagePlan {
    /// The experts, and the noise levels of the steps that are made, descending; these are empty if there is none.
    ///
    /// # Errors
    /// As [`Owners::owned`].
    pub(crate) fn owned(&self, owners: &Owners) -> ediffi_core::Result<Owned> {
        let Owned { experts, sigmas } = owners.owned(&self.settings)?;
        let mut sigmas: Vec<f64> = sigmas.into_iter().skip(self.skipped).collect();
        match *sigmas.as_slice() {
            [0.0] => sigmas.clear(),
            // The last estimate of a schedule that ends above 0 is a step down to 0.
            [last] if self.skipped > 0 && last > 0.0 => sigmas.push(0.0),
            _ => {}
        }
        Ok(Owned { experts, sigmas })
    }

    /// What the expert of a segment does otherwise than the others.
    fn otherwise(&self, expert: usize) -> String {
        let own = self.settings.experts.get(&expert).copied().unwrap_or_default();
        let guidance = own.guidance_scale.map(|scale| format!(", guidance {scale}"));
        let solver = own.solver.map(|solver| format!(", {solver}"));
        let steps = own.steps.map(|_| ", steps of its own".to_owned());
        let leans = self.leaning.contains(&expert).then(|| ", a negative prompt of its own".to_owned());
        [steps, solver, guidance, leans].into_iter().flatten().collect()
    }

    /// For a stage that begins with a picture ([`Edit`](crate::Edit)): how much of it is drawn anew, from 0, nothing, to 1, everything.
    /// Of n steps, the last ⌊n · strength⌋ are made, as in diffusers' image to image. With none of them, the picture stays as it is. Steps
    /// that were left out before stay so. [Jumps](Self::with_jumps) that were set before go over the steps that are left.
    #[must_use]
    pub fn with_strength(mut self, strength: f64) -> Self {
        let straight = self.straight();
        let (left, steps) = (straight.steps().len(), self.skipped + straight.steps().len());
        let made = ((steps as f64 * strength) as usize).min(left);
        self.skipped = steps - made;
        self.plan = straight.without_first(left - made);
        self.plan = self.plan.in_order(&self.walk(made));
        self
    }

    /// For a stage that begins with a picture of which a part is drawn anew: goes back up in noise on the way. Jumps that were set before
    /// are no more.
    ///
    /// # Errors
    /// [`Error::Job`] for jumps of no length, and for those that make more than [`Jumps::MOST`] steps.
    pub fn with_jumps(mut self, jumps: Jumps) -> Result<Self> {
        let straight = self.straight();
        if let Some(reason) = jumps.problem(straight.steps().len()) {
            return Err(Error::Job { stage: self.stage, input: "jumps", reason });
        }
        self.jumps = Some(jumps);
        self.plan = straight.in_order(&self.walk(straight.steps().len()));
        Ok(self)
    }

    /// The plan without going back: each noise level once. The walk of jumps leaves none out.
    fn straight(&self) -> Plan {
        let sigma = |step: usize| self.plan.steps().get(step).map_or(0.0, |step| step.sigma);
        let mut steps: Vec<usize> = (0..self.plan.steps().len()).collect();
        steps.sort_by(|a, b| sigma(*b).total_cmp(&sigma(*a)));
        steps.dedup_by(|a, b| sigma(*a).total_cmp(&sigma(*b)).is_eq());
        self.plan.in_order(&steps)
    }

    /// The steps of a schedule of so many in the order in which they are made.
    pub(crate) fn walk(&self, steps: usize) -> Vec<usize> {
        self.jumps.map_or_else(|| (0..steps).collect(), |jumps| jumps.walk(steps))
    }
}

/// One line per expert with what it does otherwise than its stage, and one for the decoder of a latent stage.
impl fmt::Display for StagePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, width, height, skipped, .. } = self;
        if self.plan.steps().is_empty() {
            write!(f, "stage {stage} ({width}x{height}): no step, the picture stays as it is")?;
        }
        let drawn = match self.embedding {
            Some(numbers) => format!("embeddings of {numbers}"),
            None => format!("{width}x{height}"),
        };
        for (line, (segment, expert)) in self.plan.to_string().lines().zip(self.plan.experts()).enumerate() {
            let separator = if line > 0 { "\n" } else { "" };
            let left =
                if line == 0 && *skipped > 0 { format!(" ({skipped} before are left out)") } else { String::new() };
            write!(f, "{separator}stage {stage} ({drawn}), {segment}{}{left}", self.otherwise(expert))?;
        }
        if let Some(Decoding { kind, width, height, tiles, .. }) = &self.decoding {
            let cut = if *tiles > 1 { format!(", in {tiles} tiles") } else { String::new() };
            write!(f, "\nstage {}: latents of {width}x{height}, decoded in {}{cut}", self.stage, precision(*kind))?;
        }
        Ok(())
    }
}
