//! The stages that this program trains.

use ediffi_cascade::PreconditionConfig;
use ediffi_core::precondition::Sample;
use ediffi_core::unet::{Efficient, UNetConfig};
use ediffi_train::plan::{NetworkTraining, StageTraining};
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
pub fn dimensions_of(network: &NetworkTraining, side: u32) -> UNetConfig {
    network.dimensions.clone().unwrap_or_else(|| dimensions(side).into())
}

/// How the networks of all stages become denoisers, but for those to which the plan gives their own precondition.
pub fn precondition() -> PreconditionConfig {
    PreconditionConfig::Sample(Sample::default())
}
