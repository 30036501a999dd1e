//! What every solver promises: the evaluations it makes, the steps it reports, that it stops, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::ops::ControlFlow;

use common::devices;
use ediffi_core::denoiser::{self, Denoiser, Estimate};
use ediffi_core::noise::NoiseSource;
use ediffi_core::schedule::{self, Schedule};
use ediffi_core::seed::Noise;
use ediffi_core::solver::{Churn, Solver, Step, StepObserver};
use ediffi_core::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Shrinks the image towards 0 and keeps the noise levels it was asked about.
#[derive(Default)]
struct Recording {
    sigmas: Vec<f64>,
}

impl Denoiser for Recording {
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate> {
        self.sigmas.push(sigma);
        let denoised = x.f_mul_scalar(0.25 / (0.25 + sigma * sigma))?;
        Ok(Estimate { variance: Some(denoised.f_zeros_like()?), denoised })
    }
}

fn start() -> Tensor {
    Tensor::full([2, 3, 4, 4], 3.0, (Kind::Float, Device::Cpu))
}

fn noise() -> Noise {
    Noise::new(&[1, 2], 0)
}

/// Schedules of 6, of other 6 and of 1 step that the solver can take.
fn schedules(solver: Solver) -> [Vec<f64>; 3] {
    if let Solver::Ddpm(_) = solver {
        let leading = |steps| Schedule::Leading.sigmas(steps).unwrap();
        return [leading(6), leading(6)[..6].to_vec(), leading(1)];
    }
    [
        schedule::karras(6, 0.002, 80.0, 7.0).unwrap(),
        schedule::deis(6, 0.002, 80.0, 6.0).unwrap(),
        schedule::karras(1, 0.002, 80.0, 7.0).unwrap(),
    ]
}

#[test]
fn evaluations_are_as_many_as_announced() {
    for solver in Solver::all() {
        for sigmas in schedules(solver) {
            let mut denoiser = Recording::default();
            let _ = solver.solve(&mut denoiser, start(), &sigmas, &mut noise(), &mut ()).unwrap();
            assert_eq!(denoiser.sigmas.len(), solver.evaluations(&sigmas), "{solver}");
            assert_eq!(denoiser.sigmas.last(), sigmas.iter().rfind(|sigma| **sigma > 0.0), "{solver}");
        }
    }
    // EDM counts 35 evaluations for its 18 steps (section 3).
    assert_eq!(Solver::Heun(Churn::NONE).evaluations(&schedule::karras(18, 0.002, 80.0, 7.0).unwrap()), 35);
    assert_eq!(Solver::Euler.evaluations(&[]), 0);
}

#[test]
fn the_observer_sees_every_step() {
    for solver in Solver::all() {
        for sigmas in schedules(solver) {
            let mut seen = Vec::new();
            let mut last = None;
            let image = solver
                .solve(&mut Recording::default(), start(), &sigmas, &mut noise(), &mut |step: &Step<'_>| {
                    assert_eq!(step.denoised.size(), [2, 3, 4, 4]);
                    seen.push((step.index, step.steps, step.sigma, step.sigma_next));
                    last = Some(step.denoised.shallow_clone());
                    ControlFlow::Continue(())
                })
                .unwrap();
            let positive: Vec<f64> = sigmas.iter().copied().filter(|sigma| *sigma > 0.0).collect();
            let expected: Vec<_> = (0..positive.len())
                .map(|i| (i, positive.len(), positive[i], positive.get(i + 1).copied().unwrap_or(0.0)))
                .collect();
            assert_eq!(seen, expected, "{solver}");
            assert!(last.unwrap().equal(&image), "{solver}");
        }
    }
}

#[test]
fn a_break_stops_before_the_next_evaluation() {
    for solver in Solver::all() {
        for (at, sigmas) in [(0, &schedules(solver)[0]), (5, &schedules(solver)[0])] {
            let mut denoiser = Recording::default();
            let result = solver.solve(&mut denoiser, start(), sigmas, &mut noise(), &mut |step: &Step<'_>| {
                if step.index == at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(matches!(result, Err(Error::Cancelled)), "{solver}");
            assert_eq!(denoiser.sigmas.len(), solver.evaluations(&sigmas[..=at + 1]) - usize::from(at < 5), "{solver}");
        }
    }
}

#[test]
fn cancelling_inside_a_step_stops_before_the_next_evaluation() {
    struct Countdown(usize);
    impl StepObserver for Countdown {
        fn step(&mut self, _step: &Step<'_>) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }
        fn cancelled(&mut self) -> bool {
            self.0 = self.0.wrapping_sub(1);
            self.0 == usize::MAX
        }
    }
    for solver in Solver::all() {
        for allowed in 0..5 {
            let mut denoiser = Recording::default();
            let result =
                solver.solve(&mut denoiser, start(), &schedules(solver)[0], &mut noise(), &mut Countdown(allowed));
            assert!(matches!(result, Err(Error::Cancelled)), "{solver}");
            assert_eq!(denoiser.sigmas.len(), allowed, "{solver}");
        }
    }
}

#[test]
fn an_image_does_not_change_with_its_batch() {
    let churn = Solver::Heun(Churn { s_churn: 3.0, ..Churn::NONE });
    for (solver, device) in
        Solver::all().chain([churn]).flat_map(|solver| devices().into_iter().map(move |device| (solver, device)))
    {
        let run = |seeds: &[u64]| {
            let mut noise = Noise::new(seeds, 0);
            let start = noise.normal(&[seeds.len() as i64, 3, 4, 4]).unwrap().to_device(device);
            solver.solve(&mut Recording::default(), start, &schedules(solver)[0], &mut noise, &mut ()).unwrap()
        };
        assert!(run(&[7, 8]).narrow(0, 1, 1).equal(&run(&[8])), "{solver} on {device:?}");
    }
}

#[test]
fn churn_raises_the_noise_level_inside_its_range_only() {
    let churn = Churn { s_churn: 1e9, s_min: 1.0, s_max: 50.0, s_noise: 1.0 };
    let mut denoiser = Recording::default();
    let _ = Solver::Heun(churn).solve(&mut denoiser, start(), &[80.0, 10.0, 0.5, 0.0], &mut noise(), &mut ()).unwrap();
    // gamma is limited to sqrt(2) - 1.
    assert_eq!(denoiser.sigmas, [80.0, 10.0, 10.0 + (std::f64::consts::SQRT_2 - 1.0) * 10.0, 0.5, 0.5]);
}

#[test]
fn no_gradient_is_tracked_on_a_fresh_thread() {
    let tracked = std::thread::spawn(|| {
        let weight = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut denoiser = denoiser::from_fn(|x, _sigma| Ok(x.f_mul(&weight)?.f_mul_scalar(0.5)?));
        let image = Solver::Euler.solve(&mut denoiser, start(), &[2.0, 1.0], &mut noise(), &mut ()).unwrap();
        image.requires_grad()
    });
    assert!(!tracked.join().unwrap());
}

#[test]
fn what_cannot_be_solved_is_refused() {
    let solve = |solver: Solver, start: Tensor, sigmas: &[f64], answer: f64| {
        let mut denoiser = denoiser::from_fn(|x, _sigma| Ok(x.f_full_like(answer)?));
        solver.solve(&mut denoiser, start, sigmas, &mut noise(), &mut ()).unwrap_err()
    };
    let ok = [2.0, 1.0];
    assert!(matches!(solve(Solver::Euler, start(), &[1.0], 0.0), Error::InvalidSchedule { .. }));
    assert!(matches!(solve(Solver::Euler, start(), &[1.0, 2.0], 0.0), Error::InvalidSigmas { index: 1, .. }));
    assert!(matches!(solve(Solver::TabDeis { order: 4 }, start(), &ok, 0.0), Error::InvalidSolver { .. }));
    assert!(matches!(solve(Solver::TabDeis { order: 0 }, start(), &ok, 0.0), Error::InvalidSolver { .. }));
    for churn in [
        Churn { s_churn: f64::NAN, ..Churn::NONE },
        Churn { s_min: 2.0, s_max: 1.0, ..Churn::NONE },
        Churn { s_noise: -1.0, ..Churn::NONE },
    ] {
        assert!(matches!(solve(Solver::Heun(churn), start(), &ok, 0.0), Error::InvalidSolver { .. }), "{churn:?}");
    }
    assert!(matches!(solve(Solver::Euler, start() / 0.0, &ok, 0.0), Error::NotFinite { .. }));
    assert!(matches!(solve(Solver::Euler, start(), &ok, f64::NAN), Error::DenoisedNotFinite(sigma) if sigma == 2.0));
    let mut smaller = denoiser::from_fn(|x, _sigma| Ok(x.f_narrow(0, 0, 1)?));
    let result = Solver::Euler.solve(&mut smaller, start(), &ok, &mut noise(), &mut ());
    assert!(matches!(result, Err(Error::DenoisedShape { .. })));
    let churn = Solver::Heun(Churn { s_churn: 1.0, ..Churn::NONE });
    let result = churn.solve(&mut Recording::default(), start(), &ok, &mut Noise::new(&[1], 0), &mut ());
    assert!(matches!(result, Err(Error::InvalidNoiseShape { .. })));
}
