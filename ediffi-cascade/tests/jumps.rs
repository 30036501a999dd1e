//! Jumps back up in noise: their plans, and what a rule of several steps makes of them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::ops::ControlFlow;

use common::{Log, Model, difference, embeddings, network, pictures};
use ediffi_cascade::{Cascade, CascadeJob, Edit, Error, Jumps, SettingsPatch, StageEvent, StagePlan};
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::seed::Noise;
use ediffi_core::solver::{Churn, Solver};
use tch::{Device, Kind, Tensor};

const SEEDS: [u64; 2] = [1, 2];

fn plan(cascade: &Cascade, solver: Solver, sigmas: &[f64]) -> StagePlan {
    let patch = serde_json::json!({ "solver": solver, "schedule": { "custom": sigmas } });
    let patch: SettingsPatch = serde_json::from_value(patch).unwrap();
    cascade.plan(0..=0, (None, None), |_| Some(&patch)).unwrap().remove(0)
}

fn sigmas(plan: &StagePlan) -> Vec<f64> {
    plan.plan.steps().iter().map(|step| step.sigma).collect()
}

#[test]
fn strength_and_jumps_are_set_in_any_order() {
    let cascade = Model::new(&network(false), 8).open(Residency::All);
    let whole = plan(&cascade, Solver::Euler, &[8.0, 4.0, 2.0, 1.0, 0.5, 0.0]);
    let (jumps, others) = (Jumps { length: 1, count: 1 }, Jumps { length: 2, count: 2 });
    let expected = whole.clone().with_strength(0.6).with_jumps(jumps).unwrap();
    assert_eq!(sigmas(&expected), [2.0, 2.0, 1.0, 1.0, 0.5]);
    for other in [
        whole.clone().with_jumps(jumps).unwrap().with_strength(0.6),
        whole.clone().with_jumps(others).unwrap().with_strength(0.6).with_jumps(jumps).unwrap(),
        whole.clone().with_jumps(others).unwrap().with_jumps(jumps).unwrap().with_strength(0.6),
    ] {
        assert_eq!((other.skipped, other.jumps, &other.plan), (2, Some(jumps), &expected.plan));
    }
}

#[test]
fn endless_jumps_and_those_of_no_length_are_refused() {
    let mut cascade = Model::new(&network(false), 8).open(Residency::All);
    let whole = plan(&cascade, Solver::Euler, &[8.0, 4.0, 2.0, 1.0, 0.5, 0.0]);
    let endless = Jumps { length: 1, count: usize::MAX };
    for (jumps, culprit) in [(endless, "at most"), (Jumps { length: 0, count: 1 }, "no length")] {
        let error = whole.clone().with_jumps(jumps).unwrap_err();
        assert!(matches!(error, Error::Job { input: "jumps", .. }) && error.to_string().contains(culprit), "{error}");
    }
    let (picture, conditioning) = (pictures(&SEEDS, 8, 8), embeddings(&SEEDS));
    let mask = Tensor::ones([1, 1, 8, 8], (Kind::Float, Device::Cpu));
    let mut refused = |plan: StagePlan| {
        let edit = Some(Edit { picture: &picture, mask: Some(&mask) });
        let plans = [plan];
        cascade
            .run(CascadeJob { edit, ..CascadeJob::new(&plans, &conditioning, &SEEDS) }, &mut ())
            .unwrap_err()
            .to_string()
    };
    // Written into the plan by hand.
    let mut by_hand = whole.clone();
    by_hand.jumps = Some(endless);
    let error = refused(by_hand);
    assert!(error.contains("jumps") && error.contains("at most"), "{error}");
    let mut churning = whole.with_jumps(Jumps { length: 1, count: 1 }).unwrap();
    churning.settings.solver = Solver::Heun(Churn { s_churn: 4.0, ..Churn::NONE });
    let error = refused(churning);
    assert!(error.contains("`base` has jumps") && error.contains("churns"), "{error}");
}

/// Noise from elsewhere.
struct Given(Tensor);

impl NoiseSource for Given {
    fn normal(&mut self, shape: &[i64]) -> ediffi_core::Result<Tensor> {
        assert_eq!(self.0.size(), shape);
        Ok(self.0.shallow_clone())
    }
}

/// A rule that remembers earlier estimates forgets them at a jump: it begins anew with the noisier picture, as here by hand.
#[test]
fn a_rule_of_several_steps_begins_anew_at_each_jump() {
    const LEVELS: [f64; 5] = [4.0, 2.0, 1.0, 0.5, 0.0];
    // By jumps of two steps, once: back from the last step to the second.
    const WALK: [usize; 6] = [0, 1, 2, 1, 2, 3];
    let model = Model::new(&network(false), 8);
    let mut cascade = model.open(Residency::Relay);
    let (picture, conditioning) = (pictures(&SEEDS, 8, 8), embeddings(&SEEDS));
    let mask = Tensor::ones([1, 1, 8, 8], (Kind::Float, Device::Cpu));
    for solver in [Solver::DpmPp2M, Solver::TabDeis { order: 3 }] {
        let jumping = [plan(&cascade, solver, &LEVELS).with_jumps(Jumps { length: 2, count: 1 }).unwrap()];
        let mut told = Vec::new();
        let mut drawn = None;
        let mut watch = |event: &StageEvent<'_>| {
            match event {
                StageEvent::Step { sigma, denoised, .. } => told.push((*sigma, denoised.copy())),
                StageEvent::Pictures { pictures, .. } => drawn = Some(pictures.copy()),
                _ => {}
            }
            ControlFlow::Continue(())
        };
        let edit = Some(Edit { picture: &picture, mask: Some(&mask) });
        cascade.run(CascadeJob { edit, ..CascadeJob::new(&jumping, &conditioning, &SEEDS) }, &mut watch).unwrap();
        assert_eq!(told.iter().map(|(sigma, _)| *sigma).collect::<Vec<_>>(), WALK.map(|step| LEVELS[step]));
        let mut noise = Noise::new(&SEEDS, 0);
        let start = noise.normal(&[2, 3, 8, 8]).unwrap();
        let mut nothing = Given(Tensor::zeros([2, 3, 8, 8], (Kind::Float, Device::Cpu)));
        let mut by_hand = solver.start(start, &LEVELS, &mut nothing).unwrap();
        for (place, (sigma, denoised)) in told.iter().enumerate() {
            // What the network makes of the picture by hand is what it made on the way.
            let once = [plan(&cascade, Solver::Euler, &[*sigma, 0.0])];
            let x = by_hand.x() / *sigma;
            let mut given = |_: &str, _: &[u64]| -> Box<dyn NoiseSource> { Box::new(Given(x.shallow_clone())) };
            let mut log = Log::default();
            let job = CascadeJob { noise: Some(&mut given), ..CascadeJob::new(&once, &conditioning, &SEEDS) };
            cascade.run(job, &mut log).unwrap();
            let far = difference(&denoised.clamp(-1.0, 1.0), &log.pictures());
            assert!(far < 1e-4, "{solver:?}, step {place}: {far}");
            by_hand.advance(denoised.shallow_clone().into(), &mut nothing).unwrap().unwrap();
            if place == 2 {
                let (low, high) = (LEVELS[3], LEVELS[1]);
                let fresh = noise.normal(&[2, 3, 8, 8]).unwrap() * (high * high - low * low).sqrt();
                let noisier = (by_hand.x() + fresh) / high;
                by_hand = solver.start(noisier, &LEVELS[1..], &mut nothing).unwrap();
            }
        }
        assert!(difference(&by_hand.x().clamp(-1.0, 1.0), &drawn.unwrap()) < 1e-5, "{solver:?}");
    }
}
