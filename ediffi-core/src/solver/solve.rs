//! The choice of a solver, and what all have in common.

use tch::Tensor;

use super::ddpm::{Ddpm, Variance, norm};
use super::dpmpp::{DpmPp2M, DpmPp3M};
use super::dpmpp_sde::{DpmPp2MSde, FreshNoise};
use super::heun::{Churn, Heun};
use super::kutta3::Kutta3;
use super::observer::StepObserver;
use super::plms::Plms;
use super::tab_deis::TabDeis;
use super::trajectory::{Rule, Trajectory};
use crate::denoiser::{Denoiser, is_finite, state_kind};
use crate::noise::NoiseSource;
use crate::timesteps::Ends;
use crate::{Error, Result, schedule};

/// An integration rule.
///
/// By name, in JSON and by [`FromStr`](std::str::FromStr): `euler`, `heun`, `kutta-3`, `tab-deis-1`, `tab-deis-2`,
/// `tab-deis-3`, `dpmpp-2m`, `dpmpp-3m`, `dpmpp-2m-sde`, `euler-ancestral`, `plms`, `ddpm`, `ddpm-fixed-small`. Heun's churn is written in JSON as
/// `{"heun": {"s_churn": 40, ..}}`, the noise of `dpmpp-2m-sde` as `{"dpmpp-2m-sde": {"eta": 0.5, ..}}`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Solver {
    /// Euler's rule, which is DDIM (Song et al. 2021). Order 1, one evaluation a step.
    Euler,
    /// EDM's sampler (Karras et al. 2022, algorithm 2): Heun's rule, with optional churn. Order 2, two evaluations a
    /// step.
    Heun(Churn),
    /// Kutta's third-order rule, eDiff-I's own (appendix, table 7: "3-kutta"). Order 3, three evaluations a step.
    Kutta3,
    /// DEIS (Zhang and Chen 2022): time Adams-Bashforth with a polynomial of degree `order`, 1 to 3. One evaluation a
    /// step; order of convergence `order + 1`. The degree grows from 0 over the first steps. That costs no accuracy if
    /// sampling starts far above the spread of the data, where the slope hardly changes.
    TabDeis {
        /// The degree of the extrapolating polynomial.
        order: u8,
    },
    /// DPM-Solver++(2M) (Lu et al. 2022, algorithm 2). Order 2, one evaluation a step.
    DpmPp2M,
    /// DPM-Solver++(3M): the same with one more earlier estimate. Order 3, one evaluation a step.
    DpmPp3M,
    /// DPM-Solver++(2M) of the equation with noise (Lu et al. 2022, appendix B.6). One evaluation a step.
    DpmPp2MSde(FreshNoise),
    /// Euler's rule with new noise in every step ("Euler a" of many programs): the variance of DDPM's steps on any schedule. One evaluation a
    /// step.
    EulerAncestral,
    /// PLMS (Liu et al. 2022; diffusers' `PNDMScheduler`): Adams-Bashforth of order 4 with the weights of even steps, made for schedules of
    /// evenly spaced timesteps. One evaluation a step, and one more in the first.
    Plms,
    /// Ancestral sampling of DDPM (Ho et al. 2020, algorithm 2), which adds new noise in every step but the last. It is
    /// the published sampler of DeepFloyd IF. It visits timesteps only ([`crate::timesteps`]): use the schedules `leading`
    /// and `preset`.
    Ddpm(Variance),
}

impl Solver {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`Error::InvalidSolver`] for a t-AB-DEIS order other than 1, 2 or 3, and for impossible churn or noise.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::TabDeis { order: 1..=3 } => Ok(()),
            Self::TabDeis { order } => {
                Err(Error::InvalidSolver(format!("the order of t-AB-DEIS is 1, 2 or 3, not {order}")))
            }
            Self::Heun(churn) => churn.validate(),
            Self::DpmPp2MSde(fresh) => fresh.validate(),
            _ => Ok(()),
        }
    }

    /// The number of evaluations of the denoiser that a schedule takes.
    #[must_use]
    pub fn evaluations(&self, sigmas: &[f64]) -> usize {
        let per_step = match self {
            Self::Heun(_) => 2,
            Self::Kutta3 => 3,
            _ => 1,
        };
        match sigmas.iter().filter(|sigma| **sigma > 0.0).count() {
            0 => 0,
            positive if *self == Self::Plms => positive + usize::from(positive > 1),
            positive => per_step * (positive - 1) + 1,
        }
    }

    /// The standard deviation of the first state: `sigma`, the first noise level, for all but those whose first state has variance 1 in
    /// DDPM's view.
    fn deviation(&self, sigma: f64, ends: Ends) -> f64 {
        if ends.unit_start || matches!(self, Self::Ddpm(_)) { norm(sigma) } else { sigma }
    }

    /// Starts on the way from `start`, standard normal noise, to a clean image. The solver scales it to the first noise level
    /// itself. [`solve`](Self::solve) goes the whole way.
    ///
    /// `sigmas` descends strictly and is positive, except that it may end in 0. Churn draws more noise from `noise`. All
    /// arithmetic is in f32 (in f64 if `start` is f64), whatever the denoiser computes in.
    ///
    /// # Shapes
    /// `start`: `[n, channels, height, width]`
    ///
    /// # Errors
    /// [`Error::InvalidSigmas`] or [`Error::InvalidSchedule`]; [`Error::InvalidSolver`]; [`Error::NotFinite`] for a `start` that
    /// holds a NaN or an infinity; the errors of `noise`.
    pub fn start(&self, start: Tensor, sigmas: &[f64], noise: &mut dyn NoiseSource) -> Result<Trajectory> {
        self.start_between(start, sigmas, Ends::default(), noise)
    }

    /// As [`start`](Self::start) with other ends. Where the last step goes to a noise level above 0, no solver denoises there.
    ///
    /// # Shapes
    /// `start`: `[n, channels, height, width]`
    ///
    /// # Errors
    /// As [`start`](Self::start), and [`Error::InvalidSchedule`] for an end that is not below the schedule.
    pub fn start_between(
        &self,
        start: Tensor,
        sigmas: &[f64],
        ends: Ends,
        noise: &mut dyn NoiseSource,
    ) -> Result<Trajectory> {
        let _no_grad = tch::no_grad_guard();
        let deviation = self.deviation(sigmas.first().copied().unwrap_or_default(), ends);
        self.begin(finite(&start)?.f_mul_scalar(deviation)?, sigmas, ends, noise)
    }

    /// As [`start_between`](Self::start_between), but on the way from `picture`, to which noise of the first level is added: image to image (Meng et
    /// al. 2022, `SDEdit`).
    ///
    /// # Shapes
    /// `picture`, `start`: `[n, channels, height, width]`
    ///
    /// # Errors
    /// As [`start`](Self::start), also for a picture that holds a NaN or an infinity.
    pub fn start_from(
        &self,
        picture: &Tensor,
        start: Tensor,
        sigmas: &[f64],
        ends: Ends,
        noise: &mut dyn NoiseSource,
    ) -> Result<Trajectory> {
        let _no_grad = tch::no_grad_guard();
        let sigma = sigmas.first().copied().unwrap_or_default();
        self.begin(finite(picture)?.f_add(&finite(&start)?.f_mul_scalar(sigma)?)?, sigmas, ends, noise)
    }

    /// As [`start_between`](Self::start_between), but from where another solver has come: from its state [`x`](Trajectory::x) at the first of
    /// `sigmas`. Nothing is remembered of the steps before.
    ///
    /// # Shapes
    /// `x`: `[n, channels, height, width]`
    ///
    /// # Errors
    /// As [`start_between`](Self::start_between).
    pub fn resume(&self, x: &Tensor, sigmas: &[f64], ends: Ends, noise: &mut dyn NoiseSource) -> Result<Trajectory> {
        let _no_grad = tch::no_grad_guard();
        self.begin(finite(x)?, sigmas, ends, noise)
    }

    /// On the way from `x` at the first of `sigmas`.
    fn begin(&self, x: Tensor, sigmas: &[f64], ends: Ends, noise: &mut dyn NoiseSource) -> Result<Trajectory> {
        self.validate()?;
        schedule::validate(sigmas)?;
        let sigmas = match sigmas {
            [positive @ .., 0.0] => positive,
            all => all,
        };
        let lowest = sigmas.last().copied().unwrap_or_default();
        if let Some(last) = ends.last.filter(|last| !(*last > 0.0 && *last < lowest)) {
            return Err(Error::InvalidSchedule(format!(
                "it cannot end at sigma {last}: the last step starts at {lowest}"
            )));
        }
        let rule = match *self {
            Self::Euler => Rule::Euler,
            Self::Heun(churn) => Rule::Heun(Heun::new(churn, sigmas.len())),
            Self::Kutta3 => Rule::Kutta3(Kutta3::default()),
            Self::TabDeis { order } => Rule::TabDeis(TabDeis::new(order.into())),
            Self::DpmPp2M => Rule::DpmPp2M(DpmPp2M::default()),
            Self::DpmPp3M => Rule::DpmPp3M(DpmPp3M::default()),
            Self::DpmPp2MSde(fresh) => Rule::DpmPp2MSde(DpmPp2MSde::new(fresh)),
            Self::EulerAncestral => Rule::EulerAncestral,
            Self::Plms => Rule::Plms(Plms::default()),
            Self::Ddpm(variance) => Rule::Ddpm(Ddpm::new(variance, sigmas)?),
        };
        Trajectory::new(rule, x, sigmas, ends, noise)
    }

    /// Makes a clean image of `start`: goes the whole way that [`start`](Self::start) begins. Gradients are off.
    ///
    /// # Shapes
    /// `start`: `[n, channels, height, width]`; the result has the same shape and device.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `observer` says so, before the next evaluation; those of [`start`](Self::start), of
    /// [`Trajectory::advance`] and of `denoiser`.
    pub fn solve(
        &self,
        denoiser: &mut dyn Denoiser,
        start: Tensor,
        sigmas: &[f64],
        noise: &mut dyn NoiseSource,
        observer: &mut dyn StepObserver,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let mut trajectory = self.start(start, sigmas, noise)?;
        while !trajectory.is_finished() {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            let estimate = denoiser.estimate(trajectory.x(), trajectory.sigma())?;
            let step = trajectory.advance(estimate, noise)?;
            if step.is_some_and(|step| observer.step(&step).is_break()) {
                return Err(Error::Cancelled);
            }
        }
        Ok(trajectory.x().shallow_clone())
    }
}

/// The start of a solver in the precision that it computes in.
fn finite(start: &Tensor) -> Result<Tensor> {
    let start = start.f_to_kind(state_kind(start)?)?;
    if is_finite(&start)? { Ok(start) } else { Err(Error::NotFinite("the solver's start".to_owned())) }
}
