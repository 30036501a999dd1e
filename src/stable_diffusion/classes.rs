//! The classes of diffusers' samplers that this library has, and what their settings may say.

use ediffi_core::solver::{Churn, Solver, Variance};
use ediffi_core::timesteps::Sampler;
use serde_json::{Value, json};

/// A class of diffusers' samplers.
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) solver: Solver,
    pub(super) sampler: Sampler,
    /// `timestep_spacing` where the file names none.
    pub(super) spacing: &'static str,
    /// `beta_start` and `beta_end` where the file names none.
    pub(super) betas: [f64; 2],
    /// Whether `use_karras_sigmas` is a setting of it.
    pub(super) karras: bool,
    /// Whether it clips where the file does not say, if `clip_sample` is a setting of it: that would cut latents.
    pub(super) clips: Option<bool>,
    /// `set_alpha_to_one` where the file does not say, if it is one.
    pub(super) ends_at_one: Option<bool>,
    /// Settings with one value that is followed.
    pub(super) fixed: &'static [(&'static str, Only)],
}

/// The value of a setting that is followed, with which the file may also leave the setting out.
#[derive(Clone, Copy)]
pub(super) enum Only {
    No,
    Nothing,
    Two,
    Text(&'static str),
    /// The file has to say so: the default is the other.
    Yes,
}

impl Only {
    pub(super) fn json(self) -> Value {
        match self {
            Self::No => json!(false),
            Self::Nothing => Value::Null,
            Self::Two => json!(2),
            Self::Text(text) => json!(text),
            Self::Yes => json!(true),
        }
    }

    /// Whether a file that does not say has another value.
    pub(super) fn has_to_be_said(self) -> bool {
        matches!(self, Self::Yes)
    }
}

const BETAS: [f64; 2] = [0.0001, 0.02];
const ZERO_SNR: (&str, Only) = ("rescale_betas_zero_snr", Only::No);
const THRESHOLDING: (&str, Only) = ("thresholding", Only::No);
const EXPONENTIAL: (&str, Only) = ("use_exponential_sigmas", Only::No);
const BETA_GRID: (&str, Only) = ("use_beta_sigmas", Only::No);
const FINAL: (&str, Only) = ("final_sigmas_type", Only::Text("zero"));

/// Every class that is opened. LMS ends in another way than the solvers here, DEIS extrapolates in the logarithm of sigma, and UniPC, the
/// single-step and stochastic forms of DPM-Solver, and those of distilled models are not here at all.
pub(super) const CLASSES: [Class; 7] = [
    Class {
        name: "DDIMScheduler",
        solver: Solver::Euler,
        sampler: Sampler::Ddim,
        spacing: "leading",
        betas: BETAS,
        karras: false,
        clips: Some(true),
        ends_at_one: Some(true),
        fixed: &[ZERO_SNR, THRESHOLDING],
    },
    Class {
        name: "PNDMScheduler",
        solver: Solver::Plms,
        sampler: Sampler::Ddim,
        spacing: "leading",
        betas: BETAS,
        karras: false,
        clips: None,
        ends_at_one: Some(false),
        fixed: &[("skip_prk_steps", Only::Yes)],
    },
    Class {
        name: "DDPMScheduler",
        solver: Solver::Ddpm(Variance::FixedSmall),
        sampler: Sampler::Ddim,
        spacing: "leading",
        betas: BETAS,
        karras: false,
        clips: Some(true),
        ends_at_one: None,
        fixed: &[ZERO_SNR, THRESHOLDING, ("variance_type", Only::Text("fixed_small"))],
    },
    Class {
        name: "EulerDiscreteScheduler",
        solver: Solver::Euler,
        sampler: Sampler::Euler,
        spacing: "linspace",
        betas: BETAS,
        karras: true,
        clips: None,
        ends_at_one: None,
        fixed: &[
            ZERO_SNR,
            EXPONENTIAL,
            BETA_GRID,
            FINAL,
            ("interpolation_type", Only::Text("linear")),
            ("timestep_type", Only::Text("discrete")),
            ("sigma_min", Only::Nothing),
            ("sigma_max", Only::Nothing),
        ],
    },
    Class {
        name: "EulerAncestralDiscreteScheduler",
        solver: Solver::EulerAncestral,
        sampler: Sampler::Euler,
        spacing: "linspace",
        betas: BETAS,
        karras: false,
        clips: None,
        ends_at_one: None,
        fixed: &[ZERO_SNR],
    },
    Class {
        name: "HeunDiscreteScheduler",
        solver: Solver::Heun(Churn::NONE),
        sampler: Sampler::Euler,
        spacing: "linspace",
        betas: [0.00085, 0.012],
        karras: true,
        clips: Some(false),
        ends_at_one: None,
        fixed: &[EXPONENTIAL, BETA_GRID],
    },
    Class {
        name: "DPMSolverMultistepScheduler",
        solver: Solver::DpmPp2M,
        sampler: Sampler::DpmSolver,
        spacing: "linspace",
        betas: BETAS,
        karras: true,
        clips: None,
        ends_at_one: None,
        fixed: &[
            ZERO_SNR,
            THRESHOLDING,
            EXPONENTIAL,
            BETA_GRID,
            FINAL,
            ("algorithm_type", Only::Text("dpmsolver++")),
            ("solver_order", Only::Two),
            ("solver_type", Only::Text("midpoint")),
            ("use_lu_lambdas", Only::No),
            ("use_flow_sigmas", Only::No),
            ("use_dynamic_shifting", Only::No),
            ("variance_type", Only::Nothing),
        ],
    },
];
