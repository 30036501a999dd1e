//! Solvers: integration rules for the probability-flow equation `dx/dsigma = (x - D(x; sigma)) / sigma`.
//!
//! A solver is a function of a denoiser, a start and a schedule. It sees nothing but `D(x; sigma)`: [`Solver::solve`] asks for one
//! evaluation after the other. [`Solver::start`] gives the same as a [`Trajectory`], which waits between any two evaluations.
//! Each solver has a file of its own, in the order and the letters of its paper. (The equation is that of eDiff-I, section 3, in EDM's variables. In
//! these, the exponential integrators of DEIS are ordinary ones: their factor `Psi` is 1.)
//!
//! # The last step
//!
//! All solvers end with `x <- D(x; sigma)` at the lowest positive sigma of the schedule. If the schedule ends in 0, this is
//! its last step: Euler's rule from sigma to 0 gives exactly that. If it ends above 0, this follows the last step. So a
//! schedule with M positive sigmas makes M - 1 steps of the solver's rule and one denoising. [`Step::steps`] counts these M
//! steps, and a [`Plan`](crate::plan::Plan) lists them. [`Ends`](crate::timesteps::Ends) are those of published samplers that do otherwise.
//!
//! # Example
//!
//! ```
//! use ediffi_core::{denoiser, noise::NoiseSource, schedule, seed::Noise, solver::Solver};
//!
//! // The data is a single grey image, so the perfect denoiser always answers with it.
//! let mut grey = denoiser::from_fn(|x, _sigma| Ok(x.f_full_like(0.5)?));
//! let sigmas = schedule::karras(5, 0.002, 80.0, 7.0)?;
//! let mut noise = Noise::new(&[7], 0);
//! let start = noise.normal(&[1, 3, 8, 8])?;
//! let image = Solver::DpmPp2M.solve(&mut grey, start, &sigmas, &mut noise, &mut ())?;
//! assert_eq!(f64::try_from(image.mean(tch::Kind::Float))?, 0.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ancestral;
mod ddpm;
mod dpmpp;
mod dpmpp_sde;
mod euler;
mod evaluated;
mod heun;
mod kutta3;
mod name;
mod observer;
mod plms;
mod solve;
mod tab_deis;
mod trajectory;

pub use ddpm::Variance;
pub use dpmpp_sde::FreshNoise;
pub use heun::Churn;
pub use observer::{Step, StepObserver};
pub use solve::Solver;
pub use trajectory::Trajectory;
