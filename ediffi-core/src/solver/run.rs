//! What the solvers share: evaluations with their checks, reports to the observer, sums of tensors.

use tch::Tensor;

use super::observer::{Step, StepObserver};
use crate::denoiser::{Denoiser, Estimate, check_shape, is_finite};
use crate::noise::NoiseSource;
use crate::{Error, Result};

/// One call of [`Solver::solve`](super::Solver::solve).
pub(super) struct Run<'a> {
    denoiser: &'a mut dyn Denoiser,
    noise: &'a mut dyn NoiseSource,
    observer: &'a mut dyn StepObserver,
    /// The positive sigmas of the schedule; [`Run::finish`] makes the step from the last one.
    pub(super) sigmas: &'a [f64],
}

impl<'a> Run<'a> {
    /// `sigmas` is a valid schedule.
    pub(super) fn new(
        denoiser: &'a mut dyn Denoiser,
        sigmas: &'a [f64],
        noise: &'a mut dyn NoiseSource,
        observer: &'a mut dyn StepObserver,
    ) -> Self {
        let sigmas = match sigmas {
            [positive @ .., 0.0] => positive,
            all => all,
        };
        Self { denoiser, noise, observer, sigmas }
    }

    /// `D(x; sigma)`.
    pub(super) fn denoise(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(self.estimate(x, sigma)?.denoised)
    }

    /// `D(x; sigma)`, and the variance if the network predicts one.
    pub(super) fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate> {
        if self.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let Estimate { denoised, variance } = self.denoiser.estimate(x, sigma)?;
        let denoised = denoised.f_to_kind(x.f_kind()?)?;
        check_shape(x, &denoised, sigma)?;
        if is_finite(&denoised)? { Ok(Estimate { denoised, variance }) } else { Err(Error::DenoisedNotFinite(sigma)) }
    }

    /// The slope `d = (x - D(x; sigma)) / sigma` of the equation, and D.
    pub(super) fn slope(&mut self, x: &Tensor, sigma: f64) -> Result<(Tensor, Tensor)> {
        let denoised = self.denoise(x, sigma)?;
        Ok((combine((1.0 / sigma, x), &[(-1.0 / sigma, &denoised)])?, denoised))
    }

    /// Standard normal noise in the shape, kind and place of `x`.
    pub(super) fn noise_like(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(self.noise.normal(&x.size())?.f_to_device(x.device())?.f_to_kind(x.f_kind()?)?)
    }

    /// Reports the end of step `index`.
    pub(super) fn report(&mut self, index: usize, denoised: &Tensor) -> Result<()> {
        let sigma_at = |index| self.sigmas.get(index).copied().unwrap_or(0.0);
        let (sigma, sigma_next, steps) = (sigma_at(index), sigma_at(index + 1), self.sigmas.len());
        let step = Step { index, steps, sigma, sigma_next, denoised };
        if self.observer.step(&step).is_break() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// The last step: `D(x; sigma)`, where `sigma` is the last noise level.
    pub(super) fn finish(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let denoised = self.denoise(x, sigma)?;
        self.report(self.sigmas.len() - 1, &denoised)?;
        Ok(denoised)
    }

    /// The lowest positive sigma.
    pub(super) fn last_sigma(&self) -> f64 {
        self.sigmas.last().copied().unwrap_or(0.0)
    }
}

/// A weighted sum of tensors.
pub(super) fn combine(first: (f64, &Tensor), rest: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut sum = first.1.f_mul_scalar(first.0)?;
    for (weight, tensor) in rest {
        sum = sum.f_add_(&tensor.f_mul_scalar(*weight)?)?;
    }
    Ok(sum)
}
