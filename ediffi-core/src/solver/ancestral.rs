//! Euler's rule with noise that is drawn anew in every step.

use super::evaluated::{Evaluated, Next, combine, noise_like};
use crate::Result;
use crate::noise::NoiseSource;

/// Euler's step to a lower noise level than the next one, and noise that makes up the difference: the split by which a step has the variance
/// of DDPM's (k-diffusion's `get_ancestral_step` with eta 1; diffusers' `EulerAncestralDiscreteScheduler`).
pub(super) fn advance(evaluated: &Evaluated<'_>, noise: &mut dyn NoiseSource) -> Result<Next> {
    let &Evaluated { x, t, t_next, .. } = evaluated;
    let up = (t_next.powi(2) * (t.powi(2) - t_next.powi(2)) / t.powi(2)).max(0.0).sqrt();
    let down = (t_next.powi(2) - up.powi(2)).max(0.0).sqrt();
    let d = evaluated.slope()?;
    Ok(Next::Reached(combine((1.0, x), &[(down - t, &d), (up, &noise_like(x, noise)?)])?))
}
