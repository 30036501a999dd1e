//! Solvers: integration rules for the probability-flow equation `dx/dsigma = (x - D(x; sigma)) / sigma`.
//!
//! A solver is a function of a denoiser, a start and a schedule; it sees nothing but `D(x; sigma)`. Each lives in a
//! file of its own, in the order and the letters of its paper. (In EDM's variables the equation is that of eDiff-I,
//! section 3, and the exponential integrators of DEIS become ordinary ones: their factor `Psi` is 1.)
//!
//! # The last step
//!
//! All solvers end alike, with `x <- D(x; sigma)` at the lowest positive sigma of the schedule. If the schedule ends in
//! 0, this is its last step: Euler's rule from sigma to 0 gives exactly that. If it ends above 0, it follows the last
//! step. So a schedule with M positive sigmas makes M - 1 steps of the solver's rule and one denoising: M steps in all,
//! which is what [`Step::steps`] counts and what a [`Plan`](crate::plan::Plan) lists.
//!
//! # Example
//!
//! ```
//! use ediffi_core::{denoiser, schedule, seed::{Noise, NoiseSource}, solver::Solver};
//!
//! // The data is a single grey image, so the perfect denoiser always answers with it.
//! let mut grey = denoiser::from_fn(|x, _sigma| Ok(x.f_full_like(0.5)?));
//! let sigmas = schedule::karras(5, 0.002, 80.0, 7.0)?;
//! let mut noise = Noise::new(&[7], 0);
//! let x = noise.normal(&[1, 3, 8, 8])? * sigmas[0];
//! let image = Solver::DpmPp2M.solve(&mut grey, x, &sigmas, &mut noise, &mut ())?;
//! assert_eq!(f64::try_from(image.mean(tch::Kind::Float))?, 0.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ddpm;
mod dpmpp;
mod euler;
mod heun;
mod kutta3;
mod name;
mod observer;
mod run;
mod tab_deis;

pub use ddpm::Variance;
pub use heun::Churn;
pub use observer::{Step, StepObserver};

use tch::Tensor;

use crate::denoiser::{Denoiser, is_finite, state_kind};
use crate::seed::NoiseSource;
use crate::{Error, Result, schedule};
use run::Run;

/// An integration rule.
///
/// By name, in JSON and by [`FromStr`](std::str::FromStr): `euler`, `heun`, `kutta-3`, `tab-deis-1`, `tab-deis-2`,
/// `tab-deis-3`, `dpmpp-2m`, `dpmpp-3m`, `ddpm`, `ddpm-fixed-small`. Heun's churn is written in JSON as `{"heun": {"s_churn": 40, ..}}`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Solver {
    /// Euler's rule, which is DDIM. Order 1.
    Euler,
    /// EDM's sampler (Karras et al. 2022, algorithm 2): Heun's rule, with optional churn. Order 2, two evaluations a
    /// step.
    Heun(Churn),
    /// Kutta's third-order rule, eDiff-I's own (appendix, table 7: "3-kutta"). Order 3, three evaluations a step.
    Kutta3,
    /// DEIS (Zhang and Chen 2022): time Adams-Bashforth with a polynomial of degree `order`, 1 to 3. One evaluation a
    /// step; order of convergence `order + 1`. The degree grows from 0 over the first steps, which does not show where
    /// sampling starts: far above the spread of the data the slope hardly changes.
    TabDeis {
        /// The degree of the extrapolating polynomial.
        order: u8,
    },
    /// DPM-Solver++(2M) (Lu et al. 2022, algorithm 2). Order 2, one evaluation a step.
    DpmPp2M,
    /// DPM-Solver++(3M): the same with one more point of the past. Order 3, one evaluation a step.
    DpmPp3M,
    /// Ancestral sampling of DDPM (Ho et al. 2020, algorithm 2), which adds new noise in every step but the last: the
    /// published sampler of DeepFloyd IF. It goes along timesteps ([`crate::timesteps`]), those of the schedules
    /// `leading` and `preset`, and starts from a state of unit variance in DDPM's view (see [`start`](Self::start)).
    Ddpm(Variance),
}

impl Solver {
    /// Checks the parameters.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSolver`] for a t-AB-DEIS order other than 1, 2 or 3, and for impossible churn.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::TabDeis { order: 1..=3 } => Ok(()),
            Self::TabDeis { order } => {
                Err(Error::InvalidSolver { reason: format!("the order of t-AB-DEIS is 1, 2 or 3, not {order}") })
            }
            Self::Heun(churn) => churn.validate(),
            _ => Ok(()),
        }
    }

    /// How many evaluations of the denoiser [`solve`](Self::solve) makes for a schedule.
    #[must_use]
    pub fn evaluations(&self, sigmas: &[f64]) -> usize {
        let per_step = match self {
            Self::Heun(_) => 2,
            Self::Kutta3 => 3,
            _ => 1,
        };
        match sigmas.iter().filter(|sigma| **sigma > 0.0).count() {
            0 => 0,
            positive => per_step * (positive - 1) + 1,
        }
    }

    /// The standard deviation of what [`solve`](Self::solve) starts from: `sigma`, the first noise level, for all but DDPM,
    /// which takes its first state for an image and noise of variance 1 together.
    #[must_use]
    pub fn start(&self, sigma: f64) -> f64 {
        match self {
            Self::Ddpm(_) => ddpm::norm(sigma),
            _ => sigma,
        }
    }

    /// Carries `x` from the noise level `sigmas[0]` to a clean image.
    ///
    /// `sigmas` descends strictly and is positive, except that it may end in 0. `noise` is drawn from by churn and by DDPM.
    /// Gradients are off. All arithmetic is in f32 (in f64 if `x` is f64), whatever the denoiser computes in.
    ///
    /// # Shapes
    ///
    /// `x`: `[n, channels, height, width]`, noise times [`start`](Self::start)`(sigmas[0])`; the result has the same shape and
    /// device.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if `observer` says so, before the next evaluation; [`Error::InvalidSigmas`] or
    /// [`Error::InvalidSchedule`]; [`Error::InvalidSolver`]; [`Error::NotFinite`] for `x` and
    /// [`Error::DenoisedNotFinite`] for an estimate that holds a NaN or an infinity; [`Error::DenoisedShape`]; the
    /// errors of `denoiser` and `noise`.
    pub fn solve(
        &self,
        denoiser: &mut dyn Denoiser,
        x: Tensor,
        sigmas: &[f64],
        noise: &mut dyn NoiseSource,
        observer: &mut dyn StepObserver,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        self.validate()?;
        schedule::validate(sigmas)?;
        let x = x.f_to_kind(state_kind(&x)?)?;
        if !is_finite(&x)? {
            return Err(Error::NotFinite { what: "the solver's start".to_owned() });
        }
        let mut run = Run::new(denoiser, sigmas, noise, observer);
        match self {
            Self::Euler => euler::euler(&mut run, x),
            Self::Heun(churn) => heun::heun(&mut run, x, churn),
            Self::Kutta3 => kutta3::kutta3(&mut run, x),
            Self::TabDeis { order } => tab_deis::tab_deis(&mut run, x, (*order).into()),
            Self::DpmPp2M => dpmpp::dpmpp_2m(&mut run, x),
            Self::DpmPp3M => dpmpp::dpmpp_3m(&mut run, x),
            Self::Ddpm(variance) => ddpm::ddpm(&mut run, x, *variance),
        }
    }
}
