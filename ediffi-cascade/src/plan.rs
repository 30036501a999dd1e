//! What one stage of a run is going to do.

use std::fmt;

use ediffi_core::plan::Plan;

use crate::decoding::{Decoding, precision};
use crate::settings::SamplerSettings;
use crate::tiling::Tiling;

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
    /// How its latents become pictures, if it draws latents.
    pub decoding: Option<Decoding>,
    /// Which expert runs which step.
    pub plan: Plan,
}

/// One line per expert, and one for the decoder of a latent stage.
impl fmt::Display for StagePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, segment) in self.plan.to_string().lines().enumerate() {
            let separator = if line > 0 { "\n" } else { "" };
            write!(f, "{separator}stage {} ({}x{}), {segment}", self.stage, self.width, self.height)?;
        }
        if let Some(Decoding { kind, width, height, tiles, .. }) = &self.decoding {
            let cut = if *tiles > 1 { format!(", in {tiles} tiles") } else { String::new() };
            write!(f, "\nstage {}: latents of {width}x{height}, decoded in {}{cut}", self.stage, precision(*kind))?;
        }
        Ok(())
    }
}
