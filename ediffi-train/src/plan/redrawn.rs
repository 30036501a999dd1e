//! Smaller pictures that the stage before drew again, for super-resolution that mends what that stage gets wrong.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::{expect_positive, expect_setting, expect_share};

/// The most pictures that a plan may ask for: one of 64 pixels takes 12 kB of memory.
const MAX_PICTURES: u64 = 1 << 20;

/// Smaller pictures that the stage before drew again.
///
/// A picture of the data gets noise of a level σ, and the trained stage before takes it away (Meng et al. 2022, "SDEdit", §3). What comes
/// out shows the same scene with the faults that the stage makes. Super-resolution that is trained on such pairs learns to mend them, as
/// it learns to mend a [corruption](crate::corruption::Corruption), which follows.
///
/// A level is drawn for each batch, evenly in ln σ. Below it the faults are those of the stage; above about 3 it draws another scene.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Redrawn {
    /// How many pictures are drawn again. Training comes back to each several times, with other crops.
    pub pictures: u64,
    /// The lowest and the highest noise level σ.
    pub sigma: (f64, f64),
    /// The share of training that sees them. The rest sees the smaller pictures of the data.
    pub share: f64,
}

impl Redrawn {
    /// Fails with the first field that makes no sense.
    pub(super) fn check(&self) -> Result<()> {
        let (low, high) = self.sigma;
        let pictures = self.pictures;
        expect_setting(
            (1..=MAX_PICTURES).contains(&pictures),
            "redrawn.pictures",
            pictures as f64,
            "is not in 1..=2^20",
        )?;
        expect_positive("redrawn.sigma", low)?;
        expect_setting(
            high >= low && high.is_finite(),
            "redrawn.sigma",
            high,
            "is not finite and at least the lowest",
        )?;
        expect_share("redrawn.share", self.share)
    }
}
