//! A trajectory stepped by hand is the solver: it waits, goes on beside others and as a clone, and holds no more than it says.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ops::ControlFlow;

use ediffi_core::denoiser::{Denoiser, Estimate};
use ediffi_core::noise::NoiseSource;
use ediffi_core::schedule::{self, Schedule};
use ediffi_core::seed::Noise;
use ediffi_core::solver::{Churn, Solver, Step, Trajectory};
use ediffi_core::{Error, Result};
use tch::{Kind, Tensor};

/// Mixes the channels, so that every solver makes another picture.
struct Mixing;

impl Denoiser for Mixing {
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate> {
        let mixed =
            x.f_div_scalar(1.0 + sigma)?.f_sin()?.f_add(&x.f_roll([1], [1])?.f_mul_scalar(0.2 / (1.0 + sigma))?)?;
        Ok(Estimate { variance: Some(mixed.f_cos()?), denoised: mixed })
    }
}

/// All solvers, one of them with churn.
fn solvers() -> impl Iterator<Item = Solver> {
    Solver::all().chain([Solver::Heun(Churn { s_churn: 3.0, s_min: 0.05, s_max: 50.0, s_noise: 1.003 })])
}

/// Six steps and a denoising that the solver can take.
fn sigmas(solver: Solver) -> Vec<f64> {
    match solver {
        Solver::Ddpm(_) => Schedule::Leading.sigmas(7).unwrap(),
        _ => schedule::karras(7, 0.002, 80.0, 7.0).unwrap(),
    }
}

fn start(noise: &mut Noise) -> Tensor {
    noise.normal(&[1, 3, 4, 4]).unwrap()
}

/// A picture as [`Solver::solve`] makes it, and the steps that it tells.
fn solved(solver: Solver, seed: u64) -> (Tensor, Vec<Told>) {
    let (mut noise, mut told) = (Noise::new(&[seed], 0), Vec::new());
    let start = start(&mut noise);
    let mut watch = |step: &Step<'_>| {
        told.push(tell(step));
        ControlFlow::Continue(())
    };
    (solver.solve(&mut Mixing, start, &sigmas(solver), &mut noise, &mut watch).unwrap(), told)
}

/// A trajectory with its noise.
#[derive(Debug, Clone)]
struct Run {
    trajectory: Trajectory,
    noise: Noise,
}

impl Run {
    fn new(solver: Solver, seed: u64) -> Self {
        let mut noise = Noise::new(&[seed], 0);
        let start = start(&mut noise);
        Self { trajectory: solver.start(start, &sigmas(solver), &mut noise).unwrap(), noise }
    }

    /// Makes one evaluation, if there is one left.
    fn evaluate(&mut self) -> Option<Told> {
        let Self { trajectory, noise } = self;
        let estimate =
            (!trajectory.is_finished()).then(|| Mixing.estimate(trajectory.x(), trajectory.sigma()).unwrap());
        trajectory.advance(estimate?, noise).unwrap().map(|step| tell(&step))
    }

    fn finish(mut self) -> Tensor {
        while !self.trajectory.is_finished() {
            self.evaluate();
        }
        self.trajectory.x().shallow_clone()
    }
}

/// What a step says: its numbers, and the bits of its preview.
type Told = (usize, usize, f64, f64, Vec<u32>);

fn tell(step: &Step<'_>) -> Told {
    (step.index, step.steps, step.sigma, step.sigma_next, bits(step.denoised))
}

fn bits(x: &Tensor) -> Vec<u32> {
    Vec::<f32>::try_from(&x.flatten(0, -1)).unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn stepping_by_hand_is_solving() {
    let mut pictures = Vec::new();
    for solver in solvers() {
        let (picture, expected) = solved(solver, 7);
        let (mut run, mut told, mut evaluations) = (Run::new(solver, 7), Vec::new(), 0);
        while !run.trajectory.is_finished() {
            told.extend(run.evaluate());
            evaluations += 1;
        }
        assert_eq!(told, expected, "{solver}");
        assert_eq!(evaluations, solver.evaluations(&sigmas(solver)), "{solver}");
        assert_eq!((run.trajectory.sigma(), bits(run.trajectory.x())), (0.0, bits(&picture)), "{solver}");
        pictures.push(bits(&picture));
    }
    pictures.sort();
    pictures.dedup();
    assert_eq!(pictures.len(), solvers().count(), "every solver makes another picture");
}

#[test]
fn a_step_shows_the_estimate_at_its_start() {
    for solver in solvers() {
        let Run { mut trajectory, mut noise } = Run::new(solver, 7);
        let mut first = None;
        while !trajectory.is_finished() {
            let estimate = Mixing.estimate(trajectory.x(), trajectory.sigma()).unwrap();
            let expected = first.take().unwrap_or_else(|| bits(&estimate.denoised));
            match trajectory.advance(estimate, &mut noise).unwrap() {
                Some(step) => assert_eq!(bits(step.denoised), expected, "{solver}, step {}", step.index),
                None => first = Some(expected),
            }
        }
    }
}

#[test]
fn trajectories_side_by_side_are_each_alone() {
    for first in solvers() {
        for second in [first, Solver::Kutta3] {
            let mut runs = [Run::new(first, 1), Run::new(second, 2)];
            while runs.iter().any(|run| !run.trajectory.is_finished()) {
                runs.iter_mut().for_each(|run| drop(run.evaluate()));
            }
            for (run, (solver, seed)) in runs.iter().zip([(first, 1), (second, 2)]) {
                assert_eq!(bits(run.trajectory.x()), bits(&solved(solver, seed).0), "{first} beside {second}");
            }
        }
    }
}

/// One that was put aside after each evaluation goes on to the same picture, and leaves the other as it was.
#[test]
fn a_clone_goes_on_alike() {
    for solver in solvers() {
        let expected = bits(&solved(solver, 3).0);
        let mut run = Run::new(solver, 3);
        for evaluation in 0..solver.evaluations(&sigmas(solver)) {
            assert_eq!(bits(&run.clone().finish()), expected, "{solver}, evaluation {evaluation}");
            run.evaluate();
        }
        assert_eq!(bits(run.trajectory.x()), expected, "{solver}");
    }
}

/// Noise levels never rise but by churn, so experts take over in one order.
#[test]
fn noise_levels_descend() {
    let raised = |solver| {
        let (mut run, mut before, mut raised) = (Run::new(solver, 1), f64::INFINITY, 0);
        while !run.trajectory.is_finished() {
            raised += usize::from(run.trajectory.sigma() > before);
            before = run.trajectory.sigma();
            run.evaluate();
        }
        raised
    };
    for solver in Solver::all() {
        assert_eq!(raised(solver), 0, "{solver}");
    }
    // At the start of each step; before the first there is no noise level to rise above.
    assert_eq!(raised(Solver::Heun(Churn { s_churn: 3.0, ..Churn::NONE })), 6);
}

/// The debug form tells the shape of every tensor that is kept.
#[test]
fn no_more_is_kept_than_documented() {
    let most = |solver| {
        let mut run = Run::new(solver, 1);
        let mut most = 0;
        while !run.trajectory.is_finished() {
            run.evaluate();
            most = most.max(format!("{:?}", run.trajectory).matches("[1, 3, 4, 4]").count());
        }
        most
    };
    let kept: Vec<_> = Solver::all().map(|solver| (solver.to_string(), most(solver))).collect();
    let of = |name: &str| kept.iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!((of("euler"), of("ddpm"), of("heun"), of("kutta-3")), (2, 2, 4, 5));
    assert_eq!((of("tab-deis-1"), of("tab-deis-2"), of("tab-deis-3")), (3, 4, 5));
    // The newest estimate is counted twice here, and shares its storage.
    assert_eq!((of("dpmpp-2m"), of("dpmpp-3m")), (3, 4));
}

#[test]
fn a_refused_estimate_changes_nothing() {
    let churned = Solver::Heun(Churn { s_churn: 1.0, ..Churn::NONE });
    for solver in [churned, Solver::Kutta3, Solver::DpmPp3M] {
        let mut run = Run::new(solver, 5);
        while !run.trajectory.is_finished() {
            let Run { trajectory, noise } = &mut run;
            let mut refused = |denoised: Tensor| trajectory.advance(denoised.into(), noise).map(|_| ()).unwrap_err();
            let x = Tensor::zeros([1, 3, 4, 4], (Kind::Float, tch::Device::Cpu));
            assert!(matches!(refused(x.narrow(1, 0, 1)), Error::DenoisedShape { .. }));
            assert!(matches!(refused(x / 0.0), Error::DenoisedNotFinite(_)));
            run.evaluate();
        }
        assert_eq!(bits(run.trajectory.x()), bits(&solved(solver, 5).0), "{solver}");
        // Nor does one for a picture that is finished.
        let Run { trajectory, noise } = &mut run;
        let again = Tensor::zeros_like(trajectory.x());
        assert!(matches!(trajectory.advance(again.into(), noise), Err(Error::SigmaOutOfRange(0.0))));
    }
}
