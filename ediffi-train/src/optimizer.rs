//! AdamW (Loshchilov & Hutter 2019) over f32 master weights, with warm-up and gradient clipping.
//!
//! libtorch's own optimizer cannot hand out its state through `tch`, and a training that resumes needs it.

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Settings of AdamW. The defaults are eDiff-I's (table 7), warm-up and clipping those of NVIDIA's open relative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Decay of the first and second moment.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices and kernels; vectors (biases, gains) do not decay.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises linearly from zero.
    pub warm_up: u64,
    /// Steps over which the learning rate falls along a half cosine to a tenth; `None` keeps it.
    pub decay_steps: Option<u64>,
    /// Largest norm of all gradients together.
    pub clip: f64,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            weight_decay: 0.01,
            warm_up: 10_000,
            decay_steps: None,
            clip: 1.0,
        }
    }
}

impl AdamWSettings {
    /// Learning rate of step `step`, counted from 0.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        let warm = ((step + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        let decay = self.decay_steps.map_or(1.0, |steps| {
            let done = (step as f64 / steps.max(1) as f64).min(1.0);
            0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
        });
        self.learning_rate * warm * decay
    }
}

/// The moments of AdamW for a list of parameters.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    pub(crate) first: Vec<Tensor>,
    pub(crate) second: Vec<Tensor>,
}

impl AdamW {
    /// Moments at zero.
    ///
    /// # Errors
    /// A device without room.
    pub fn new(settings: AdamWSettings, parameters: &[(String, Tensor)]) -> Result<Self> {
        let zeros = || -> Result<Vec<Tensor>> {
            parameters.iter().map(|(_, p)| Ok(p.f_detach()?.f_zeros_like()?)).collect()
        };
        Ok(Self { settings, first: zeros()?, second: zeros()? })
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &AdamWSettings {
        &self.settings
    }

    /// One step, number `step` from 0, with the gradients accumulated in `parameters` divided by `accumulated`; clears
    /// them. Returns the norm of the gradients before clipping.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the norm is not finite; the weights are left as they were.
    pub fn step(&mut self, parameters: &[(String, Tensor)], step: u64, accumulated: f64) -> Result<f64> {
        let _no_grad = tch::no_grad_guard();
        let mut gradients = Vec::with_capacity(parameters.len());
        let mut squares = Vec::with_capacity(parameters.len());
        for (_, parameter) in parameters {
            let gradient = parameter.f_grad()?;
            if gradient.defined() {
                squares.push(gradient.f_square()?.f_sum(Kind::Float)?);
            }
            gradients.push(gradient);
        }
        let norm = match squares.is_empty() {
            true => 0.0,
            false => Tensor::f_stack(&squares, 0)?.f_sum(Kind::Double)?.f_sqrt()?.f_double_value(&[])? / accumulated,
        };
        if !norm.is_finite() {
            return Err(Error::Diverged { step, what: "norm of the gradients", value: norm });
        }
        let scale = (self.settings.clip / norm.max(1e-12)).min(1.0) / accumulated;
        let rate = self.settings.rate(step);
        let (beta1, beta2) = self.settings.betas;
        let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - beta1.powi(t), 1.0 - beta2.powi(t));
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        for (((_, parameter), gradient), (first, second)) in parameters.iter().zip(&gradients).zip(moments) {
            if !gradient.defined() {
                continue;
            }
            let mut parameter = parameter.shallow_clone();
            let gradient = gradient.f_mul_scalar(scale)?;
            let _ = first.f_lerp_(&gradient, 1.0 - beta1)?;
            let _ = second.f_mul_scalar_(beta2)?;
            let _ = second.f_addcmul_(&gradient, &(gradient.f_mul_scalar(1.0 - beta2)?))?;
            if parameter.dim() > 1 {
                let _ = parameter.f_mul_scalar_(1.0 - rate * self.settings.weight_decay)?;
            }
            let denominator = second.f_sqrt()?.f_div_scalar_(bias2.sqrt())?.f_add_scalar_(self.settings.epsilon)?;
            let _ = parameter.f_addcdiv_(&first.f_mul_scalar(-rate / bias1)?, &denominator)?;
        }
        for (_, parameter) in parameters {
            let mut gradient = parameter.f_grad()?;
            if gradient.defined() {
                let _ = gradient.f_zero_()?;
            }
        }
        Ok(norm)
    }
}
