//! How long and how fast something is trained.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::{expect_decay, wrong};
use crate::optimizer::AdamWSettings;

/// How long and how fast something is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Training {
    /// Optimizer steps.
    pub steps: u64,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises.
    #[serde(default)]
    pub warm_up: u64,
    /// Whether the learning rate then falls along a cosine, to a tenth at the last step.
    #[serde(default)]
    pub cosine: bool,
    /// Decay of the running average of the weights. The average is exported.
    pub ema: f64,
}

impl Training {
    /// The settings of the optimizer. Those that the plan does not have are the defaults of [`AdamWSettings`].
    #[must_use]
    pub fn optimizer(&self) -> AdamWSettings {
        AdamWSettings {
            learning_rate: self.learning_rate,
            warm_up: self.warm_up,
            decay_steps: self.cosine.then_some(self.steps),
            ..AdamWSettings::default()
        }
    }

    pub(super) fn check(&self, what: &str) -> Result<()> {
        let settings = self.optimizer().validate().and_then(|()| expect_decay("ema", self.ema));
        settings.or_else(|error| wrong(what, error.to_string()))?;
        if self.steps == 0 { wrong(what, "no steps") } else { Ok(()) }
    }
}
