//! The samplers of a folder.

use std::path::Path;

use ediffi_cascade::{PreconditionConfig, SamplerSettings};
use ediffi_core::brief::brief;
use ediffi_core::files::read_json;
use ediffi_core::guidance::{Guidance, Thresholding};
use ediffi_core::precondition::{Epsilon, SampleOnTable};
use ediffi_core::published::unknown_key;
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::{Solver, Variance};
use ediffi_core::timesteps::{NoiseTable, Sampler, Spacing, Timesteps};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The one class of samplers that is read.
const CLASS: &str = "UnCLIPScheduler";

/// Keys that change nothing: where the file came from.
const WITHOUT_EFFECT: [&str; 2] = ["_diffusers_version", "_name_or_path"];

/// The fields of a `scheduler_config.json`; one that is absent has diffusers' default.
#[derive(Deserialize)]
#[serde(default)]
struct Published {
    #[serde(rename = "_class_name")]
    class: String,
    num_train_timesteps: usize,
    variance_type: String,
    clip_sample: bool,
    clip_sample_range: f64,
    prediction_type: String,
    beta_schedule: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            class: CLASS.to_owned(),
            num_train_timesteps: 1000,
            variance_type: "fixed_small_log".to_owned(),
            clip_sample: true,
            clip_sample_range: 1.0,
            prediction_type: "epsilon".to_owned(),
            beta_schedule: "squaredcos_cap_v2".to_owned(),
            others: Map::new(),
        }
    }
}

/// A sampler of a folder: how its network becomes a denoiser, and how that is sampled.
#[derive(Debug, Clone)]
pub(super) struct Scheduler {
    pub(super) precondition: PreconditionConfig,
    pub(super) settings: SamplerSettings,
}

impl Scheduler {
    /// Reads and checks a `scheduler_config.json`. The file says neither `steps` nor the `scale` of guidance: they are what diffusers' pipelines
    /// take by themselves. `predicts_variance`: whether the network says how much noise a step adds.
    pub(super) fn read(path: &Path, steps: usize, scale: f64, predicts_variance: bool) -> Result<Self> {
        let published: Published = read_json(path)?;
        let wrong =
            |(key, reason): (&str, String)| Error::Manifest { path: path.to_owned(), key: key.to_owned(), reason };
        published.check(predicts_variance).map_err(wrong)?;
        Ok(published.convert(steps, scale))
    }
}

impl Published {
    fn check(&self, predicts_variance: bool) -> std::result::Result<(), (&str, String)> {
        if let Some(key) = unknown_key(&self.others, &WITHOUT_EFFECT) {
            return Err((key, "this library does not know it".to_owned()));
        }
        let timesteps = self.num_train_timesteps.to_string();
        let checks: [(&str, &str, &[&str]); 5] = [
            ("_class_name", &self.class, &[CLASS]),
            ("num_train_timesteps", &timesteps, &["1000"]),
            ("beta_schedule", &self.beta_schedule, &["squaredcos_cap_v2"]),
            ("prediction_type", &self.prediction_type, &["epsilon", "sample"]),
            ("variance_type", &self.variance_type, &["learned_range", "fixed_small_log"]),
        ];
        for (key, found, supported) in checks {
            if !supported.contains(&found) {
                return Err((key, format!("`{}` is not supported, only {}", brief(found), supported.join(", "))));
            }
        }
        if self.learns_variance() != predicts_variance {
            let network = if predicts_variance { "predicts a variance" } else { "predicts no variance" };
            let reason = format!("`{}` does not fit the network, which {network} (out_channels)", self.variance_type);
            return Err(("variance_type", reason));
        }
        if let Err(error) = (Guidance { thresholding: self.thresholding(), ..Guidance::default() }).validate() {
            return Err(("clip_sample_range", error.to_string()));
        }
        Ok(())
    }

    fn learns_variance(&self) -> bool {
        self.variance_type == "learned_range"
    }

    fn thresholding(&self) -> Thresholding {
        match (self.clip_sample, self.clip_sample_range) {
            (false, _) => Thresholding::None,
            (true, 1.0) => Thresholding::Static,
            (true, bound) => Thresholding::Within { bound },
        }
    }

    fn convert(&self, steps: usize, scale: f64) -> Scheduler {
        let table = NoiseTable::SquaredCosine;
        let precondition = match self.prediction_type.as_str() {
            "sample" => PreconditionConfig::SampleOnTable(SampleOnTable::new(table)),
            _ => PreconditionConfig::Epsilon(Epsilon::new(table)),
        };
        let variance = if self.learns_variance() { Variance::Learned } else { Variance::FixedSmall };
        let (sampler, spacing) = (Sampler::UnClip, Spacing::Linspace);
        let schedule = Schedule::Timesteps(Timesteps { sampler, spacing, karras: false, to_first: false });
        let guidance = Guidance { thresholding: self.thresholding(), ..Guidance::new(scale) };
        Scheduler { precondition, settings: SamplerSettings::new(Solver::Ddpm(variance), steps, schedule, guidance) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: Value, predicts_variance: bool) -> Result<Scheduler> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler_config.json");
        std::fs::write(&path, text.to_string()).unwrap();
        Scheduler::read(&path, 25, 4.0, predicts_variance)
    }

    #[test]
    fn the_published_samplers_are_followed() {
        let prior = read(json!({ "prediction_type": "sample", "clip_sample_range": 5.0 }), false).unwrap();
        assert_eq!(prior.settings.solver, Solver::Ddpm(Variance::FixedSmall));
        assert_eq!(prior.settings.guidance.thresholding, Thresholding::Within { bound: 5.0 });
        assert_eq!((prior.settings.steps, prior.settings.guidance.scale), (25, 4.0));
        assert!(matches!(prior.precondition, PreconditionConfig::SampleOnTable(_)));
        let decoder = read(json!({ "variance_type": "learned_range", "_diffusers_version": "0.11" }), true).unwrap();
        assert_eq!(decoder.settings.solver, Solver::Ddpm(Variance::Learned));
        assert_eq!(decoder.settings.guidance.thresholding, Thresholding::Static);
        assert!(matches!(decoder.precondition, PreconditionConfig::Epsilon(_)));
        let open = read(json!({ "clip_sample": false }), false).unwrap();
        assert_eq!(open.settings.guidance.thresholding, Thresholding::None);
    }

    #[test]
    fn what_is_not_followed_is_named() {
        for (key, value) in [
            ("_class_name", json!("DDPMScheduler")),
            ("num_train_timesteps", json!(500)),
            ("beta_schedule", json!("linear")),
            ("prediction_type", json!("v_prediction")),
            ("variance_type", json!("learned_range")),
            ("variance_type", json!("fixed_large")),
            ("clip_sample_range", json!(0)),
            ("steps_offset", json!(1)),
        ] {
            let error = read(json!({ key: value }), false).unwrap_err();
            assert!(matches!(&error, Error::Manifest { key: named, .. } if named == key), "{key}: {error}");
        }
        let error = read(json!({}), true).unwrap_err().to_string();
        assert!(error.contains("`fixed_small_log` does not fit the network, which predicts a variance"), "{error}");
    }
}
