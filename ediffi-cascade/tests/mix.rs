//! Several prompts in one picture, and stages that are told their own.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::{CPU, Log, Model, bytes, difference, dimensions, embeddings, network, pictures, write_stage};
use ediffi_cascade::{Cascade, CascadeJob, Mixed, SettingsPatch, Share, Stage, StagePlan, Told};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::Rows;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::nn::{Bias, ScoreBias, Site};
use ediffi_core::pool::Residency;
use ediffi_core::solver::{Churn, FreshNoise, Solver};
use ediffi_core::unet::{Adm, ContextConfig, UNetConfig};
use serde_json::json;
use tch::Tensor;

const SEEDS: [u64; 2] = [1, 2];

fn plans(cascade: &Cascade, patch: serde_json::Value) -> Vec<StagePlan> {
    let patch: SettingsPatch = serde_json::from_value(patch).unwrap();
    cascade.plan(0..=cascade.stages().len() - 1, (None, None), |_| Some(&patch)).unwrap()
}

fn drawn(cascade: &mut Cascade, job: CascadeJob<'_>) -> Tensor {
    let mut log = Log::default();
    cascade.run(job, &mut log).unwrap();
    log.pictures()
}

fn mixed(conditioning: &Conditioning, share: f64, sigma: (f64, f64)) -> Mixed<'_> {
    Mixed { conditioning, share: Share { share, sigma: SigmaInterval::new(sigma.0, sigma.1).unwrap() } }
}

fn mixing<'a>(plans: &'a [StagePlan], rows: Rows, own: &'a Conditioning, mixed: &'a [Mixed<'a>]) -> CascadeJob<'a> {
    CascadeJob { rows, mixed, ..CascadeJob::new(plans, own, &SEEDS) }
}

const ALL: (f64, f64) = (0.0, f64::INFINITY);

/// Two prompts, and the one-stage model.
fn model() -> (Model, [Conditioning; 2]) {
    (Model::new(&network(false), 8), [embeddings(&SEEDS), embeddings(&[3, 4])])
}

#[test]
fn with_everything_another_prompt_is_the_only_one_and_with_nothing_it_is_none() {
    let (model, [a, b]) = model();
    let churn = Churn { s_churn: 4.0, ..Churn::NONE };
    for (solver, rows) in [
        (Solver::Euler, Rows::Batched),
        (Solver::Heun(churn), Rows::Sequential),
        (Solver::Kutta3, Rows::Batched),
        (Solver::TabDeis { order: 3 }, Rows::Batched),
        (Solver::DpmPp2M, Rows::Sequential),
        (Solver::DpmPp2MSde(FreshNoise::default()), Rows::Batched),
        (Solver::EulerAncestral, Rows::Batched),
        (Solver::Plms, Rows::Batched),
    ] {
        let mut cascade = model.open(Residency::Relay);
        let plans = plans(&cascade, json!({ "solver": solver }));
        let single = [&a, &b].map(|prompt| bytes(&drawn(&mut cascade, mixing(&plans, rows, prompt, &[]))));
        assert_ne!(single[0], single[1]);
        let mut with = |mixed: &[Mixed<'_>]| bytes(&drawn(&mut cascade, mixing(&plans, rows, &a, mixed)));
        assert_eq!(with(&[mixed(&b, 0.0, ALL)]), single[0], "{solver:?}");
        assert_eq!(with(&[mixed(&b, 1.0, (90.0, 100.0))]), single[0], "{solver:?}");
        assert_eq!(with(&[mixed(&b, 1.0, ALL)]), single[1], "{solver:?}");
        assert_eq!(with(&[mixed(&b, 1.0, (0.0, 1.0)), mixed(&b, 1.0, (1.0, 200.0))]), single[1], "{solver:?}");
        // From the other side: the other prompt leads, and this one takes over where it did not.
        let late = with(&[mixed(&b, 1.0, (0.0, 1.0))]);
        let other = [mixed(&a, 1.0, (1.0, 200.0))];
        assert_eq!(late, bytes(&drawn(&mut cascade, mixing(&plans, rows, &b, &other))), "{solver:?}");
        assert!(late != single[0] && late != single[1], "{solver:?}");
    }
}

/// A picture of one step is the estimate itself.
#[test]
fn a_mixed_picture_is_the_mean_by_the_shares() {
    let (model, [a, b]) = model();
    for rows in [Rows::Batched, Rows::Sequential] {
        let mut cascade = model.open(Residency::All);
        let plans = plans(&cascade, json!({ "solver": "euler", "schedule": { "custom": [0.1, 0.0] } }));
        let single = [&a, &b].map(|prompt| drawn(&mut cascade, mixing(&plans, rows, prompt, &[])));
        assert!(difference(&single[0], &single[1]) > 1e-3);
        let both = [mixed(&b, 0.25, ALL)];
        let mixed = drawn(&mut cascade, mixing(&plans, rows, &a, &both));
        assert!(difference(&mixed, &(&single[0] * 0.75 + &single[1] * 0.25)) < 1e-5);
    }
}

/// Changes every score.
#[derive(Debug)]
struct Painted;

impl ScoreBias for Painted {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        Ok(Some(Bias::Dense(site.scores()?.f_sin()?)))
    }
}

#[test]
fn paint_is_of_the_first_prompt_s_words() {
    let (model, [a, b]) = model();
    let mut cascade = model.open(Residency::All);
    let plans = plans(&cascade, json!({}));
    let job = |paint| CascadeJob { paint, ..CascadeJob::new(&plans, &a, &SEEDS) };
    let (whole, half) = ([mixed(&b, 1.0, ALL)], [mixed(&b, 0.5, ALL)]);
    let mut with = |paint, mixed| bytes(&drawn(&mut cascade, CascadeJob { mixed, ..job(paint) }));
    assert_ne!(with(Some(&Painted), &[]), with(None, &[]));
    assert_ne!(with(Some(&Painted), &half), with(None, &half));
    assert_eq!(with(Some(&Painted), &whole), with(None, &whole));
}

#[test]
fn a_stage_is_told_its_own() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let stages = [("base", 8, network(false)), ("above", 16, network(true))].map(|(name, size, network)| {
        let config = write_stage(folder.path(), name, size, &network);
        Stage::open(folder.path(), &config, CPU, Residency::All).unwrap()
    });
    let mut cascade = Cascade::new(stages.into()).unwrap();
    let (a, b, none) = (embeddings(&SEEDS), embeddings(&[3, 4]), Conditioning::default());
    let plans = plans(&cascade, json!({}));
    let job = |told| CascadeJob { told, ..CascadeJob::new(&plans, &a, &SEEDS) };
    let plain = drawn(&mut cascade, job(&[]));
    let same = [Told { stage: "above", conditioning: &a, unconditional: &none }];
    assert_eq!(bytes(&drawn(&mut cascade, job(&same))), bytes(&plain));
    // The first stage, and the second from what it drew.
    let small = drawn(&mut cascade, CascadeJob::new(&plans[..1], &a, &SEEDS));
    let above = CascadeJob { low_res: Some(&small), unconditional: &a, ..CascadeJob::new(&plans[1..], &b, &SEEDS) };
    let above = drawn(&mut cascade, above);
    let other = [Told { stage: "above", conditioning: &b, unconditional: &a }];
    let told = drawn(&mut cascade, job(&other));
    assert_eq!(bytes(&told), bytes(&above));
    assert_ne!(bytes(&told), bytes(&plain));
}

/// Its estimates under all prompts are the same: it makes one.
#[test]
fn a_stage_without_text_evaluates_once() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let without = |kept: fn(&mut ContextConfig)| {
        let mut dimensions = dimensions(true);
        dimensions.context.iter_mut().for_each(kept);
        UNetConfig::from(Adm(dimensions))
    };
    let wordless = without(|context| (context.t5, context.clip_text) = (None, None));
    let stages = [("base", 8, network(false)), ("above", 16, wordless)].map(|(name, size, network)| {
        let config = write_stage(folder.path(), name, size, &network);
        Stage::open(folder.path(), &config, CPU, Residency::All).unwrap()
    });
    let mut cascade = Cascade::new(stages.into()).unwrap();
    let (a, mut b) = (embeddings(&SEEDS), embeddings(&[3, 4]));
    b.clip_image = a.clip_image.as_ref().map(Tensor::shallow_clone);
    let (plans, small) = (plans(&cascade, json!({ "solver": "euler" })), pictures(&SEEDS, 8, 8));
    // Before each evaluation there is a question.
    let mut asked = |own: &Conditioning, mixed: &[Mixed<'_>]| {
        let job = CascadeJob { low_res: Some(&small), ..mixing(&plans[1..], Rows::Batched, own, mixed) };
        let mut log = Log::default();
        cascade.run(job, &mut log).unwrap();
        (log.polls, bytes(&log.pictures()))
    };
    let alone = asked(&a, &[]);
    assert_eq!(asked(&a, &[mixed(&b, 0.5, ALL)]), alone);
    // What CLIP saw is another picture: that is seen.
    let other = embeddings(&[3, 4]);
    let both = asked(&a, &[mixed(&other, 0.5, ALL)]);
    assert!(both.0 > alone.0 && both.1 != alone.1);
}

#[test]
fn what_does_not_fit_is_named() {
    let (model, [a, b]) = model();
    let mut cascade = model.open(Residency::All);
    let plans = plans(&cascade, json!({}));
    let mut refused = |mixed: &[Mixed<'_>], told: &[Told<'_>]| {
        let job = CascadeJob { mixed, told, ..CascadeJob::new(&plans, &a, &SEEDS) };
        cascade.run(job, &mut Log::default()).unwrap_err().to_string()
    };
    let rows = refused(&[mixed(&embeddings(&[1, 2, 3]), 0.5, ALL)], &[]);
    assert!(rows.contains("mixed") && rows.contains("3 rows"), "{rows}");
    let sum = refused(&[mixed(&b, 0.75, ALL), mixed(&b, 0.5, ALL)], &[]);
    assert!(sum.contains("mixed") && sum.contains("1.25"), "{sum}");
    let stage = refused(&[], &[Told { stage: "above", conditioning: &b, unconditional: &b }]);
    assert!(stage.contains("told") && stage.contains("`above`"), "{stage}");
}
