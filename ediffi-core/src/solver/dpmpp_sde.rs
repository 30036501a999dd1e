//! DPM-Solver++(2M) of the stochastic equation.

use serde::{Deserialize, Serialize};

use super::evaluated::{Evaluated, Kept, Next, combine, noise_like};
use crate::noise::NoiseSource;
use crate::{Error, Result};

/// How much noise a stochastic solver takes away beyond the equation without noise, and puts in anew.
///
/// What the network got wrong in earlier steps is washed out with it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreshNoise {
    /// 0 for the probability-flow equation, which adds none; 1 for the reverse of the diffusion itself.
    pub eta: f64,
    /// The standard deviation of the noise that is added. A value slightly above 1 makes up for detail that the denoiser removes.
    pub s_noise: f64,
}

impl Default for FreshNoise {
    /// The reverse of the diffusion.
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

impl FreshNoise {
    pub(super) fn validate(&self) -> Result<()> {
        let Self { eta, s_noise } = *self;
        if [eta, s_noise].iter().all(|number| (0.0..=100.0).contains(number)) {
            return Ok(());
        }
        Err(Error::InvalidSolver(format!("eta and s_noise have to be from 0 to 100: {self:?}")))
    }
}

/// SDE-DPM-Solver++(2M) (Lu et al. 2022, appendix B.6), with `eta` before the noise term of the equation.
///
/// With `lambda = -ln(sigma)`, a step from `s` to `t` has `h = lambda_t - lambda_s`. Where the equation without noise has `h`, this
/// one has `(1 + eta) h`:
///
/// `x_t = (t / s) exp(-eta h) x + (1 - exp(-(1 + eta) h)) (D_0 + D_1 / 2) + t sqrt(1 - exp(-2 eta h)) n`,
///
/// where `D_1 = (D_0 - D_-1) / r_0` and `r_0` is the `h` of the step before over this one's.
#[derive(Debug, Clone)]
pub(super) struct DpmPp2MSde {
    fresh: FreshNoise,
    /// The `h` of the step before, and the estimate D that it began with.
    past: Option<(f64, Kept)>,
}

impl DpmPp2MSde {
    pub(super) fn new(fresh: FreshNoise) -> Self {
        Self { fresh, past: None }
    }

    pub(super) fn advance(&mut self, evaluated: &Evaluated<'_>, noise: &mut dyn NoiseSource) -> Result<Next> {
        let &Evaluated { x, t: s, t_next: t, .. } = evaluated;
        let d_0 = &evaluated.estimate.denoised;
        let FreshNoise { eta, s_noise } = self.fresh;
        let h = (s / t).ln();
        let of_x = t / s * (-eta * h).exp();
        let of_d = -(-(1.0 + eta) * h).exp_m1();
        let of_noise = t * (-(-2.0 * eta * h).exp_m1()).sqrt() * s_noise;
        let of_d_1 = self.past.as_ref().map_or(0.0, |(h_before, _)| 0.5 * of_d * h / h_before);
        let mut x_t = combine((of_x, x), &[(of_d + of_d_1, d_0)])?;
        if let Some((_, d_before)) = &self.past {
            x_t = combine((1.0, &x_t), &[(-of_d_1, d_before)])?;
        }
        if of_noise > 0.0 {
            x_t = combine((1.0, &x_t), &[(of_noise, &noise_like(x, noise)?)])?;
        }
        self.past = Some((h, d_0.into()));
        Ok(Next::Reached(x_t))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use serde::Deserialize;
    use tch::{Kind, Tensor};

    use super::*;
    use crate::denoiser::from_fn;
    use crate::schedule::karras;
    use crate::seed::Noise;
    use crate::solver::Solver;

    fn sde(eta: f64) -> Solver {
        Solver::DpmPp2MSde(FreshNoise { eta, ..FreshNoise::default() })
    }

    #[derive(Deserialize)]
    struct Recorded {
        sigmas: Vec<f64>,
        start: Vec<f64>,
        noises: VecDeque<Vec<f64>>,
        states: VecDeque<Vec<f64>>,
    }

    struct Given(VecDeque<Vec<f64>>);

    impl NoiseSource for Given {
        fn normal(&mut self, shape: &[i64]) -> Result<Tensor> {
            Ok(Tensor::from_slice(&self.0.pop_front().unwrap()).reshape(shape))
        }
    }

    /// Every state on the way, for an estimate in closed form, with the noise that diffusers drew.
    #[test]
    fn states_are_those_of_diffusers() {
        let recorded = include_str!("../../tests/fixtures/solvers/dpmpp-2m-sde.json");
        let Recorded { sigmas, start, noises, mut states } = serde_json::from_str(recorded).unwrap();
        let start = Tensor::from_slice(&start).reshape([1, 1, 2, 4]);
        let mut noise = Given(noises);
        let mut trajectory = sde(1.0).start(start, &sigmas, &mut noise).unwrap();
        while !trajectory.is_finished() {
            let (x, sigma) = (trajectory.x(), trajectory.sigma());
            let denoised = (x / (1.0 + sigma)).tanh();
            let _ = trajectory.advance(denoised.into(), &mut noise).unwrap();
            let expected = Tensor::from_slice(&states.pop_front().unwrap()).reshape([1, 1, 2, 4]);
            let off = (trajectory.x() - &expected).abs().max() / expected.abs().max();
            assert!(off.double_value(&[]) < 1e-6, "after sigma {sigma}: {off}");
        }
        assert!(states.is_empty());
    }

    #[test]
    fn without_fresh_noise_it_is_the_equation_without_noise() {
        let sigmas = karras(12, 0.01, 50.0, 7.0).unwrap();
        let solve = |solver: Solver| {
            let mut denoiser = from_fn(|x: &Tensor, sigma: f64| Ok((x / (1.0 + sigma)).tanh()));
            let start = Noise::new(&[1], 0).normal(&[1, 3, 4, 4]).unwrap().to_kind(Kind::Double);
            solver.solve(&mut denoiser, start, &sigmas, &mut Given(VecDeque::new()), &mut ()).unwrap()
        };
        assert!((solve(sde(0.0)) - solve(Solver::DpmPp2M)).abs().max().double_value(&[]) < 1e-12);
    }

    /// For data that is one point, every state has the noise of its level, whatever eta is.
    #[test]
    fn states_have_the_noise_of_their_level() {
        for eta in [0.3, 1.0, 2.0] {
            let sigmas = karras(8, 0.05, 20.0, 7.0).unwrap();
            let mut noise = Noise::new(&[5], 0);
            let point = 0.25;
            // The solver multiplies its start by the first noise level.
            let start = noise.normal(&[1, 1, 100, 100]).unwrap() + point / 20.0;
            let mut trajectory = sde(eta).start(start, &sigmas, &mut noise).unwrap();
            while !trajectory.is_finished() {
                let (x, sigma) = (trajectory.x(), trajectory.sigma());
                let (std, mean) = (x.std(true).double_value(&[]), x.mean(Kind::Float).double_value(&[]));
                // Five standard errors of 10^4 values.
                assert!(
                    (std / sigma - 1.0).abs() < 0.036 && (mean - point).abs() < 0.05 * sigma,
                    "{eta}, {sigma}: {std} {mean}"
                );
                let denoised = x.full_like(point);
                let _ = trajectory.advance(denoised.into(), &mut noise).unwrap();
            }
            assert!((trajectory.x() - point).abs().max().double_value(&[]) < 1e-6);
        }
    }

    /// For normal data of width c, which no two steps alike solve exactly, the pictures have that width in the limit.
    #[test]
    fn normal_data_keep_their_width() {
        let (c, sigmas) = (0.5, karras(200, 0.002, 80.0, 7.0).unwrap());
        let mut noise = Noise::new(&[6], 0);
        let start = noise.normal(&[1, 1, 100, 100]).unwrap();
        let mut denoiser = from_fn(|x: &Tensor, sigma: f64| Ok(x * (c * c / (c * c + sigma * sigma))));
        let end = sde(1.0).solve(&mut denoiser, start, &sigmas, &mut noise, &mut ()).unwrap();
        let width = end.std(true).double_value(&[]);
        assert!((width / c - 1.0).abs() < 0.04, "{width}");
    }

    #[test]
    fn impossible_noise_is_refused() {
        for fresh in [FreshNoise { eta: -1.0, s_noise: 1.0 }, FreshNoise { eta: 1.0, s_noise: f64::NAN }] {
            let error = Solver::DpmPp2MSde(fresh).validate().unwrap_err().to_string();
            assert!(error.contains("eta"), "{error}");
        }
    }
}
