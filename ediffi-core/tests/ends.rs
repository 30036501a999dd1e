//! The ends of trajectories that published samplers have, against closed forms.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use ediffi_core::denoiser;
use ediffi_core::noise::NoiseSource;
use ediffi_core::schedule::Schedule;
use ediffi_core::seed::Noise;
use ediffi_core::solver::{Solver, Trajectory};
use ediffi_core::timesteps::{Ends, NoiseTable};
use ediffi_core::{Error, Result, denoiser::Denoiser};
use tch::{Device, Kind, Tensor};

const SIGMAS: [f64; 5] = [8.0, 4.0, 2.0, 1.0, 0.0];
const START: f64 = 0.7;

/// The data is one number, so the slope is the same everywhere and each rule without noise goes straight.
const DATA: f64 = 0.25;

fn start() -> Tensor {
    Tensor::full([1, 1, 1, 1], START, (Kind::Double, Device::Cpu))
}

fn run(solver: Solver, ends: Ends) -> Result<(f64, usize)> {
    let mut noise = Noise::new(&[1], 0);
    let mut trajectory: Trajectory = solver.start_between(start(), &SIGMAS, ends, &mut noise)?;
    let mut denoiser = denoiser::from_fn(|x, _| Ok(x.f_full_like(DATA)?));
    let (mut steps, mut told) = (0, 0);
    while !trajectory.is_finished() {
        let estimate = denoiser.estimate(trajectory.x(), trajectory.sigma())?;
        if let Some(step) = trajectory.advance(estimate, &mut noise)? {
            (steps, told) = (steps + 1, step.steps);
        }
    }
    assert_eq!(steps, told);
    Ok((trajectory.x().double_value(&[0, 0, 0, 0]), steps))
}

#[test]
fn a_unit_start_has_variance_one_for_ddpm() {
    let deviation = |ends: Ends| {
        let mut noise = Noise::new(&[1], 0);
        let trajectory = Solver::Euler.start_between(start(), &SIGMAS, ends, &mut noise).unwrap();
        trajectory.x().double_value(&[0, 0, 0, 0]) / START
    };
    assert_eq!(deviation(Ends::default()), 8.0);
    assert!((deviation(Ends { unit_start: true, last: None }) - 65_f64.sqrt()).abs() < 1e-12);
}

/// From `DATA + sigma d` along the straight line to the last noise level, and that in DDPM's view.
#[test]
fn the_last_step_may_end_above_zero() {
    let d = START - DATA / 8.0;
    let expected = (DATA + 0.1 * d) / 1.01_f64.sqrt();
    for solver in Solver::deterministic().chain([Solver::Plms]) {
        let (end, steps) = run(solver, Ends { unit_start: false, last: Some(0.1) }).unwrap();
        assert!((end - expected).abs() < 1e-12, "{solver}: {end}, expected {expected}");
        assert_eq!(steps, 4, "{solver}");
        assert_eq!(run(solver, Ends::default()).unwrap(), (DATA, 4), "{solver}");
    }
}

#[test]
fn an_end_that_is_not_below_the_schedule_is_refused() {
    for last in [0.0, -1.0, 1.0, 3.0, f64::NAN] {
        let error = run(Solver::Euler, Ends { unit_start: false, last: Some(last) }).unwrap_err();
        assert!(matches!(error, Error::InvalidSchedule(_)), "{error}");
    }
}

/// Every rule whose slopes are a line in sigma would be exact; PLMS takes equal steps for granted, so it is on a schedule of those.
#[test]
fn plms_is_of_order_four_on_even_steps() {
    // d(x; sigma) = cos(sigma): x(sigma) = sin(sigma) + a constant, whatever x is.
    let error = |steps: usize| {
        let sigmas: Vec<f64> = (0..=steps).map(|i| 3.0 - 2.0 * i as f64 / steps as f64).collect();
        let mut noise = Noise::new(&[1], 0);
        let ends = Ends { unit_start: false, last: Some(1.0 - 2.0 / steps as f64) };
        let mut trajectory = Solver::Plms.start_between(start(), &sigmas, ends, &mut noise).unwrap();
        let mut denoiser = denoiser::from_fn(|x, sigma: f64| Ok(x.f_sub_scalar(sigma * sigma.cos())?));
        while !trajectory.is_finished() {
            let estimate = denoiser.estimate(trajectory.x(), trajectory.sigma()).unwrap();
            trajectory.advance(estimate, &mut noise).unwrap();
        }
        let last = ends.last.unwrap();
        let exact = 3.0 * START + last.sin() - 3_f64.sin();
        (trajectory.x().double_value(&[0, 0, 0, 0]) * 1_f64.hypot(last) - exact).abs()
    };
    // The first steps are of order two and three, and there is one of each: order three as a whole.
    let order = (error(40) / error(80)).log2();
    assert!((2.7..4.3).contains(&order), "{order}");
}

/// On a denoiser that gives the picture away, the noise of every step has the variance of its noise level.
#[test]
fn ancestral_steps_keep_the_noise_level() {
    let sigmas = Schedule::Leading.sigmas_on(6, NoiseTable::ScaledLinear).unwrap();
    let mut noise = Noise::new(&[3], 0);
    let start = noise.normal(&[1, 4, 64, 64]).unwrap();
    let mut trajectory = Solver::EulerAncestral.start(start, &sigmas, &mut noise).unwrap();
    let mut denoiser = denoiser::from_fn(|x, _| Ok(x.f_zeros_like()?));
    let mut before = trajectory.x().shallow_clone();
    while trajectory.sigma() > sigmas[5] {
        let spread = trajectory.x().std(true).double_value(&[]) / trajectory.sigma();
        assert!((spread - 1.0).abs() < 0.03, "{spread} at {}", trajectory.sigma());
        let estimate = denoiser.estimate(trajectory.x(), trajectory.sigma()).unwrap();
        trajectory.advance(estimate, &mut noise).unwrap();
        // It is not the old noise made smaller.
        let product = (&before * trajectory.x()).mean(Kind::Double).double_value(&[]);
        let cosine = product / (before.std(true) * trajectory.x().std(true)).double_value(&[]);
        assert!(cosine < 0.9, "{cosine}");
        before = trajectory.x().shallow_clone();
    }
}
