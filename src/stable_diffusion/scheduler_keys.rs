//! Reading the keys of a `scheduler_config.json` one by one, so that none is left unread.

use std::path::{Path, PathBuf};

use ediffi_core::brief::brief;
use ediffi_core::files::read_json;
use ediffi_core::published::unknown_key;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Settings of diffusers' samplers, of which each class reads its own: a file that was written for one class and says it is of another has
/// those of both, and diffusers reads over the others. `lower_order_final` and `euler_at_final` change nothing in DPM-Solver with
/// `final_sigmas_type` zero.
const OF_OTHER_CLASSES: [&str; 39] = [
    "algorithm_type",
    "beta_end",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "original_inference_steps",
    "predict_epsilon",
    "predict_x0",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "set_alpha_to_one",
    "shift_terminal",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "thresholding",
    "time_shift_type",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// Keys that say where the file came from.
const WITHOUT_EFFECT: [&str; 2] = ["_diffusers_version", "_name_or_path"];

/// The keys that were not read yet.
pub(super) struct Keys {
    path: PathBuf,
    left: Map<String, Value>,
}

impl Keys {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut left: Map<String, Value> = read_json(path)?;
        left.retain(|_, value| !value.is_null());
        Ok(Self { path: path.to_owned(), left })
    }

    pub(super) fn wrong(&self, key: &str, reason: String) -> Error {
        Error::Manifest { path: self.path.clone(), key: brief(key).into_owned(), reason }
    }

    /// The value of a key, as `understood` has it, or the default.
    fn take<T>(&mut self, key: &str, default: T, kind: &str, understood: impl Fn(&Value) -> Option<T>) -> Result<T> {
        match self.left.remove(key) {
            None => Ok(default),
            Some(value) => {
                understood(&value).ok_or_else(|| self.wrong(key, format!("{} is no {kind}", brief(&value.to_string()))))
            }
        }
    }

    pub(super) fn text(&mut self, key: &str, default: &str) -> Result<String> {
        self.take(key, default.to_owned(), "text", |value| value.as_str().map(|text| brief(text).into_owned()))
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        self.take(key, default, "yes or no", Value::as_bool)
    }

    pub(super) fn number(&mut self, key: &str, default: f64) -> Result<f64> {
        self.take(key, default, "number", Value::as_f64)
    }

    /// A number, which may be minus infinity, as Python writes it. No other text is one.
    pub(super) fn lowest(&mut self, key: &str) -> Result<f64> {
        let number = |value: &Value| value.as_f64().or((value == "-Infinity").then_some(f64::NEG_INFINITY));
        self.take(key, f64::NEG_INFINITY, "number", number)
    }

    pub(super) fn whole(&mut self, key: &str, default: usize) -> Result<usize> {
        let whole = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
        self.take(key, default, "whole number", whole)
    }

    /// Refuses any value of a key but `value`; the file may leave the key out unless it `has_to_be_said`.
    pub(super) fn only(&mut self, key: &str, value: &Value, has_to_be_said: bool) -> Result<()> {
        match self.left.remove(key) {
            None if has_to_be_said => {
                Err(self.wrong(key, format!("the file leaves it out, and only {value} is supported")))
            }
            Some(found) if found != *value => {
                let reason = format!("{} is not supported, only {value}", brief(&found.to_string()));
                Err(self.wrong(key, reason))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a key that is left and that nobody knows.
    pub(super) fn finish(self) -> Result<()> {
        let known = [WITHOUT_EFFECT.as_slice(), &OF_OTHER_CLASSES].concat();
        match unknown_key(&self.left, &known) {
            None => Ok(()),
            Some(key) => Err(self.wrong(key, "this library does not know it".to_owned())),
        }
    }
}
