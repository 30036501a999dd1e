//! Heun's rule with churn: EDM's sampler.

use std::f64::consts::SQRT_2;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::evaluated::{Evaluated, Kept, Next, combine, noise_like};
use crate::noise::NoiseSource;
use crate::{Error, Result};

/// EDM's churn: before a step, a little new noise is added, and the noise level is raised to match (Karras et al. 2022,
/// section 4 and algorithm 2). It corrects errors of earlier steps. Too much of it washes out detail.
///
/// For ImageNet at 64x64 with 256 steps, EDM uses `s_churn` 40, `s_min` 0.05, `s_max` 50 and `s_noise` 1.003 (table 5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Churn {
    /// How much noise is added over the whole run; 0 is none.
    pub s_churn: f64,
    /// The lowest noise level at which to add it.
    pub s_min: f64,
    /// The highest noise level at which to add it. If JSON leaves it out, there is no limit.
    #[serde(skip_serializing_if = "is_infinite")]
    pub s_max: f64,
    /// The standard deviation of the noise. A value slightly above 1 makes up for detail that the denoiser removes.
    pub s_noise: f64,
}

fn is_infinite(value: &f64) -> bool {
    value.is_infinite()
}

impl Churn {
    /// No churn: the sampler is deterministic.
    pub const NONE: Self = Self { s_churn: 0.0, s_min: 0.0, s_max: f64::INFINITY, s_noise: 1.0 };

    pub(super) fn validate(&self) -> Result<()> {
        let Self { s_churn, s_min, s_max, s_noise } = *self;
        let ranges = (0.0..=1e9).contains(&s_churn) && (0.0..=100.0).contains(&s_noise) && s_min <= s_max;
        if ranges && s_min >= 0.0 {
            return Ok(());
        }
        let reason =
            format!("s_churn has to be from 0 to 1e9, s_noise from 0 to 100, and s_min at most s_max: {self:?}");
        Err(Error::InvalidSolver(reason))
    }
}

impl Default for Churn {
    fn default() -> Self {
        Self::NONE
    }
}

/// EDM, algorithm 2: an Euler step, then the mean of the slopes at both ends.
#[derive(Debug, Clone)]
pub(super) struct Heun {
    churn: Churn,
    steps: usize,
    /// The step that waits for the slope at its end.
    begun: Option<Begun>,
}

#[derive(Debug, Clone)]
struct Begun {
    x_hat: Kept,
    h: f64,
    d: Kept,
}

impl Heun {
    /// The rule for a schedule of so many steps.
    pub(super) fn new(churn: Churn, steps: usize) -> Self {
        Self { churn, steps, begun: None }
    }

    /// Raises `x` from noise level `t` to `t_hat`, and gives both.
    pub(super) fn raise(&self, x: Tensor, t: f64, noise: &mut dyn NoiseSource) -> Result<(Tensor, f64)> {
        let Churn { s_churn, s_min, s_max, s_noise } = self.churn;
        let inside = s_min <= t && t <= s_max;
        let gamma = if inside { (s_churn / self.steps as f64).min(SQRT_2 - 1.0) } else { 0.0 };
        if gamma == 0.0 {
            return Ok((x, t));
        }
        let t_hat = t + gamma * t;
        let epsilon = noise_like(&x, noise)?;
        let added = (t_hat * t_hat - t * t).sqrt() * s_noise;
        Ok((combine((1.0, &x), &[(added, &epsilon)])?, t_hat))
    }

    pub(super) fn advance(&mut self, evaluated: &Evaluated<'_>) -> Result<Next> {
        let slope = Kept::from(evaluated.slope()?);
        match self.begun.take() {
            None => {
                let &Evaluated { x: x_hat, t: t_hat, t_next, .. } = evaluated;
                let (h, d) = (t_next - t_hat, slope);
                let x = combine((1.0, x_hat), &[(h, &d)])?;
                self.begun = Some(Begun { x_hat: x_hat.into(), h, d });
                Ok(Next::Within(x, t_next))
            }
            Some(Begun { x_hat, h, d }) => {
                let d_next = slope;
                Ok(Next::Reached(combine((1.0, &x_hat), &[(0.5 * h, &d), (0.5 * h, &d_next)])?))
            }
        }
    }
}
