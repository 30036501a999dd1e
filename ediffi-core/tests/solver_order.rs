//! The orders of convergence of the solvers, on data whose denoiser and solution have a closed form.
//!
//! For data `y ~ N(MU, S^2)`, `D(x; sigma) = (S^2 x + sigma^2 MU) / (S^2 + sigma^2)`, and the solution through `x_0` at
//! `sigma_0` is `x(sigma) = MU + (x_0 - MU) sqrt((S^2 + sigma^2) / (S^2 + sigma_0^2))`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::devices;
use ediffi_core::denoiser::{self, Denoiser};
use ediffi_core::noise::NoiseSource;
use ediffi_core::schedule;
use ediffi_core::seed::Noise;
use ediffi_core::solver::{Churn, Solver};
use tch::{Device, Kind, Tensor};

const MU: f64 = 0.3;
const S: f64 = 0.5;
const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

fn gaussian() -> impl Denoiser {
    denoiser::from_fn(|x, sigma| {
        let all = S * S + sigma * sigma;
        Ok(x.f_mul_scalar(S * S / all)?.f_add_scalar(MU * sigma * sigma / all)?)
    })
}

fn solve(solver: Solver, x0: f64, sigmas: &[f64], (kind, device): (Kind, Device)) -> f64 {
    let start = Tensor::full([1, 1, 1, 1], x0 / sigmas[0], (kind, device));
    let image = solver.solve(&mut gaussian(), start, sigmas, &mut Noise::new(&[0], 0), &mut ()).unwrap();
    assert_eq!((image.kind(), image.device()), (kind, device));
    f64::try_from(image).unwrap()
}

/// The image that the exact solution ends at, the final denoising included.
fn exact(x0: f64, sigmas: &[f64]) -> f64 {
    let (start, end) = (sigmas[0], *sigmas.iter().rfind(|sigma| **sigma > 0.0).unwrap());
    let solution = MU + (x0 - MU) * ((S * S + end * end) / (S * S + start * start)).sqrt();
    (S * S * solution + end * end * MU) / (S * S + end * end)
}

fn error(solver: Solver, sigmas: &[f64]) -> f64 {
    let x0 = MU + 1.3 * sigmas[0];
    (solve(solver, x0, sigmas, DOUBLE) - exact(x0, sigmas)).abs()
}

#[test]
fn orders_of_convergence() {
    for (solver, expected) in [
        (Solver::Euler, 1.0),
        (Solver::Heun(Churn::NONE), 2.0),
        (Solver::Kutta3, 3.0),
        (Solver::TabDeis { order: 1 }, 2.0),
        (Solver::TabDeis { order: 2 }, 3.0),
        (Solver::TabDeis { order: 3 }, 4.0),
        (Solver::DpmPp2M, 2.0),
        (Solver::DpmPp3M, 3.0),
    ] {
        // How the error falls when the steps double. EDM's range and rho: the multistep solvers start at order 1 there
        // too, but so far above the data's spread that it does not show.
        let at = |steps| error(solver, &schedule::deis(steps, 0.002, 80.0, 7.0).unwrap());
        let order = (at(160) / at(320)).log2();
        assert!((order - expected).abs() < 0.15, "{solver}: measured order {order:.2}, expected {expected}");
    }
}

#[test]
fn every_solver_samples_in_f32_with_the_schedules_of_practice() {
    for solver in Solver::deterministic() {
        for (sigmas, tolerance) in [
            (schedule::karras(40, 0.002, 80.0, 7.0).unwrap(), 0.02),
            (schedule::deis(40, 0.002, 80.0, 6.0).unwrap(), 0.02),
            (schedule::exponential(40, 0.002, 80.0).unwrap(), 0.05),
        ] {
            let tolerance = if solver == Solver::Euler { 0.1 } else { tolerance };
            let x0 = -60.0;
            let expected = exact(x0, &sigmas);
            for device in devices() {
                let got = solve(solver, x0, &sigmas, (Kind::Float, device));
                assert!((got - expected).abs() < tolerance, "{solver} on {device:?}: {got}, expected {expected}");
            }
        }
    }
}

#[test]
fn euler_is_ddim() {
    // DDIM in EDM's variables: x' = D + (sigma' / sigma) (x - D). One step from 2 to 1, then D at 1.
    let d = |x: f64, sigma: f64| (S * S * x + sigma * sigma * MU) / (S * S + sigma * sigma);
    let x = d(1.7, 2.0) + 0.5 * (1.7 - d(1.7, 2.0));
    assert!((solve(Solver::Euler, 1.7, &[2.0, 1.0, 0.0], DOUBLE) - d(x, 1.0)).abs() < 1e-12);
}

#[test]
fn second_order_multistep_matches_the_published_formula() {
    // Written out once more, as the paper has them, for two steps on an uneven grid.
    let d = |x: f64, sigma: f64| (S * S * x + sigma * sigma * MU) / (S * S + sigma * sigma);
    let sigmas = [10.0_f64, 4.0, 1.0];
    let h: Vec<f64> = sigmas.windows(2).map(|pair| (pair[0] / pair[1]).ln()).collect();
    let x0 = 9.0;
    let d0 = d(x0, 10.0);
    let x1 = 0.4 * x0 + (1.0 - (-h[0]).exp()) * d0;
    let d1 = d(x1, 4.0);
    // Algorithm 2: D = (1 + 1 / (2 r)) D_i - 1 / (2 r) D_{i-1}.
    let r = h[0] / h[1];
    let x2 = 0.25 * x1 + (1.0 - (-h[1]).exp()) * ((1.0 + 0.5 / r) * d1 - 0.5 / r * d0);
    let expected = d(x2, 1.0);
    assert!((solve(Solver::DpmPp2M, x0, &sigmas, DOUBLE) - expected).abs() < 1e-12);
}

#[test]
fn third_order_multistep_is_exact_for_parabolas() {
    // An estimate that depends on sigma alone, as a parabola in lambda = -ln(sigma): the solution is an integral of
    // exp(lambda) times the parabola. Compared with Simpson's rule over each step.
    let parabola = |sigma: f64| 0.2 - 0.7 * sigma.ln() + 0.4 * sigma.ln() * sigma.ln();
    let mut denoiser = denoiser::from_fn(|x, sigma| Ok(x.f_full_like(parabola(sigma))?));
    let sigmas = [9.0_f64, 4.0, 2.5, 1.0];
    let mut last_x = None;
    let mut watched = denoiser::from_fn(|x, sigma| {
        last_x = Some(f64::try_from(x).unwrap());
        denoiser.denoise(x, sigma)
    });
    let start = Tensor::full([1, 1, 1, 1], 5.0 / 9.0, (Kind::Double, Device::Cpu));
    let _ = Solver::DpmPp3M.solve(&mut watched, start, &sigmas, &mut Noise::new(&[0], 0), &mut ()).unwrap();

    // The first two steps have not enough past; take them as the solver does.
    let h: Vec<f64> = sigmas.windows(2).map(|pair| (pair[0] / pair[1]).ln()).collect();
    let phi_1 = |h: f64| (-h).exp() - 1.0;
    let mut x = 4.0 / 9.0 * 5.0 - phi_1(h[0]) * parabola(9.0);
    let slope = (parabola(4.0) - parabola(9.0)) * h[1] / h[0];
    x = 2.5 / 4.0 * x - phi_1(h[1]) * parabola(4.0) + (phi_1(h[1]) / h[1] + 1.0) * slope;
    // The third one exactly: x_t = (t / s) x + t * integral of exp(lambda) D dlambda.
    let (pieces, a) = (1000, -(2.5_f64.ln()));
    let integrand = |lambda: f64| lambda.exp() * parabola((-lambda).exp());
    let width = h[2] / f64::from(pieces);
    let integral: f64 = (0..pieces)
        .map(|k| a + f64::from(k) * width)
        .map(|l| width / 6.0 * (integrand(l) + 4.0 * integrand(l + 0.5 * width) + integrand(l + width)))
        .sum();
    let expected = x / 2.5 + integral;
    assert!((last_x.unwrap() - expected).abs() < 1e-9, "{last_x:?} {expected}");
}

#[test]
fn churn_keeps_the_distribution() {
    // 4000 one-pixel images in one batch: their mean and spread have to come out as those of the data.
    let images: Vec<u64> = (0..4000).collect();
    let sigmas = schedule::karras(40, 0.002, 20.0, 7.0).unwrap();
    let mut noise = Noise::new(&images, 0);
    let start = noise.normal(&[4000, 1, 1, 1]).unwrap();
    let churn = Churn { s_churn: 40.0, s_min: 0.01, s_max: 10.0, s_noise: 1.0 };
    let samples = Solver::Heun(churn).solve(&mut gaussian(), start, &sigmas, &mut noise, &mut ()).unwrap();
    let mean = f64::try_from(samples.mean(Kind::Double)).unwrap();
    let std = f64::try_from(samples.to_kind(Kind::Double).std(true)).unwrap();
    // Five standard errors, and a little for the steps.
    assert!((mean - MU).abs() < 5.0 * S / 4000.0_f64.sqrt() + 0.01, "{mean}");
    assert!((std - S).abs() < 5.0 * S / 8000.0_f64.sqrt() + 0.01, "{std}");
}
