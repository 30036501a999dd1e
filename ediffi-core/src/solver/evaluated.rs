//! What the solvers share: an evaluation as a rule sees it, what the rule answers, what it remembers, sums of tensors.

use std::fmt;
use std::ops::Deref;

use tch::Tensor;

use crate::Result;
use crate::denoiser::Estimate;
use crate::noise::NoiseSource;

/// An evaluation that is done, and where its step leads.
pub(super) struct Evaluated<'a> {
    pub(super) x: &'a Tensor,
    /// The noise level of `x`.
    pub(super) t: f64,
    /// The noise level at the end of the step.
    pub(super) t_next: f64,
    pub(super) estimate: &'a Estimate,
}

impl Evaluated<'_> {
    /// The slope `d = (x - D(x; t)) / t` of the equation.
    pub(super) fn slope(&self) -> Result<Tensor> {
        combine((1.0 / self.t, self.x), &[(-1.0 / self.t, &self.estimate.denoised)])
    }
}

/// What a rule answers to an evaluation.
pub(super) enum Next {
    /// The step needs one more, at this state and noise level.
    Within(Tensor, f64),
    /// The step is done: the state at its end.
    Reached(Tensor),
}

/// A tensor that a trajectory remembers. It is never changed in place, so a copy shares storage.
pub(super) struct Kept(Tensor);

impl From<Tensor> for Kept {
    fn from(x: Tensor) -> Self {
        Self(x)
    }
}

impl From<&Tensor> for Kept {
    fn from(x: &Tensor) -> Self {
        Self(x.shallow_clone())
    }
}

impl Clone for Kept {
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

impl Deref for Kept {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

/// The tensor's own form would copy its values from the device.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.size())
    }
}

/// Standard normal noise in the shape, kind and place of `x`.
pub(super) fn noise_like(x: &Tensor, noise: &mut dyn NoiseSource) -> Result<Tensor> {
    Ok(noise.normal(&x.size())?.f_to_device(x.device())?.f_to_kind(x.f_kind()?)?)
}

/// A weighted sum of tensors.
pub(super) fn combine(first: (f64, &Tensor), rest: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut sum = first.1.f_mul_scalar(first.0)?;
    for (weight, tensor) in rest {
        sum = sum.f_add_(&tensor.f_mul_scalar(*weight)?)?;
    }
    Ok(sum)
}
