//! The stages that this program trains.

use ediffi_core::unet::Efficient;
use ediffi_train::plan::StageTraining;
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

/// The network of a stage of this side.
pub fn network(side: u32) -> Efficient {
    if side == BASE { dimensions::base() } else { dimensions::super_resolution() }
}
