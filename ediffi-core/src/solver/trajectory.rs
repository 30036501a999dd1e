//! A solver on its way, one evaluation at a time.

use tch::{Device, Tensor};

use super::ancestral;
use super::ddpm::{Ddpm, norm};
use super::dpmpp::{DpmPp2M, DpmPp3M};
use super::dpmpp_sde::DpmPp2MSde;
use super::euler;
use super::evaluated::{Evaluated, Kept, Next};
use super::heun::Heun;
use super::kutta3::Kutta3;
use super::observer::Step;
use super::plms::Plms;
use super::tab_deis::TabDeis;
use crate::denoiser::{Estimate, check_shape, check_sigma};
use crate::noise::NoiseSource;
use crate::timesteps::Ends;
use crate::{Error, Result};

/// A batch of pictures on its way from noise to images, made by [`Solver::start`](super::Solver::start).
///
/// It says what it wants evaluated, [`x`](Self::x) at noise level [`sigma`](Self::sigma), and [`advance`](Self::advance) takes
/// the estimate. Nothing else drives it: it can wait between any two evaluations, beside others, and a clone goes on by itself.
/// A clone shares the storage of all tensors.
///
/// What it remembers is on the device of its start. Between two evaluations that is `x`, the estimate of the last step, and what
/// the rule needs of earlier evaluations: at most five tensors of the size of `x` in all (`tab-deis-3`, and `kutta-3` before the
/// last evaluation of a step).
///
/// ```
/// use ediffi_core::denoiser::{self, Denoiser};
/// use ediffi_core::{noise::NoiseSource, schedule, seed::Noise, solver::Solver};
///
/// let mut grey = denoiser::from_fn(|x, _sigma| Ok(x.f_full_like(0.5)?));
/// let sigmas = schedule::karras(5, 0.002, 80.0, 7.0)?;
/// let mut noise = Noise::new(&[7], 0);
/// let start = noise.normal(&[1, 3, 8, 8])?;
/// let mut trajectory = Solver::Kutta3.start(start, &sigmas, &mut noise)?;
/// let mut steps = 0;
/// while !trajectory.is_finished() {
///     let estimate = grey.estimate(trajectory.x(), trajectory.sigma())?;
///     if let Some(step) = trajectory.advance(estimate, &mut noise)? {
///         steps = step.index + 1;
///     }
/// }
/// assert_eq!((steps, f64::try_from(trajectory.x().mean(tch::Kind::Float))?), (5, 0.5));
/// # Ok::<(), ediffi_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Trajectory {
    rule: Rule,
    /// The positive sigmas of the schedule.
    sigmas: Vec<f64>,
    /// The noise level at which it ends, if not at 0.
    last: Option<f64>,
    /// The number of the step that runs.
    index: usize,
    x: Kept,
    sigma: f64,
    /// Whether the step that runs has been evaluated before.
    within: bool,
    /// The estimate at the start of that step; before its first evaluation, that of the step before.
    denoised: Kept,
    finite: Finite,
}

/// Whether estimates hold numbers only. On a device that works by itself, no answer is read before the last evaluation: reading one makes
/// the host wait for all that it has asked the device for.
#[derive(Debug, Clone)]
struct Finite {
    late: bool,
    /// The answers that have not been read, and the noise levels that were evaluated.
    unread: Vec<(Kept, f64)>,
}

impl Finite {
    fn new(device: Device) -> Self {
        Self { late: device != Device::Cpu, unread: Vec::new() }
    }

    /// Asks about an estimate, and reads the answers if it is the `last` one.
    fn check(&mut self, denoised: &Tensor, sigma: f64, last: bool) -> Result<()> {
        self.unread.push((denoised.f_isfinite()?.f_all()?.into(), sigma));
        if self.late && !last {
            return Ok(());
        }
        for (answer, sigma) in self.unread.drain(..) {
            if !bool::try_from(&*answer)? {
                return Err(Error::DenoisedNotFinite(sigma));
            }
        }
        Ok(())
    }
}

impl Trajectory {
    /// From `x` at the first of `sigmas`, which are positive and descend.
    pub(super) fn new(rule: Rule, x: Tensor, sigmas: &[f64], ends: Ends, noise: &mut dyn NoiseSource) -> Result<Self> {
        let (x, sigma) = rule.begin(x, sigmas.first().copied().unwrap_or(0.0), noise)?;
        let finite = Finite::new(x.device());
        let (x, denoised) = (Kept::from(&x), Kept::from(x));
        Ok(Self { rule, sigmas: sigmas.to_vec(), last: ends.last, index: 0, x, sigma, within: false, denoised, finite })
    }

    /// What is to be evaluated next: the state at the start of a step, or one that the rule needs within the step. In the end
    /// it holds the finished images.
    ///
    /// # Shapes
    /// `[n, channels, height, width]`, as the start
    pub fn x(&self) -> &Tensor {
        &self.x
    }

    /// The noise level of [`x`](Self::x); 0 in the end.
    ///
    /// It never rises from one evaluation to the next, except by churn at the start of a step.
    #[must_use]
    pub fn sigma(&self) -> f64 {
        self.sigma
    }

    /// Whether [`x`](Self::x) holds the finished images.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.sigma == 0.0
    }

    /// Goes on with `estimate`, the denoiser's for [`x`](Self::x) and [`sigma`](Self::sigma). If that was the last evaluation of
    /// a step, this gives the step.
    ///
    /// DPM-Solver++ with noise, churn, Euler's ancestral rule and DDPM draw noise from `noise`.
    ///
    /// # Errors
    /// [`Error::SigmaOutOfRange`] if it is finished, [`Error::DenoisedShape`], and [`Error::DenoisedNotFinite`] for a NaN or an
    /// infinity: these change nothing. On a CUDA device, a NaN or an infinity is an error of the last evaluation, which names the noise
    /// level of the first, so that the host does not wait for each of them. [`Error::InvalidSolver`] for an estimate without the variance that DDPM needs, and the
    /// errors of `noise`: after these it cannot go on.
    pub fn advance(&mut self, estimate: Estimate, noise: &mut dyn NoiseSource) -> Result<Option<Step<'_>>> {
        let _no_grad = tch::no_grad_guard();
        check_sigma(self.sigma)?;
        let denoised = estimate.denoised.f_to_kind(self.x.f_kind()?)?;
        check_shape(&self.x, &denoised, self.sigma)?;
        self.finite.check(&denoised, self.sigma, self.index + 1 >= self.sigmas.len())?;
        if !self.within {
            self.denoised = Kept::from(&denoised);
        }
        let estimate = Estimate { denoised, ..estimate };
        let (x, sigma) = match self.sigmas.get(self.index + 1).copied().or(self.last) {
            Some(t_next) => {
                let evaluated = Evaluated { x: &self.x, t: self.sigma, t_next, estimate: &estimate };
                match self.rule.advance(&evaluated, noise)? {
                    Next::Within(x, sigma) => {
                        (self.x, self.sigma, self.within) = (x.into(), sigma, true);
                        return Ok(None);
                    }
                    Next::Reached(x) if self.index + 1 < self.sigmas.len() => self.rule.begin(x, t_next, noise)?,
                    Next::Reached(x) => (x.f_div_scalar(norm(t_next))?, 0.0),
                }
            }
            None => (estimate.denoised, 0.0),
        };
        let index = self.index;
        (self.x, self.sigma, self.within, self.index) = (x.into(), sigma, false, index + 1);
        let sigma_at = |index| self.sigmas.get(index).copied().unwrap_or(0.0);
        let (sigma, sigma_next, steps) = (sigma_at(index), sigma_at(index + 1), self.sigmas.len());
        Ok(Some(Step { index, steps, sigma, sigma_next, denoised: &self.denoised }))
    }
}

/// What makes a step, and what it remembers.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    Euler,
    Heun(Heun),
    Kutta3(Kutta3),
    TabDeis(TabDeis),
    DpmPp2M(DpmPp2M),
    DpmPp3M(DpmPp3M),
    DpmPp2MSde(DpmPp2MSde),
    EulerAncestral,
    Plms(Plms),
    Ddpm(Ddpm),
}

impl Rule {
    /// Where a step from `x` at noise level `t` is to start.
    fn begin(&self, x: Tensor, t: f64, noise: &mut dyn NoiseSource) -> Result<(Tensor, f64)> {
        match self {
            Self::Heun(heun) => heun.raise(x, t, noise),
            _ => Ok((x, t)),
        }
    }

    fn advance(&mut self, evaluated: &Evaluated<'_>, noise: &mut dyn NoiseSource) -> Result<Next> {
        match self {
            Self::Euler => euler::advance(evaluated),
            Self::Heun(rule) => rule.advance(evaluated),
            Self::Kutta3(rule) => rule.advance(evaluated),
            Self::TabDeis(rule) => rule.advance(evaluated),
            Self::DpmPp2M(rule) => rule.advance(evaluated),
            Self::DpmPp3M(rule) => rule.advance(evaluated),
            Self::DpmPp2MSde(rule) => rule.advance(evaluated, noise),
            Self::EulerAncestral => ancestral::advance(evaluated, noise),
            Self::Plms(rule) => rule.advance(evaluated),
            Self::Ddpm(rule) => rule.advance(evaluated, noise),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Noise;
    use crate::solver::Solver;

    /// Where the answer is late, the error comes with the last evaluation, and names the noise level of the first that went wrong.
    #[test]
    fn a_late_answer_is_not_lost() {
        let sigmas = [10.0, 3.0, 1.0, 0.0];
        for broken in 0..3 {
            for late in [false, true] {
                let mut noise = Noise::new(&[1], 0);
                let start = noise.normal(&[1, 1, 2, 2]).unwrap();
                let mut trajectory = Solver::Euler.start(start, &sigmas, &mut noise).unwrap();
                trajectory.finite.late = late;
                let error = (0..3).find_map(|evaluation| {
                    let denoised = trajectory.x().full_like(if evaluation >= broken { f64::NAN } else { 0.0 });
                    trajectory.advance(denoised.into(), &mut noise).err().map(|error| (evaluation, error))
                });
                let Some((evaluation, Error::DenoisedNotFinite(sigma))) = error else { panic!("{error:?}") };
                assert_eq!((evaluation, sigma), (if late { 2 } else { broken }, sigmas[broken]), "{late}");
            }
        }
    }
}
