//! The stages that this program trains.

use ediffi_cascade::{PreconditionConfig, SamplerSettings};
use ediffi_core::guidance::Guidance;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::precondition::Sample;
use ediffi_core::solver::{FreshNoise, Solver};
use ediffi_core::unet::{Efficient, UNetConfig};
use ediffi_train::plan::{NetworkTraining, Sampling, StageTraining};
use serde_json::{Value, json};
use train_icons::dimensions;

use super::Result;

/// Side of the base's pictures.
pub const BASE: u32 = 64;

/// Side of a stage's pictures.
pub fn side(stage: &StageTraining) -> Result<u32> {
    match stage.name.as_str() {
        "base" => Ok(BASE),
        "sr256" => Ok(256),
        "sr1024" => Ok(1024),
        other => Err(format!("this program trains no stage {other:?}: there are base, sr256 and sr1024").into()),
    }
}

/// The networks of a stage of this side, but for those to which the plan gives their own dimensions.
pub fn dimensions(side: u32) -> Efficient {
    if side == BASE { dimensions::base() } else { dimensions::super_resolution() }
}

/// The dimensions of one network of a stage of this side.
pub fn dimensions_of(network: &NetworkTraining, side: u32) -> Result<UNetConfig> {
    Ok(network.detailed(network.dimensions.clone().unwrap_or_else(|| dimensions(side).into()))?)
}

/// How a trained stage is sampled.
///
/// docs/results/seen.md chose the base's solver and guidance: where guidance ends makes pictures plainer, and fresh noise mends small
/// faults. Guidance makes the base follow the text; super-resolution follows the smaller picture, and its solver is the nearest to the
/// solution, or as near as any, at every number of evaluations (docs/results/evaluation.md, "Solvers of super-resolution").
pub fn sampler(stage: &StageTraining) -> Result<SamplerSettings> {
    let (solver, guidance) = if side(stage)? == BASE {
        let interval = Some(SigmaInterval::new(2.0, f64::INFINITY)?);
        (Solver::DpmPp2MSde(FreshNoise::default()), Guidance { interval, ..Guidance::new(3.0) })
    } else {
        (Solver::DpmPp2M, Guidance::new(1.0))
    };
    let Sampling { steps, schedule } = stage.sampling.clone();
    Ok(SamplerSettings::new(solver, steps, schedule, guidance))
}

/// Other settings than those of [`sampler`], by name: for the fastest picture that a person would still accept, and without fresh noise on
/// the way, where few steps are near many (docs/results/seen.md).
pub fn presets() -> Value {
    json!({
        "fast": {
            "about": "half the time, edges a little softer",
            "stages": { "base": { "solver": "tab-deis-3", "steps": 8 }, "sr256": { "steps": 4 }, "sr1024": { "steps": 2 } },
        },
        "deterministic": {
            "about": "no fresh noise on the way, guidance at every noise level",
            "stages": { "base": { "solver": "tab-deis-3", "guidance": { "scale": 3.0 } } },
        },
    })
}

/// How the networks of all stages become denoisers, but for those to which the plan gives their own precondition.
pub fn precondition() -> PreconditionConfig {
    PreconditionConfig::Sample(Sample::default())
}
