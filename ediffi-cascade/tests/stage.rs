//! A stage samples the same picture however it is asked to, tells what it does and stops at once.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{Ask, Log, Model, bytes, difference, dimensions, embeddings, network, pictures};
use ediffi_cascade::{Error, SamplerSettings, Stage, StageEvent, StageObserver};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::{Guidance, Rows};
use ediffi_core::interval::SigmaInterval;
use ediffi_core::nn::{ScoreBias, Site};
use ediffi_core::pool::Residency;
use ediffi_core::solver::{Churn, Solver};
use ediffi_core::unet::{Adm, UNetConfig};
use tch::{Kind, Tensor};

fn sample(stage: &mut Stage, seeds: &[u64], change: impl FnOnce(&mut Ask)) -> Tensor {
    let mut ask = Ask::new(stage, seeds);
    change(&mut ask);
    stage.sample(ask.job(), &mut ()).unwrap()
}

#[test]
fn a_batch_of_four_equals_four_of_one() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let seeds = [3, 1, 4, 15];
    for rows in [Rows::Batched, Rows::Sequential] {
        let batch = sample(&mut stage, &seeds, |ask| ask.settings.rows = rows);
        assert_eq!(batch.size(), [4, 3, 8, 8]);
        for (row, seed) in seeds.iter().enumerate() {
            let alone = sample(&mut stage, &[*seed], |ask| ask.settings.rows = rows);
            // The matrix products of another batch size may add in another order: 6e-6 were measured, a 1300th of an 8-bit step.
            let off = difference(&batch.narrow(0, row as i64, 1), &alone);
            assert!(off < 5e-5, "{rows:?}, row {row}: {off}");
        }
    }
}

#[test]
fn batched_and_sequential_guidance_agree() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let [batched, sequential] =
        [Rows::Batched, Rows::Sequential].map(|rows| sample(&mut stage, &[1, 2], |ask| ask.settings.rows = rows));
    assert!(difference(&batched, &sequential) < 5e-5);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let first = sample(&mut stage, &[7], |_| ());
    assert_eq!(bytes(&first), bytes(&sample(&mut stage, &[7], |_| ())));
    assert_eq!(bytes(&first), bytes(&sample(&mut model.open(Residency::All), &[7], |_| ())));
    // The embeddings stay those of seed 7: only the noise differs.
    let other = sample(&mut stage, &[8], |ask| ask.conditioning = embeddings(&[7]));
    assert!(difference(&first, &other) > 1e-3);
    let other = sample(&mut stage, &[7], |ask| ask.stage_index = 1);
    assert!(difference(&first, &other) > 1e-3);
}

#[test]
fn pictures_are_finite_and_in_range() {
    let model = Model::new(&network(false), 8);
    let picture = sample(&mut model.open(Residency::All), &[1, 2], |ask| ask.size = (6, 10));
    assert_eq!((picture.size(), picture.kind()), (vec![2, 3, 6, 10], Kind::Float));
    let (low, high) = (f64::try_from(picture.min()).unwrap(), f64::try_from(picture.max()).unwrap());
    assert!((-1.0..=1.0).contains(&low) && (-1.0..=1.0).contains(&high) && low < high);
}

#[test]
fn residency_does_not_change_a_bit() {
    let model = Model::new(&network(false), 8);
    let mut all = model.open(Residency::All);
    assert_eq!(all.resident(), [0_usize; 0]);
    let expected = bytes(&sample(&mut all, &[1, 2], |_| ()));
    assert_eq!(all.resident(), [0, 1]);
    for residency in [Residency::Relay, Residency::RelayPrefetch] {
        let mut relay = model.open(residency);
        for _ in 0..2 {
            assert_eq!(bytes(&sample(&mut relay, &[1, 2], |_| ())), expected, "{residency:?}");
            assert_eq!(relay.resident(), [1]);
        }
        relay.release();
        assert_eq!(relay.resident(), [0_usize; 0]);
    }
}

#[test]
fn every_expert_works_where_the_plan_says() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::Relay);
    let plan = stage.plan(&stage.settings()).unwrap();
    assert_eq!(plan.experts().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(stage.resident(), [0_usize; 0]);
    // Without its own expert's weights, a step would not change.
    let with = sample(&mut stage, &[1], |_| ());
    common::write_weights(&model.folder.path().join("base/low.safetensors"), &network(false), 3);
    assert!(difference(&with, &sample(&mut stage, &[1], |_| ())) > 1e-3);
}

#[test]
fn an_expert_may_have_its_own_network() {
    let mut model = Model::new(&network(false), 8);
    let mut small = dimensions(false);
    small.levels[1].multiplier = 1;
    small.levels[1].self_attention = false;
    let small = UNetConfig::from(Adm(small));
    let text = serde_json::to_string(&small).unwrap();
    std::fs::write(model.folder.path().join("base/small.json"), text).unwrap();
    common::write_weights(&model.folder.path().join("base/high.safetensors"), &small, 5);
    model.config.experts[0].network = Some("base/small.json".into());
    let mut stage = model.open(Residency::All);
    assert_eq!(stage.networks()[0], small);
    let _ = sample(&mut stage, &[1], |_| ());
}

#[test]
fn guidance_leans_away_from_the_unconditional() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let plain = sample(&mut stage, &[1], |_| ());
    assert!(difference(&plain, &sample(&mut stage, &[1], |ask| ask.unconditional = embeddings(&[77]))) > 1e-3);
    // A scale of 1 does not look at it.
    let mut unguided = |unconditional| {
        bytes(&sample(&mut stage, &[1], |ask| {
            ask.settings.guidance = Guidance::new(1.0);
            ask.unconditional = unconditional;
        }))
    };
    assert_eq!(unguided(embeddings(&[77])), unguided(Conditioning::default()));
}

#[test]
fn a_fresh_thread_tracks_no_gradients() {
    let model = Model::new(&network(false), 8);
    std::thread::spawn(move || {
        let mut conditioning = embeddings(&[1]);
        conditioning.t5 = conditioning.t5.map(|t5| t5.set_requires_grad(true));
        assert!(conditioning.t5.as_ref().unwrap().square().requires_grad());
        for residency in [Residency::All, Residency::RelayPrefetch] {
            let picture =
                sample(&mut model.open(residency), &[1], |ask| ask.conditioning = conditioning.shallow_clone());
            assert!(!picture.requires_grad());
        }
        // And leaves the thread as it was.
        assert!(conditioning.t5.as_ref().unwrap().square().requires_grad());
    })
    .join()
    .unwrap();
}

#[test]
fn the_observer_is_told_everything_in_order() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let mut log = Log::default();
    let _ = stage.sample(Ask::new(&stage, &[1]).job(), &mut log).unwrap();
    let expected = [
        "base starts: 4 steps, 4 evaluations",
        "base: expert 0 [1, inf)",
        "base: step 0 of 4 at 80.000",
        "base: step 1 of 4 at 9.723",
        "base: expert 1 [0, 1)",
        "base: step 2 of 4 at 0.470",
        "base: step 3 of 4 at 0.002",
        "base is done",
    ];
    assert_eq!(log.lines, expected);
    // Four evaluations and two switches.
    assert_eq!(log.polls, 6);
}

/// Counts what it sees, asks to stop during evaluation number `stop`, and paints nothing.
#[derive(Debug, Default)]
struct Counting {
    sites: Arc<AtomicUsize>,
    rows: Arc<Mutex<Vec<i64>>>,
    stop: Option<(usize, Arc<AtomicBool>)>,
}

impl ScoreBias for Counting {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Tensor>> {
        assert_eq!((site.height, site.width), (4, 4));
        self.rows.lock().unwrap().push(site.scores.size()[0]);
        // The network of these tests has four cross-attention layers.
        let sites = self.sites.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some((stop, flag)) = &self.stop {
            flag.fetch_or(sites.div_ceil(SITES) == *stop, Ordering::SeqCst);
        }
        Ok(None)
    }
}

/// Cross-attention layers of the network: one on the way down, one in the middle, two on the way up.
const SITES: usize = 4;

struct Flag(Arc<AtomicBool>);

impl StageObserver for Flag {
    fn event(&mut self, _event: &StageEvent<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn cancelled(&mut self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a_cancelled_run_makes_no_further_evaluation() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let expected = bytes(&sample(&mut stage, &[1], |_| ()));
    for solver in Solver::deterministic() {
        for stop in 1..=3 {
            let flag = Arc::new(AtomicBool::new(false));
            let hook = Counting { stop: Some((stop, Arc::clone(&flag))), ..Counting::default() };
            let sites = Arc::clone(&hook.sites);
            let mut ask = Ask::new(&stage, &[1]);
            ask.settings.solver = solver;
            ask.paint = Some(Box::new(hook));
            let result = stage.sample(ask.job(), &mut Flag(flag));
            assert!(matches!(result, Err(Error::Cancelled)), "{solver}: {result:?}");
            assert_eq!(sites.load(Ordering::SeqCst), stop * SITES, "{solver}");
        }
    }
    // Nothing of it is left.
    assert_eq!(bytes(&sample(&mut stage, &[1], |_| ())), expected);
}

#[test]
fn every_question_and_every_event_can_stop_the_run() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let ask = Ask::new(&stage, &[1]);
    for stop in 1..=6 {
        let mut log = Log { stop: Some(stop), ..Log::default() };
        let result = stage.sample(ask.job(), &mut log);
        assert!(matches!(result, Err(Error::Cancelled)));
        assert_eq!(log.polls, stop);
    }
    for stop in 1..=8 {
        let mut events = 0;
        let mut observer = |_: &StageEvent<'_>| {
            events += 1;
            if events == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = stage.sample(ask.job(), &mut observer);
        assert!(matches!(result, Err(Error::Cancelled)));
        assert_eq!(events, stop);
    }
}

#[test]
fn a_hook_that_paints_nothing_changes_no_bit_and_sees_conditional_rows_only() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let seeds = [1, 2, 3];
    for rows in [Rows::Batched, Rows::Sequential] {
        let hook = Counting::default();
        let seen = Arc::clone(&hook.rows);
        let without = sample(&mut stage, &seeds, |ask| ask.settings.rows = rows);
        let with = sample(&mut stage, &seeds, |ask| {
            ask.settings.rows = rows;
            ask.paint = Some(Box::new(hook));
        });
        assert_eq!(bytes(&without), bytes(&with), "{rows:?}");
        // Four steps, and in each the conditional rows once.
        assert_eq!(*seen.lock().unwrap(), vec![3; 4 * SITES], "{rows:?}");
    }
}

/// Pulls everything towards the first T5 token.
#[derive(Debug)]
struct FirstToken;

impl ScoreBias for FirstToken {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Tensor>> {
        let bias = Tensor::f_zeros([1, 1, 1, site.scores.size()[3]], (Kind::Float, site.scores.device()))?;
        let _ = bias.f_narrow(3, 0, 1)?.f_fill_(5.0)?;
        Ok(Some(bias))
    }
}

#[test]
fn paint_changes_the_picture() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let plain = sample(&mut stage, &[1], |_| ());
    let painted = sample(&mut stage, &[1], |ask| ask.paint = Some(Box::new(FirstToken)));
    assert!(difference(&plain, &painted) > 1e-4);
}

#[test]
fn a_limited_guidance_and_every_solver_run() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let interval = Some(SigmaInterval::new(0.2, 20.0).unwrap());
    for solver in Solver::deterministic().chain([Solver::Heun(Churn { s_churn: 4.0, ..Churn::NONE })]) {
        let [first, again] = [(), ()].map(|()| {
            sample(&mut stage, &[1], |ask| {
                let guidance = Guidance { interval, ..Guidance::new(3.0) };
                ask.settings = SamplerSettings { solver, guidance, ..ask.settings.clone() };
            })
        });
        assert_eq!(bytes(&first), bytes(&again), "{solver}");
    }
}

#[test]
fn super_resolution_looks_at_the_smaller_picture() {
    let model = Model::new(&network(true), 8);
    let mut stage = model.open(Residency::All);
    assert!(stage.is_super_resolution());
    let seeds = [1, 2];
    let small = pictures(&seeds, 4, 4);
    let picture = sample(&mut stage, &seeds, |ask| ask.low_res = Some(small.shallow_clone()));
    let other = sample(&mut stage, &seeds, |ask| ask.low_res = Some(small.neg()));
    assert!(difference(&picture, &other) > 1e-3);
}
