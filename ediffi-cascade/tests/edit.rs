//! Image to image and inpainting: what a run that begins with a picture gives.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::ops::ControlFlow;

use common::{CPU, Log, Model, difference, embeddings, network, pictures, write_stage};
use ediffi_cascade::{Cascade, CascadeJob, Edit, Error, Jumps, SettingsPatch, Stage, StageEvent, StagePlan};
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::seed::Noise;
use ediffi_core::solver::{Churn, FreshNoise, Solver};
use tch::{Device, Kind, Tensor};

const SEEDS: [u64; 2] = [1, 2];

/// Every rule, those with noise on the way among them.
fn solvers() -> [Solver; 6] {
    let churn = Churn { s_churn: 4.0, ..Churn::NONE };
    [
        Solver::Euler,
        Solver::Heun(churn),
        Solver::Kutta3,
        Solver::TabDeis { order: 3 },
        Solver::DpmPp2M,
        Solver::DpmPp2MSde(FreshNoise::default()),
    ]
}

/// The plans of all stages with this solver, the first at a strength.
fn plans(cascade: &Cascade, solver: Solver, strength: f64) -> Vec<StagePlan> {
    let patch: SettingsPatch = serde_json::from_value(serde_json::json!({ "solver": solver })).unwrap();
    let mut plans = cascade.plan(0..=cascade.stages().len() - 1, (None, None), |_| Some(&patch)).unwrap();
    let first = plans.remove(0).with_strength(strength);
    plans.insert(0, first);
    plans
}

fn drawn(cascade: &mut Cascade, plans: &[StagePlan], edit: Option<Edit<'_>>) -> Tensor {
    let (mut log, conditioning) = (Log::default(), embeddings(&SEEDS));
    let job = CascadeJob { edit, ..CascadeJob::new(plans, &conditioning, &SEEDS) };
    cascade.run(job, &mut log).unwrap();
    log.pictures()
}

/// 1 in the left half of each row.
fn left(side: i64) -> Tensor {
    let mask = Tensor::zeros([1, 1, side, side], (Kind::Float, Device::Cpu));
    let _ = mask.narrow(3, 0, side / 2).fill_(1.0);
    mask
}

/// 8 → 16.
fn two() -> (tempfile::TempDir, Cascade) {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let stages = [("base", 8, network(false)), ("above", 16, network(true))].map(|(name, size, network)| {
        let config = write_stage(folder.path(), name, size, &network);
        Stage::open(folder.path(), &config, CPU, Residency::All).unwrap()
    });
    (folder, Cascade::new(stages.into()).unwrap())
}

#[test]
fn at_strength_0_the_picture_stays_and_at_1_all_steps_are_made() {
    let model = Model::new(&network(false), 8);
    let mut cascade = model.open(Residency::All);
    let picture = pictures(&SEEDS, 8, 8);
    let edit = Edit { picture: &picture, mask: None };
    for solver in solvers() {
        let none = plans(&cascade, solver, 0.0);
        assert_eq!((none[0].skipped, none[0].plan.steps().len()), (4, 0));
        assert!(drawn(&mut cascade, &none, Some(edit)).equal(&picture), "{solver:?}");
        let all = plans(&cascade, solver, 1.0);
        assert_eq!((all[0].skipped, all[0].plan.steps().len()), (0, 4));
        // The first noise level is 80: hardly anything of the picture is left.
        let (with, without) = (drawn(&mut cascade, &all, Some(edit)), drawn(&mut cascade, &all, None));
        assert!(difference(&with, &without) < 0.3 && !with.equal(&without), "{solver:?}");
    }
    // 4 steps: the last of them alone, as int(4 * 0.3) of diffusers.
    let little = plans(&cascade, Solver::Euler, 0.3);
    assert_eq!((little[0].skipped, little[0].plan.steps().len()), (3, 1));
    let near = drawn(&mut cascade, &little, Some(edit));
    assert!(difference(&near, &picture) > 1e-3);
}

/// What image to image is: noise of the first level that is left on the picture, and the solver from there.
#[test]
fn it_begins_with_the_noisy_picture() {
    let model = Model::new(&network(false), 8);
    let mut cascade = model.open(Residency::All);
    let plans = plans(&cascade, Solver::Euler, 0.5);
    let picture = pictures(&SEEDS, 8, 8);
    let edited = drawn(&mut cascade, &plans, Some(Edit { picture: &picture, mask: None }));
    // The same as the whole way from a start that meets the same noisy picture there: an expert is asked once at each level.
    let sigmas: Vec<f64> = plans[0].plan.steps().iter().map(|step| step.sigma).collect();
    let whole = cascade.plan(0..=0, (None, None), |_| None).unwrap();
    assert_eq!(sigmas.as_slice(), &whole[0].plan.steps().iter().map(|step| step.sigma).collect::<Vec<_>>()[2..]);
    let custom = serde_json::json!({ "solver": "euler", "schedule": { "custom": [sigmas[0], sigmas[1], 0.0] } });
    let custom: SettingsPatch = serde_json::from_value(custom).unwrap();
    let short = cascade.plan(0..=0, (None, None), |_| Some(&custom)).unwrap();
    let (mut log, conditioning) = (Log::default(), embeddings(&SEEDS));
    let mut noise = |_: &str, seeds: &[u64]| -> Box<dyn NoiseSource> {
        Box::new(Moved { noise: Noise::new(seeds, 0), by: &picture / sigmas[0] })
    };
    let job = CascadeJob { noise: Some(&mut noise), ..CascadeJob::new(&short, &conditioning, &SEEDS) };
    cascade.run(job, &mut log).unwrap();
    assert!(difference(&log.pictures(), &edited) < 1e-4);
}

/// Noise with a picture in it.
struct Moved {
    noise: Noise,
    by: Tensor,
}

impl NoiseSource for Moved {
    fn normal(&mut self, shape: &[i64]) -> ediffi_core::Result<Tensor> {
        Ok(self.noise.normal(shape)?.f_add(&self.by)?)
    }
}

#[test]
fn where_the_mask_is_0_the_picture_stays_to_the_last_bit() {
    let (_folder, mut cascade) = two();
    // Larger than both stages, so that both see it made smaller.
    let picture = pictures(&SEEDS, 32, 32);
    let at_16 = picture.adaptive_avg_pool2d([16, 16]);
    let mask = left(32);
    let edit = Edit { picture: &picture, mask: Some(&mask) };
    for solver in solvers() {
        let plans = plans(&cascade, solver, 1.0);
        let (edited, free) = (drawn(&mut cascade, &plans, Some(edit)), drawn(&mut cascade, &plans, None));
        let half = |x: &Tensor, from| x.narrow(3, from, 8);
        assert!(half(&edited, 8).equal(&half(&at_16, 8)), "{solver:?}");
        assert!(difference(&half(&edited, 0), &half(&at_16, 0)) > 0.1, "{solver:?}");
        // What is drawn anew is drawn beside the picture: it is not what it would be without.
        assert!(difference(&half(&edited, 0), &half(&free, 0)) > 1e-4, "{solver:?}");
    }
}

/// With jumps, too, for every rule but churn, which adds noise of its own.
#[test]
fn where_the_mask_is_0_the_picture_stays_through_jumps() {
    let (_folder, mut cascade) = two();
    let picture = pictures(&SEEDS, 16, 16);
    let mask = left(16);
    let edit = Edit { picture: &picture, mask: Some(&mask) };
    for solver in solvers()
        .into_iter()
        .map(|solver| if matches!(solver, Solver::Heun(_)) { Solver::Heun(Churn::NONE) } else { solver })
    {
        let plain = plans(&cascade, solver, 0.75);
        let jumping = |count| {
            let mut jumping = plain.clone();
            jumping[0] = plain[0].clone().with_jumps(Jumps { length: 1, count }).unwrap();
            jumping
        };
        let (never, twice) = (jumping(0), jumping(2));
        assert_eq!([plain[0].plan.steps().len(), never[0].plan.steps().len(), twice[0].plan.steps().len()], [3, 3, 7]);
        let without = drawn(&mut cascade, &plain, Some(edit));
        assert!(drawn(&mut cascade, &never, Some(edit)).equal(&without), "{solver:?}");
        let with = drawn(&mut cascade, &twice, Some(edit));
        let half = |x: &Tensor, from| x.narrow(3, from, 8);
        assert!(half(&with, 8).equal(&half(&picture, 8)), "{solver:?}");
        assert!(difference(&half(&with, 0), &half(&without, 0)) > 1e-3, "{solver:?}");
    }
    let jumping = plans(&cascade, Solver::Euler, 0.75)[0].clone().with_jumps(Jumps { length: 1, count: 1 }).unwrap();
    let (conditioning, none) = (embeddings(&SEEDS), Edit { picture: &picture, mask: None });
    let job = CascadeJob { edit: Some(none), ..CascadeJob::new(std::slice::from_ref(&jumping), &conditioning, &SEEDS) };
    let error = cascade.run(job, &mut Log::default()).unwrap_err();
    assert!(error.to_string().contains("jumps"), "{error}");
}

/// A jump of one step: noise of the difference of the two levels is added, and the step is made again.
#[test]
fn a_jump_adds_the_noise_between_two_levels() {
    let model = Model::new(&network(false), 8);
    for residency in [Residency::All, Residency::Relay] {
        let mut cascade = model.open(residency);
        // An expert for each of the two levels.
        let (high, low) = (2.0, 0.5);
        let plan = |cascade: &Cascade, sigmas: &[f64]| {
            let patch = serde_json::json!({ "solver": "euler", "schedule": { "custom": sigmas } });
            let patch: SettingsPatch = serde_json::from_value(patch).unwrap();
            cascade.plan(0..=0, (None, None), |_| Some(&patch)).unwrap()
        };
        let mut jumping = plan(&cascade, &[high, low, 0.0]);
        jumping[0] = jumping[0].clone().with_jumps(Jumps { length: 1, count: 1 }).unwrap();
        let picture = pictures(&SEEDS, 8, 8);
        let mask = Tensor::ones([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        let conditioning = embeddings(&SEEDS);
        let mut estimates = Vec::new();
        let mut watch = |event: &StageEvent<'_>| {
            if let StageEvent::Step { index, steps: 3, sigma, denoised, .. } = event {
                estimates.push((*index, *sigma, denoised.copy()));
            }
            ControlFlow::Continue(())
        };
        let edit = Some(Edit { picture: &picture, mask: Some(&mask) });
        cascade.run(CascadeJob { edit, ..CascadeJob::new(&jumping, &conditioning, &SEEDS) }, &mut watch).unwrap();
        let told: Vec<_> = estimates.iter().map(|(index, sigma, _)| (*index, *sigma)).collect();
        assert_eq!(told, [(0, high), (1, high), (2, low)]);
        // What the second estimate was made of, from the first and the same noise.
        let mut noise = Noise::new(&SEEDS, 0);
        let mut fresh = || noise.normal(&[2, 3, 8, 8]).unwrap();
        let (first, second) = (fresh(), fresh());
        let x = &first * high;
        let below = &estimates[0].2 + (&x - &estimates[0].2) * (low / high);
        let again = below + second * (high * high - low * low).sqrt();
        let once = plan(&cascade, &[high, 0.0]);
        let mut given = |_: &str, _: &[u64]| -> Box<dyn NoiseSource> { Box::new(Given(&again / high)) };
        let mut log = Log::default();
        let job = CascadeJob { noise: Some(&mut given), ..CascadeJob::new(&once, &conditioning, &SEEDS) };
        cascade.run(job, &mut log).unwrap();
        assert!(difference(&estimates[1].2.clamp(-1.0, 1.0), &log.pictures()) < 1e-4, "{residency:?}");
    }
}

/// Noise from elsewhere.
struct Given(Tensor);

impl NoiseSource for Given {
    fn normal(&mut self, shape: &[i64]) -> ediffi_core::Result<Tensor> {
        assert_eq!(self.0.size(), shape);
        Ok(self.0.shallow_clone())
    }
}

#[test]
fn a_mask_of_all_changes_nothing_and_one_of_nothing_all() {
    let (_folder, mut cascade) = two();
    let picture = pictures(&SEEDS, 16, 16);
    let plans = plans(&cascade, Solver::DpmPp2M, 0.75);
    let with =
        |cascade: &mut Cascade, mask: Option<&Tensor>| drawn(cascade, &plans, Some(Edit { picture: &picture, mask }));
    let ones = Tensor::ones([1, 1, 2, 2], (Kind::Float, Device::Cpu));
    assert!(with(&mut cascade, Some(&ones)).equal(&with(&mut cascade, None)));
    assert!(with(&mut cascade, Some(&(ones * 0.0))).equal(&picture));
}

/// A row of a batch, and a batch of several turns.
#[test]
fn each_picture_is_edited_by_itself() {
    let model = Model::new(&network(false), 8);
    let (picture, mask) = (pictures(&SEEDS, 8, 8), Tensor::cat(&[left(8), 1.0 - left(8)], 0));
    let edit = Edit { picture: &picture, mask: Some(&mask) };
    let mut cascade = model.open(Residency::Relay);
    let plans = plans(&cascade, Solver::DpmPp2M, 0.8);
    let both = drawn(&mut cascade, &plans, Some(edit));
    let conditioning = embeddings(&SEEDS);
    let mut log = Log::default();
    let job = CascadeJob { edit: Some(edit), batch: 1, ..CascadeJob::new(&plans, &conditioning, &SEEDS) };
    cascade.run(job, &mut log).unwrap();
    assert!(difference(&both, &log.pictures()) < 1e-4);
}

#[test]
fn what_does_not_fit_is_named() {
    let (_folder, mut cascade) = two();
    let conditioning = embeddings(&SEEDS);
    let mut refused = |plans: &[StagePlan], edit: Option<Edit<'_>>, low_res: Option<&Tensor>| {
        let job = CascadeJob { edit, low_res, ..CascadeJob::new(plans, &conditioning, &SEEDS) };
        cascade.run(job, &mut Log::default()).unwrap_err()
    };
    let (picture, small) = (pictures(&SEEDS, 8, 8), pictures(&[1, 2, 3], 8, 8));
    let (_other, whole) = two();
    let half = plans(&whole, Solver::Euler, 0.5);
    for (edit, culprit) in [
        (None, "edit"),
        (Some(Edit { picture: &small, mask: None }), "edit.picture"),
        (Some(Edit { picture: &picture, mask: Some(&picture) }), "edit.mask"),
    ] {
        let error = refused(&half, edit, None);
        assert!(matches!(&error, Error::Job { input, .. } if *input == culprit), "{error}");
    }
    let above = whole.plan(1..=1, (None, None), |_| None).unwrap();
    let error = refused(&above, Some(Edit { picture: &picture, mask: None }), Some(&picture));
    assert!(error.to_string().contains("enlarges a picture"), "{error}");
}
