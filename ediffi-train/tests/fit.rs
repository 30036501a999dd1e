//! Small U-Nets trained on pictures of noise: the loss of a base and of super-resolution, resume, parents, exports.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../ediffi-core/tests/common/mod.rs"]
mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::devices;
use ediffi_cascade::low_res::enlarge;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::nn::Norm;
use ediffi_core::precondition::{Edm, Sample};
use ediffi_core::unet::{ContextConfig, Dimensions, Efficient, Level, Tokens};
use ediffi_core::weights::{Fresh, Params};
use ediffi_train::batch::Batch;
use ediffi_train::corruption::Corruption;
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::fit::{Setup, fit};
use ediffi_train::learner::{Learner, Objective};
use ediffi_train::lineage::Lineage;
use ediffi_train::log::Entry;
use ediffi_train::loss::denoising_loss;
use ediffi_train::noise::NoiseLevels;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::random::{batch_rng, normal};
use ediffi_train::run::{Begin, Run};
use ediffi_train::state::{Shared, TrainState};
use ediffi_train::{Error, Result};
use tch::{Device, Kind, Tensor};

const ROWS: i64 = 4;
const SEED: u64 = 7;

fn layout(low_res: bool) -> Efficient {
    let level = Level { multiplier: 1, blocks: 1, self_attention: false, cross_attention: true };
    let t5 = Some(Tokens { tokens: 3, width: 6 });
    Efficient(Dimensions {
        picture_channels: 3,
        low_res,
        patch: 2,
        channels: 8,
        levels: vec![level],
        head_channels: 8,
        norm: Norm::Group(4),
        embedding_width: 16,
        context: Some(ContextConfig { width: 8, t5, clip_text: None, clip_image: None }),
        detail: None,
    })
}

/// Batch `number`: pictures of noise, perhaps with smaller ones, and random embeddings.
fn batch(number: u64, low_res: bool) -> Result<Batch<Tensor>> {
    let mut rng = batch_rng(3, number);
    let pictures = normal(&mut rng, &[ROWS, 3, 8, 8])?.f_tanh()?;
    let smaller = low_res.then(|| pictures.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)).transpose()?;
    Ok(Batch { pictures, smaller, text: normal(&mut rng, &[ROWS, 3, 6])? })
}

fn levels() -> NoiseLevels {
    NoiseLevels::new(LogNormal::default(), SigmaInterval::ALL)
}

type Encode = fn(&Batch<Tensor>) -> Result<Conditioning>;

fn learner(params: &mut dyn Params, low_res: bool, objective: Objective) -> Result<Learner<Encode>> {
    let encode: Encode = |batch| Ok(Conditioning { t5: Some(batch.text.shallow_clone()), ..Conditioning::default() });
    Learner::new(params, &layout(low_res), Kind::Float, objective, encode)
}

/// Everything random in a batch is drawn from the batch's own stream: corruption, dropout, noise levels, noise. A run that is
/// resumed by a later version has to draw the same.
#[test]
fn the_loss_is_made_of_its_parts_in_their_order() {
    for device in devices() {
        for low_res in [false, true] {
            // Some of the four rows lose their embeddings.
            let dropout = ConditioningDropout { t5: 0.75, ..ConditioningDropout::default() };
            let objective = Objective { dropout, ..Objective::new(Sample::default(), levels(), SEED) };
            let made = |params: &mut dyn Params| learner(params, low_res, objective.clone()).unwrap();
            let mut fresh = Fresh::new(1, device);
            let _ = made(&mut fresh);
            // The last layer of a new network is zero and hides the conditioning.
            let jittered = |(number, (name, x)): (u64, (String, Tensor))| {
                let jitter = normal(&mut batch_rng(1, number), &x.size()).unwrap().to_device(device) * 0.1;
                (name, x + jitter)
            };
            let parameters: Vec<_> = (0..).zip(fresh.into_named()).map(jittered).collect();
            let learner = made(&mut Shared(&parameters));
            let batch = batch(2, low_res).unwrap();
            let got: Tensor = learner.loss(5, &batch).unwrap();

            let mut rng = batch_rng(SEED, 5);
            let clean = batch.pictures.to_device(device);
            let low_res = batch.smaller.as_ref().map(|smaller| {
                let spoilt = Corruption::for_64().corrupt(smaller, &mut rng).unwrap();
                enlarge(&spoilt.to_device(device), 8, 8).unwrap()
            });
            let t5 = Some(batch.text.shallow_clone());
            let conditioning = Conditioning { t5, low_res, ..Conditioning::default() };
            let whole = &batch.text;
            let conditioning = dropout.apply(&conditioning, ROWS, &mut rng).unwrap();
            assert_ne!(conditioning.t5.as_ref(), Some(whole), "no row lost its embeddings");
            let context = learner.network.context(&conditioning, ROWS).unwrap();
            let sigmas = levels().draw(ROWS as usize, &mut rng).unwrap();
            let noise = normal(&mut rng, &clean.size()).unwrap().to_device(device);
            let losses = denoising_loss(&Sample::default(), &clean, &noise, &sigmas, |x, c_noise| {
                learner.network.forward(x, c_noise, &context, None)
            });
            let expected = losses.unwrap().mean(Kind::Float);
            let (got, expected) = (got.double_value(&[]), expected.double_value(&[]));
            assert!((got / expected - 1.0).abs() < 1e-5, "{device:?}: {got} instead of {expected}");
        }
    }
}

#[test]
fn a_batch_that_does_not_fit_the_network_is_an_error() {
    let made = |low_res| {
        let objective = Objective::new(Edm::default(), levels(), SEED);
        learner(&mut Fresh::new(1, Device::Cpu), low_res, objective).unwrap()
    };
    // A base that is given smaller pictures, super-resolution that is not.
    for low_res in [false, true] {
        let error: Error = made(low_res).loss(0, &batch(0, !low_res).unwrap()).unwrap_err();
        assert!(matches!(error, Error::Core { .. }), "{error}");
    }
    let mut short = batch(0, false).unwrap();
    short.text = short.text.narrow(0, 0, 1);
    let error: Error = made(false).loss(0, &short).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

fn run<'a>(folder: &'a Path, name: &'a str, steps: u64, begin: Begin) -> Run<'a> {
    let (checkpoint_every, lineage) = (Duration::from_secs(3600), Lineage::default().with("seed", SEED));
    Run { name, folder, begin, steps, batch: 4, accumulate: 2, first_batch: 10, checkpoint_every, lineage }
}

/// Trains super-resolution, stopped after `stop` steps.
fn train(run: &Run<'_>, device: Device, parent: Option<PathBuf>, stop: u64) -> TrainState {
    let optimizer = AdamWSettings { learning_rate: 1e-2, warm_up: 1, ..AdamWSettings::default() };
    let setup = Setup { seed: 1, parent, device, kind: Kind::Float, optimizer, ema: 0.9, workers: 2 };
    let learner = |params: &mut dyn Params| {
        let learner = learner(params, true, Objective::new(Edm::default(), levels(), SEED))?;
        Ok(move |number, (made, batch): (u64, Batch<Tensor>)| {
            assert_eq!(number, made);
            learner.loss(number, &batch)
        })
    };
    let observe = |state: &TrainState, _: Option<&Entry>| {
        Ok(if state.step() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let first = run.first_batch;
    let data = move |number| {
        assert!(number >= first, "batch {number} is not of this run");
        Ok((number, batch(number, true)?))
    };
    let state: Result<TrainState> = fit(run, &setup, data, learner, observe);
    state.unwrap()
}

fn apart(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|((_, a), (_, b))| (a - b).abs().max().double_value(&[])).fold(0.0, f64::max)
}

#[test]
fn a_run_that_is_stopped_and_resumed_is_the_run_that_was_not() {
    for device in devices() {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let whole = train(&run(whole.path(), "net", 4, Begin::New), device, None, u64::MAX);
        let stopped = train(&run(parts.path(), "net", 4, Begin::New), device, None, 2);
        assert_eq!((stopped.step(), whole.step(), whole.pictures()), (2, 4, 32));
        let resumed = train(&run(parts.path(), "net", 4, Begin::Resume), device, None, u64::MAX);
        // On a GPU, sums of gradients have no fixed order.
        let rounding = if device == Device::Cpu { 0.0 } else { 1e-3 };
        assert!(apart(resumed.parameters(), whole.parameters()) <= rounding, "{device:?}");
        assert!(apart(resumed.average(), whole.average()) <= rounding, "{device:?}");
        assert!(apart(stopped.parameters(), whole.parameters()) > 5e-3, "a step moves by about the learning rate");
    }
}

#[test]
fn a_child_begins_as_its_parent_and_an_export_is_not_trained_again() {
    let folder = tempfile::tempdir().unwrap();
    let shared = run(folder.path(), "shared", 2, Begin::Resume);
    let export = folder.path().join("shared.safetensors");
    assert!(!shared.is_trained(&export).unwrap());
    let parent = train(&shared, Device::Cpu, None, u64::MAX);
    parent.export(&export, "", Kind::Float, shared.lineage.notes()).unwrap();
    assert!(shared.is_trained(&export).unwrap());
    assert!(!run(folder.path(), "shared", 3, Begin::Resume).is_trained(&export).unwrap(), "one step is missing");
    let other = Run { lineage: Lineage::default().with("seed", 8), ..shared.clone() };
    assert!(matches!(other.is_trained(&export), Err(Error::Lineage { .. })));

    let child = train(&run(folder.path(), "child", 0, Begin::New), Device::Cpu, Some(export.clone()), u64::MAX);
    assert_eq!(apart(child.parameters(), parent.average()), 0.0);
    let child = train(&run(folder.path(), "child", 1, Begin::Resume), Device::Cpu, Some(export.clone()), u64::MAX);
    let moved = apart(child.parameters(), parent.average());
    assert!(moved > 5e-3 && moved < 2e-2, "{moved}");
    // Resumed from its checkpoint, it does not go back to its parent.
    let again = train(&run(folder.path(), "child", 1, Begin::Resume), Device::Cpu, Some(export.clone()), u64::MAX);
    assert_eq!(apart(again.parameters(), child.parameters()), 0.0);

    // Of the average, nine tenths stay in every step. It does not hurry away from trained weights, before a resume or after.
    let mean = |average: &[(String, Tensor)], weights: &[(String, Tensor)]| -> Vec<(String, Tensor)> {
        average.iter().zip(weights).map(|((name, a), (_, w))| (name.clone(), a * 0.9 + w.detach() * 0.1)).collect()
    };
    let first = mean(parent.average(), child.parameters());
    assert!(apart(child.average(), &first) < 1e-6);
    let second = train(&run(folder.path(), "child", 2, Begin::Resume), Device::Cpu, Some(export.clone()), u64::MAX);
    assert!(apart(second.average(), &mean(&first, second.parameters())) < 1e-6);

    Begin::Resume.discard(&export).unwrap();
    assert!(export.is_file());
    Begin::Restart.discard(&export).unwrap();
    assert!(!export.exists());
    Begin::Restart.discard(&export).unwrap();
}
