//! How long and how fast something is trained.

use serde::{Deserialize, Serialize};

use crate::optimizer::AdamWSettings;
use crate::{Error, Result};

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
        let wrong = |reason: String| Err(Error::Plan { what: what.to_owned(), reason });
        if let Err(error) = self.optimizer().validate() {
            return wrong(error.to_string());
        }
        if self.steps == 0 {
            return wrong("no steps".to_owned());
        }
        if !(0.0..1.0).contains(&self.ema) {
            return wrong(format!("ema {} is not in [0, 1)", self.ema));
        }
        Ok(())
    }
}
