//! A stage samples the same picture however it is asked to, tells what it does and stops at once.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{Ask, Log, Model, bytes, difference, dimensions, embeddings, network, pictures, sample};
use ediffi_cascade::{
    Error, ExpertFiles, PreconditionConfig, SamplerSettings, Stage, StageConfig, StageEvent, StageObserver,
    WeakerConfig, low_res,
};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::{Branch, BranchDenoiser, Estimate, estimate_with};
use ediffi_core::guidance::{Against, Guidance, Guided, Rows};
use ediffi_core::interval::SigmaInterval;
use ediffi_core::nn::{Bias, Painted, ScoreBias, Site};
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::precondition::Sample;
use ediffi_core::seed::Noise;
use ediffi_core::solver::{Churn, Solver};
use ediffi_core::unet::{Adm, UNet, UNetConfig};
use ediffi_core::weights::{self, Scope};
use ediffi_core::window::Window;
use tch::{Device, Kind, Tensor};

#[test]
fn a_batch_of_four_equals_four_of_one() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let seeds = [3, 1, 4, 15];
    for rows in [Rows::Batched, Rows::Sequential] {
        let batch = sample(&mut stage, &seeds, |ask| ask.rows = rows);
        assert_eq!(batch.size(), [4, 3, 8, 8]);
        for (row, seed) in seeds.iter().enumerate() {
            let alone = sample(&mut stage, &[*seed], |ask| ask.rows = rows);
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
        [Rows::Batched, Rows::Sequential].map(|rows| sample(&mut stage, &[1, 2], |ask| ask.rows = rows));
    assert!(difference(&batched, &sequential) < 5e-5);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let first = sample(&mut stage, &[7], |_| ());
    assert_eq!(bytes(&first), bytes(&sample(&mut stage, &[7], |_| ())));
    assert_eq!(bytes(&first), bytes(&sample(&mut model.open(Residency::All), &[7], |_| ())));
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
    assert_eq!(all.stages()[0].resident(), [0_usize; 0]);
    let expected = bytes(&sample(&mut all, &[1, 2], |_| ()));
    assert_eq!(all.stages()[0].resident(), [0, 1]);
    for residency in [Residency::Relay, Residency::RelayPrefetch] {
        let mut relay = model.open(residency);
        for _ in 0..2 {
            assert_eq!(bytes(&sample(&mut relay, &[1, 2], |_| ())), expected, "{residency:?}");
            assert!(relay.stages()[0].resident().is_empty());
        }
    }
}

#[test]
fn a_plan_loads_nothing() {
    let model = Model::new(&network(false), 8);
    let stage = model.open(Residency::Relay);
    let plans = stage.plan(0..=0, (None, None), |_| None).unwrap();
    assert_eq!(plans[0].plan.experts().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(stage.stages()[0].resident(), [0_usize; 0]);
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
    is_its_parts(&model, |_| ());
}

#[test]
fn an_expert_may_have_its_own_precondition() {
    let mut model = Model::new(&network(false), 8);
    let shared = sample(&mut model.open(Residency::All), &[1], |_| ());
    model.config.experts[1].precondition = Some(PreconditionConfig::Sample(Sample::default()));
    is_its_parts(&model, |_| ());
    is_its_parts(&model, |ask| ask.unconditional = embeddings(&[77, 78]));
    // EDM keeps c_skip of the noisy picture, and this none of it.
    assert!(difference(&sample(&mut model.open(Residency::All), &[1], |_| ()), &shared) > 0.1);
}

/// Of one network: guidance against itself changes nothing, and a scale of 0 gives the weaker network's own picture.
#[test]
fn autoguidance_leans_away_from_the_weaker_network() {
    let mut model = Model::new(&network(false), 8);
    let draw = |model: &Model, residency, scale: f64, against| {
        let guidance = Guidance { against, ..Guidance::new(scale) };
        sample(&mut model.open(residency), &[1, 2], |ask| ask.settings.guidance = guidance)
    };
    let all_of = |model: &mut Model, weights: &str, precondition| {
        for expert in &mut model.config.experts {
            (expert.weights, expert.precondition) = (weights.into(), precondition);
        }
    };
    let weaker =
        |weights: &str, precondition| Some(WeakerConfig { weights: weights.into(), network: None, precondition });
    let (high, low) = ("base/high.safetensors", "base/low.safetensors");
    let predicting = Some(PreconditionConfig::Sample(Sample::default()));
    all_of(&mut model, low, predicting);
    let own = draw(&model, Residency::All, 1.0, Against::Unconditional);
    all_of(&mut model, high, None);
    let alone = draw(&model, Residency::All, 1.0, Against::Unconditional);
    model.config.weaker = weaker(high, None);
    let itself = draw(&model, Residency::All, 3.0, Against::Weaker);
    assert!(difference(&itself, &alone) < 5e-5);
    model.config.weaker = weaker(low, predicting);
    assert!(difference(&draw(&model, Residency::All, 0.0, Against::Weaker), &own) < 5e-5);
    let leaning = draw(&model, Residency::All, 2.0, Against::Weaker);
    assert!(difference(&leaning, &alone) > 0.01);
    assert_eq!(bytes(&draw(&model, Residency::Relay, 2.0, Against::Weaker)), bytes(&leaning));
}

/// A stage made of the public parts of the core: every expert's network loaded by itself, and its contexts made anew for every
/// evaluation.
struct ByHand<'a> {
    networks: Vec<UNet>,
    preconditions: Vec<PreconditionConfig>,
    ask: &'a Ask,
    low_res: Option<Tensor>,
}

impl ByHand<'_> {
    /// The picture that `ask` should give.
    fn sample(stage: &Stage, ask: &Ask) -> Tensor {
        let load = |files: &ExpertFiles| {
            let build = |scope: Scope<'_>| UNet::new(scope, &files.network, Kind::Float);
            weights::load(&files.weights, |name| Some(name.to_owned()), Device::Cpu, Kind::Float, build).unwrap()
        };
        let (height, width) = (i64::from(ask.size.0), i64::from(ask.size.1));
        let low_res = ask.low_res.as_ref().map(|x| low_res::enlarge(x, height, width).unwrap());
        let StageConfig { experts, precondition, .. } = stage.config();
        let preconditions = experts.iter().map(|expert| expert.precondition.unwrap_or(*precondition)).collect();
        let by_hand = ByHand { networks: stage.files().iter().map(load).collect(), preconditions, ask, low_res };
        let SamplerSettings { solver, guidance, .. } = &ask.settings;
        let sigmas = ask.settings.sigmas(stage.config().precondition.timesteps()).unwrap();
        let mut noise = Noise::new(&ask.seeds, 0);
        let x = noise.normal(&[ask.seeds.len() as i64, 3, height, width]).unwrap();
        let mut guided = Guided::new(by_hand, guidance.clone(), ask.rows).unwrap();
        solver.solve(&mut guided, x, &sigmas, &mut noise, &mut ()).unwrap().clamp(-1.0, 1.0)
    }

    fn with_low_res(&self, conditioning: &Conditioning) -> Conditioning {
        Conditioning { low_res: self.low_res.as_ref().map(Tensor::shallow_clone), ..conditioning.shallow_clone() }
    }
}

impl BranchDenoiser for ByHand<'_> {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> ediffi_core::Result<Estimate> {
        let n = self.ask.seeds.len() as i64;
        let conditional = self.with_low_res(&self.ask.conditioning);
        let unconditional = self.with_low_res(&self.ask.unconditional);
        let (conditioning, rows, painted) = match branch {
            Branch::Conditional => (conditional, n, n),
            Branch::Unconditional => (unconditional, n, 0),
            Branch::Both => (conditional.stacked(&unconditional)?, 2 * n, n),
            Branch::Weaker => return Err(ediffi_core::Error::NoWeakerNetwork),
        };
        // The experts meet at sigma 1.
        let expert = usize::from(sigma < 1.0);
        let network = &self.networks[expert];
        let context = network.context(&conditioning, rows)?;
        let hook = self.ask.paint.as_deref().filter(|_| painted > 0);
        let painted = hook.map(|hook| Painted { hook, sigma, conditional: painted, window: Window::WHOLE });
        estimate_with(&self.preconditions[expert], x, sigma, |input, c_noise| {
            network.forward(input, &Tensor::f_full([rows], c_noise, (Kind::Float, Device::Cpu))?, &context, painted)
        })
    }
}

/// The stage gives what its parts give.
fn is_its_parts(model: &Model, change: impl FnOnce(&mut Ask)) {
    let mut stage = model.open(Residency::All);
    let mut ask = Ask::new(&stage, &[1, 2]);
    change(&mut ask);
    let expected = ByHand::sample(&stage.stages()[0], &ask);
    let off = difference(&ask.run(&mut stage, &mut ()).unwrap(), &expected);
    assert!(off < 1e-6, "{off}");
}

#[test]
fn a_stage_is_its_parts() {
    let model = Model::new(&network(false), 8);
    is_its_parts(&model, |_| ());
    is_its_parts(&model, |ask| (ask.seeds, ask.size) = (vec![8, 3], (6, 10)));
    is_its_parts(&model, |ask| ask.unconditional = embeddings(&[77, 78]));
    is_its_parts(&model, |ask| ask.conditioning.clip_image = None);
    is_its_parts(&model, |ask| ask.paint = Some(Box::new(FirstToken)));
    for rows in [Rows::Batched, Rows::Sequential] {
        is_its_parts(&model, |ask| {
            (ask.rows, ask.unconditional) = (rows, embeddings(&[77, 78]));
            ask.settings.guidance.interval = Some(SigmaInterval::new(0.2, 20.0).unwrap());
            ask.paint = Some(Box::new(FirstToken));
        });
    }
    for solver in Solver::deterministic().chain([Solver::Heun(Churn { s_churn: 4.0, ..Churn::NONE })]) {
        is_its_parts(&model, |ask| ask.settings.solver = solver);
    }
    let above = Model::new(&network(true), 8);
    is_its_parts(&above, |ask| ask.low_res = Some(pictures(&[5, 6], 4, 4)));
    is_its_parts(&above, |ask| (ask.low_res, ask.size) = (Some(pictures(&[5, 6], 4, 6)), (8, 12)));
}

/// A scale of 1 does not look at it.
#[test]
fn without_guidance_the_unconditional_does_not_matter() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
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

/// Counts what it sees, asks to stop during evaluation number `stop`, and paints nothing.
#[derive(Debug, Default)]
struct Counting {
    sites: Arc<AtomicUsize>,
    rows: Arc<Mutex<Vec<i64>>>,
    stop: Option<(usize, Arc<AtomicBool>)>,
}

impl ScoreBias for Counting {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        assert_eq!((site.height, site.width), (4, 4));
        self.rows.lock().unwrap().push(site.shape()[0]);
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
            let result = ask.run(&mut stage, &mut Flag(flag));
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
    let mut run = |mut log: Log| (ask.run(&mut stage, &mut log), log);
    // Four evaluations and two switches; start, two switches, four steps, pictures and end.
    let (whole, log) = run(Log::default());
    assert!(whole.is_ok());
    assert_eq!((log.polls, log.lines.len()), (6, 9));
    for stop in 1..=6 {
        let (result, log) = run(Log { stop_poll: Some(stop), ..Log::default() });
        assert!(matches!(result, Err(Error::Cancelled)));
        assert_eq!(log.polls, stop);
    }
    for stop in 1..=9 {
        let (result, log) = run(Log { stop_event: Some(stop), ..Log::default() });
        assert!(matches!(result, Err(Error::Cancelled)));
        assert_eq!(log.lines.len(), stop);
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
        let without = sample(&mut stage, &seeds, |ask| ask.rows = rows);
        let with = sample(&mut stage, &seeds, |ask| {
            ask.rows = rows;
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
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        let bias = Tensor::f_zeros([1, 1, 1, site.shape()[3]], (Kind::Float, site.device()))?;
        let _ = bias.f_narrow(3, 0, 1)?.f_fill_(5.0)?;
        Ok(Some(Bias::Dense(bias)))
    }
}
