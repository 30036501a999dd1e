//! How a stage samples.

use ediffi_core::guidance::{Guidance, Rows};
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::Solver;
use serde::{Deserialize, Serialize};

use ediffi_core::Result;

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
    /// Whether conditional and unconditional rows are computed in one batch or one after the other.
    #[serde(default)]
    pub rows: Rows,
}

impl SamplerSettings {
    /// The noise levels, descending.
    ///
    /// # Errors
    /// As [`Schedule::sigmas`]: no steps, or parameters that make no schedule.
    pub fn sigmas(&self) -> Result<Vec<f64>> {
        self.schedule.sigmas(self.steps)
    }
}
