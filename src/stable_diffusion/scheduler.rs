//! The sampler of a published folder: which of diffusers' classes it is, and what its settings mean here.

use std::path::Path;

use ediffi_cascade::{PreconditionConfig, SamplerSettings};
use ediffi_core::guidance::Guidance;
use ediffi_core::precondition::{Epsilon, SampleOnTable, Velocity};
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::Solver;
use ediffi_core::timesteps::{NoiseTable, Sampler, Spacing, Timesteps};
use serde_json::{Value, json};

use super::classes::{CLASSES, Class};
use super::scheduler_keys::Keys;
use crate::Result;

/// Steps that diffusers' pipelines take by themselves.
const STEPS: usize = 50;

/// The sampler of a folder: how its network becomes a denoiser, and how that is sampled.
#[derive(Debug, Clone)]
pub(super) struct Scheduler {
    pub(super) precondition: PreconditionConfig,
    pub(super) settings: SamplerSettings,
}

impl Scheduler {
    /// Reads and checks a `scheduler_config.json`.
    ///
    /// `early`: the pipeline is of the first or second Stable Diffusion, which sets `steps_offset` to 1 and `clip_sample` to false whatever the
    /// file says (diffusers' `StableDiffusionPipeline.__init__`).
    pub(super) fn read(path: &Path, early: bool, guidance: f64) -> Result<Self> {
        let mut keys = Keys::read(path)?;
        let name = keys.text("_class_name", "")?;
        let Some(class) = CLASSES.iter().find(|class| class.name == name) else {
            let known = CLASSES.map(|class| class.name).join(", ");
            return Err(keys
                .wrong("_class_name", format!("`{name}` is a sampler that this library does not have, only {known}")));
        };
        for (key, value) in class.fixed {
            keys.only(key, &value.json(), value.has_to_be_said())?;
        }
        let precondition = precondition(&mut keys, class)?;
        if class.sampler == Sampler::DpmSolver {
            lambdas(&mut keys, precondition.timesteps())?;
        }
        let offset = if early { forced(&mut keys)? } else { keys.whole("steps_offset", 0)? };
        if let (Some(unsaid), false) = (class.clips, early) {
            keys.only("clip_sample", &json!(false), unsaid)?;
        }
        let spacing = match keys.text("timestep_spacing", class.spacing)?.as_str() {
            "leading" => Spacing::Leading { offset },
            "trailing" => Spacing::Trailing,
            // Of the others, diffusers steps by another distance than its timesteps have.
            "linspace" if class.sampler != Sampler::Ddim => Spacing::Linspace,
            other => {
                let supported = if class.sampler == Sampler::Ddim { "" } else { ", linspace" };
                let reason = format!("`{other}` is not supported, only leading, trailing{supported}");
                return Err(keys.wrong("timestep_spacing", reason));
            }
        };
        let karras = class.karras && keys.flag("use_karras_sigmas", false)?;
        let to_first = match class.ends_at_one {
            Some(default) => !keys.flag("set_alpha_to_one", default)?,
            None => false,
        };
        keys.finish()?;
        let schedule = Schedule::Timesteps(Timesteps { sampler: class.sampler, spacing, karras, to_first });
        let settings = SamplerSettings::new(class.solver, STEPS, schedule, Guidance::new(guidance));
        Ok(Self { precondition, settings })
    }
}

/// What the first pipelines set over the file.
fn forced(keys: &mut Keys) -> Result<usize> {
    let (offset, clips) = (keys.whole("steps_offset", 0)?, keys.flag("clip_sample", false)?);
    if offset != 1 || clips {
        tracing::debug!(offset, clips, "steps_offset is 1 and clip_sample false, as in diffusers");
    }
    Ok(1)
}

/// How the network becomes a denoiser.
fn precondition(keys: &mut Keys, class: &Class) -> Result<PreconditionConfig> {
    let table = table(keys, class)?;
    let prediction = keys.text("prediction_type", "epsilon")?;
    Ok(match prediction.as_str() {
        "epsilon" => PreconditionConfig::Epsilon(Epsilon::new(table)),
        // PNDM adds up velocities of several timesteps as if they were of one.
        "v_prediction" if class.solver != Solver::Plms => PreconditionConfig::Velocity(Velocity::new(table)),
        "sample" if class.solver != Solver::Plms => PreconditionConfig::SampleOnTable(SampleOnTable::new(table)),
        other => {
            let supported = if class.solver == Solver::Plms { "" } else { ", v_prediction, sample" };
            let reason = format!("`{other}` is not supported with {}, only epsilon{supported}", class.name);
            return Err(keys.wrong("prediction_type", reason));
        }
    })
}

/// Refuses a least `lambda = -ln(sigma)` (Lu et al. 2022, "DPM-Solver", section 3.1) that cuts the highest noise levels of the table off:
/// diffusers begins with a lower timestep then.
fn lambdas(keys: &mut Keys, table: NoiseTable) -> Result<()> {
    let key = "lambda_min_clipped";
    let (least, lowest) = (keys.lowest(key)?, -table.sigmas().last().copied().unwrap_or(f64::INFINITY).ln());
    if least > lowest {
        let reason =
            format!("{least} would leave out the highest noise levels, only values up to {lowest:.3} are supported");
        return Err(keys.wrong(key, reason));
    }
    Ok(())
}

/// The noise table of these betas.
fn table(keys: &mut Keys, class: &Class) -> Result<NoiseTable> {
    keys.only("num_train_timesteps", &json!(1000), false)?;
    keys.only("trained_betas", &Value::Null, false)?;
    let schedule = keys.text("beta_schedule", "linear")?;
    let [start, end] = class.betas;
    let betas = (keys.number("beta_start", start)?, keys.number("beta_end", end)?);
    match (schedule.as_str(), betas) {
        ("scaled_linear", (0.00085, 0.012)) => Ok(NoiseTable::ScaledLinear),
        ("linear", (0.0001, 0.02)) => Ok(NoiseTable::Linear),
        ("squaredcos_cap_v2", _) => Ok(NoiseTable::SquaredCosine),
        (other, (start, end)) => {
            let reason = format!(
                "`{other}` from {start} to {end} is not supported, only scaled_linear from 0.00085 to 0.012, linear from 0.0001 \
                 to 0.02, and squaredcos_cap_v2"
            );
            Err(keys.wrong("beta_schedule", reason))
        }
    }
}
