//! The sampler of a published folder.

use std::path::Path;

use ediffi_cascade::SamplerSettings;
use ediffi_core::files::read_json;
use ediffi_core::guidance::{Guidance, Thresholding};
use ediffi_core::published::unknown_key;
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::{Solver, Variance};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::published_stage::PublishedStage;
use crate::{Error, Result};

/// The one class of samplers that is read. The files of others have the same keys for other samplers.
const CLASS: &str = "DDPMScheduler";

/// Keys that change nothing: where the file came from, what `squaredcos_cap_v2` has no use for, and what DeepFloyd's files say to
/// another class of samplers.
const WITHOUT_EFFECT: [&str; 5] =
    ["_diffusers_version", "_name_or_path", "beta_end", "beta_start", "lambda_min_clipped"];

/// The fields of a `scheduler_config.json` that matter; one that is absent has diffusers' default.
#[derive(Deserialize)]
#[serde(default)]
pub(super) struct Scheduler {
    #[serde(rename = "_class_name")]
    class: String,
    num_train_timesteps: usize,
    beta_schedule: String,
    prediction_type: String,
    trained_betas: Option<Vec<f64>>,
    rescale_betas_zero_snr: bool,
    variance_type: String,
    thresholding: bool,
    dynamic_thresholding_ratio: f64,
    sample_max_value: f64,
    clip_sample: bool,
    clip_sample_range: f64,
    timestep_spacing: String,
    steps_offset: i64,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            class: CLASS.to_owned(),
            num_train_timesteps: 1000,
            beta_schedule: "linear".to_owned(),
            prediction_type: "epsilon".to_owned(),
            trained_betas: None,
            rescale_betas_zero_snr: false,
            variance_type: "fixed_small".to_owned(),
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            clip_sample: true,
            clip_sample_range: 1.0,
            timestep_spacing: "leading".to_owned(),
            steps_offset: 0,
            others: Map::new(),
        }
    }
}

impl Scheduler {
    /// Reads and checks a `scheduler_config.json`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let scheduler: Self = read_json(path)?;
        scheduler.check().map_err(|(key, reason)| Error::Manifest { path: path.to_owned(), key, reason })?;
        Ok(scheduler)
    }

    fn check(&self) -> std::result::Result<(), (String, String)> {
        let only = |key: &str, found: &str, supported: &[&str]| {
            if supported.contains(&found) {
                return Ok(());
            }
            Err((key.to_owned(), format!("`{found}` is not supported, only {}", supported.join(", "))))
        };
        only("_class_name", &self.class, &[CLASS])?;
        if let Some(key) = unknown_key(&self.others, &WITHOUT_EFFECT) {
            return Err((key.to_owned(), "this library does not know it".to_owned()));
        }
        only("num_train_timesteps", &self.num_train_timesteps.to_string(), &["1000"])?;
        only("beta_schedule", &self.beta_schedule, &["squaredcos_cap_v2"])?;
        only("prediction_type", &self.prediction_type, &["epsilon"])?;
        only("variance_type", &self.variance_type, &["learned_range", "fixed_small", "fixed_small_log"])?;
        only("rescale_betas_zero_snr", &self.rescale_betas_zero_snr.to_string(), &["false"])?;
        only("trained_betas", if self.trained_betas.is_some() { "a list" } else { "null" }, &["null"])?;
        only("timestep_spacing", &self.timestep_spacing, &["leading"])?;
        only("steps_offset", &self.steps_offset.to_string(), &["0"])?;
        if self.clip_sample && !self.thresholding {
            only("clip_sample_range", &self.clip_sample_range.to_string(), &["1"])?;
        }
        Ok(())
    }

    /// Whether the network says how much noise a step adds.
    pub(super) fn learns_variance(&self) -> bool {
        self.variance_type == "learned_range"
    }

    /// The published sampler: ancestral, with the number of steps and the strength of guidance that diffusers' pipelines take
    /// by themselves.
    pub(super) fn settings(&self, stage: PublishedStage) -> SamplerSettings {
        let variance = if self.learns_variance() { Variance::Learned } else { Variance::FixedSmall };
        let (steps, scale) = match stage {
            PublishedStage::Base => (100, 7.0),
            PublishedStage::SuperResolution => (50, 4.0),
        };
        let thresholding = if self.thresholding {
            Thresholding::Dynamic { percentile: self.dynamic_thresholding_ratio, cap: Some(self.sample_max_value) }
        } else if self.clip_sample {
            Thresholding::Static
        } else {
            Thresholding::None
        };
        let guidance = Guidance { thresholding, ..Guidance::new(scale) };
        SamplerSettings::new(Solver::Ddpm(variance), steps, Schedule::Leading, guidance)
    }
}
