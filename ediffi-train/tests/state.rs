//! A small U-Net under training: checkpoints, resume, export, accumulation and precision.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

#[path = "../../ediffi-core/tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::path::Path;

use common::devices;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::nn::Norm;
use ediffi_core::noise::NoiseSource;
use ediffi_core::precondition::Edm;
use ediffi_core::seed::{Noise, image_seeds, stream};
use ediffi_core::unet::{ContextConfig, Dimensions, Efficient, Level, Tokens, UNet};
use ediffi_core::weights::{self, Fresh, Params, Scope, Spec};
use ediffi_train::Error;
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::loss::denoising_loss;
use ediffi_train::noise::NoiseLevels;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::state::{Shared, TrainState};
use tch::{Device, Kind, Tensor};

const ROWS: usize = 4;

fn config() -> Efficient {
    let level =
        |multiplier, attention| Level { multiplier, blocks: 1, self_attention: attention, cross_attention: attention };
    let t5 = Some(Tokens { tokens: 3, width: 6 });
    Efficient(Dimensions {
        picture_channels: 3,
        low_res: false,
        patch: 2,
        channels: 8,
        levels: vec![level(1, false), level(2, true)],
        head_channels: 8,
        norm: Norm::Group(4),
        embedding_width: 16,
        context: Some(ContextConfig { width: 8, t5, clip_text: None, clip_image: None }),
    })
}

fn begin_as(seed: u64, device: Device, kind: Kind, settings: AdamWSettings) -> (UNet, TrainState) {
    let mut fresh = Fresh::new(seed, device);
    let network = UNet::new(Scope::root(&mut fresh), &config(), kind).unwrap();
    (network, TrainState::new(fresh.into_named(), settings, 0.99).unwrap())
}

fn begin_on(device: Device, seed: u64) -> (UNet, TrainState) {
    begin_as(seed, device, Kind::Float, AdamWSettings { learning_rate: 1e-2, warm_up: 3, ..AdamWSettings::default() })
}

fn begin(seed: u64) -> (UNet, TrainState) {
    begin_on(Device::Cpu, seed)
}

/// The mean loss of rows `rows` of batch `number`, everything random a pure function of the number.
fn loss(network: &UNet, number: u64, rows: std::ops::Range<usize>) -> Tensor {
    let seeds = image_seeds(100 * number, ROWS);
    let (first, count) = (rows.start as i64, rows.len() as i64);
    let part = |x: Tensor| x.narrow(0, first, count).to_device(network.device());
    let normal = |stage: u64, shape: &[i64]| Noise::new(&seeds, stage).normal(shape).unwrap();
    let clean = part(normal(0, &[ROWS as i64, 3, 8, 8]).tanh());
    let noise = part(normal(1, &[ROWS as i64, 3, 8, 8]));
    let mut rng = stream(9, number);
    let sigmas = NoiseLevels::new(LogNormal::default(), SigmaInterval::ALL).draw(ROWS, &mut rng).unwrap();
    let conditioning = Conditioning { t5: Some(normal(2, &[ROWS as i64, 3, 6])), ..Conditioning::default() };
    let dropped = ConditioningDropout::default().apply(&conditioning, ROWS as i64, &mut rng).unwrap();
    let conditioning = Conditioning { t5: dropped.t5.map(part), ..Conditioning::default() };
    let context = network.context(&conditioning, count).unwrap();
    let losses = denoising_loss(&Edm::default(), &clean, &noise, &sigmas[rows], |x, c_noise| {
        network.forward(x, c_noise, &context, None)
    });
    losses.unwrap().mean(Kind::Float)
}

fn train(network: &UNet, state: &mut TrainState, until: u64) {
    while state.step() < until {
        loss(network, state.step(), 0..ROWS).backward();
        state.update(ROWS as u64, 1).unwrap();
    }
}

/// Every tensor of a file, sorted by name.
fn contents(path: &Path) -> Vec<(String, Tensor)> {
    let mut tensors = Tensor::read_safetensors(path).unwrap();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

fn copies(tensors: &[(String, Tensor)]) -> Vec<Tensor> {
    tensors.iter().map(|(_, t)| t.detach().copy()).collect()
}

fn same(tensors: &[(String, Tensor)], copies: &[Tensor]) -> bool {
    tensors.len() == copies.len() && tensors.iter().zip(copies).all(|((_, a), b)| a == b)
}

/// A checkpoint holds weights, both moments and the average, so equal files are equal trainings.
#[test]
fn a_killed_and_resumed_training_is_bit_for_bit_the_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, part) = (folder.path().join("whole.safetensors"), folder.path().join("part.safetensors"));
    let (network, mut state) = begin(1);
    let start = copies(state.parameters());
    train(&network, &mut state, 6);
    assert!(!same(state.parameters(), &start) && !same(state.average(), &start));
    state.save(&whole, HashMap::new()).unwrap();

    let (network, mut state) = begin(1);
    train(&network, &mut state, 3);
    state.save(&part, HashMap::from([("note".to_owned(), "half way".to_owned())])).unwrap();
    // Killed after one step more, which is lost. The next process begins with other start values.
    train(&network, &mut state, 4);
    let (network, mut state) = begin(2);
    state.resume(&part).unwrap();
    assert_eq!((state.step(), state.pictures()), (3, 12));
    assert_eq!(state.rate(), 1e-2);
    train(&network, &mut state, 6);
    state.save(&part, HashMap::new()).unwrap();
    let (whole, part) = (contents(&whole), contents(&part));
    assert_eq!(whole.len(), 4 * state.parameters().len());
    assert!(part.iter().any(|(name, _)| name == "second.stem.weight"));
    for ((name, a), (other, b)) in whole.iter().zip(&part) {
        assert_eq!(name, other);
        assert!(a == b, "{name} differs");
    }
    assert!(part.iter().all(|(_, t)| t.kind() == Kind::Float));
}

#[test]
fn two_half_batches_equal_the_whole() {
    for device in devices() {
        let (network, mut halves) = begin_on(device, 3);
        // The last layer of a new network is zero and hides the gradients of all others.
        train(&network, &mut halves, 2);
        loss(&network, 2, 0..2).backward();
        loss(&network, 2, 2..4).backward();
        let norm = halves.update(ROWS as u64, 2).unwrap();
        let (network, mut whole) = begin_on(device, 3);
        train(&network, &mut whole, 2);
        loss(&network, 2, 0..4).backward();
        let expected = whole.update(ROWS as u64, 1).unwrap();
        assert!((norm / expected - 1.0).abs() < 1e-4, "{norm} {expected}");
        assert_eq!((halves.step(), halves.pictures()), (3, 12));
        // A step of AdamW is nearly the sign of the gradient; the first moment is linear in it.
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
        halves.save(&a, HashMap::new()).unwrap();
        whole.save(&b, HashMap::new()).unwrap();
        for ((name, a), (_, b)) in contents(&a).into_iter().zip(contents(&b)) {
            if name.starts_with("first.") {
                let apart = (&a - &b).abs().max().double_value(&[]);
                assert!(apart < 1e-6, "{name}: {apart}");
            }
        }
    }
}

/// Each rank computes half of the batch on its own thread, in a network of its own over the same weights.
#[test]
fn two_replicas_equal_the_whole() {
    for device in devices() {
        let (network, mut whole) = begin_on(device, 3);
        train(&network, &mut whole, 2);
        loss(&network, 2, 0..4).backward();
        let expected = whole.update(ROWS as u64, 1).unwrap();

        let (network, mut state) = begin_on(device, 3);
        train(&network, &mut state, 2);
        let replicas = [state.replica().unwrap(), state.replica().unwrap()];
        std::thread::scope(|scope| {
            for (replica, rows) in replicas.iter().zip([0..2, 2..4]) {
                let network = UNet::new(Scope::root(&mut replica.source()), &config(), Kind::Float).unwrap();
                scope.spawn(move || loss(&network, 2, rows).backward());
            }
        });
        let norm = state.update_from(&[&replicas[0], &replicas[1]], ROWS as u64, 2).unwrap();
        assert!((norm / expected - 1.0).abs() < 1e-4, "{norm} {expected}");
        for ((name, a), (_, b)) in state.parameters().iter().zip(whole.parameters()) {
            let apart = (a - b).abs().max().double_value(&[]);
            // A step of AdamW moves by the rate, 0.01, in the direction of the gradient, which rounding may turn where it is
            // next to nothing.
            assert!(apart < 1e-3, "{name}: {apart}");
        }
        // The gradients are used up, and the replicas see the new weights.
        let before = copies(state.parameters());
        assert_eq!(state.update_from(&[&replicas[0], &replicas[1]], 0, 1).unwrap(), 0.0);
        assert!(!same(state.parameters(), &before), "momentum goes on");
        let view = UNet::new(Scope::root(&mut replicas[0].source()), &config(), Kind::Float).unwrap();
        assert_eq!(loss(&view, 2, 0..4), loss(&network, 2, 0..4));
    }
}

#[test]
fn a_diverging_step_leaves_everything_as_it_was() {
    for device in devices() {
        let (network, mut state) = begin_on(device, 4);
        train(&network, &mut state, 2);
        let (weights, average) = (copies(state.parameters()), copies(state.average()));
        (loss(&network, 2, 0..ROWS) * f64::NAN).backward();
        let error = state.update(ROWS as u64, 1).unwrap_err();
        assert!(matches!(error, Error::Diverged { step: 2, .. }), "{error}");
        assert!(error.to_string().starts_with("training diverged at step 2"), "{error}");
        assert!(same(state.parameters(), &weights) && same(state.average(), &average));
        assert_eq!((state.step(), state.pictures()), (2, 8));
        train(&network, &mut state, 3);
    }
}

#[test]
fn the_checkpoint_of_another_network_names_the_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    let tensor = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let other = vec![("stem.weight".to_owned(), tensor(&[2, 2])), ("extra".to_owned(), tensor(&[1]))];
    TrainState::new(other, AdamWSettings::default(), 0.9).unwrap().save(&path, HashMap::new()).unwrap();
    let (_, mut state) = begin(5);
    let before = copies(state.parameters());
    let error = state.resume(&path).unwrap_err();
    let Error::Core { source: ediffi_core::Error::Weights { missing, unexpected, mismatched, .. } } = error else {
        panic!("{error}")
    };
    assert!(missing.contains(&"ema.out.bias".to_owned()), "{missing:?}");
    assert!(unexpected.contains(&"weights.extra".to_owned()), "{unexpected:?}");
    assert!(mismatched.iter().any(|m| m.name == "first.stem.weight" && m.found == [2, 2]));
    assert!(same(state.parameters(), &before));
}

#[test]
fn broken_checkpoints_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.safetensors");
    let (network, mut state) = begin(6);
    train(&network, &mut state, 1);
    state.save(&path, HashMap::new()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut tensors = contents(&path);

    let (_, mut state) = begin(7);
    let before = copies(state.parameters());
    for length in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = state.resume(&path).unwrap_err();
        assert!(error.to_string().contains("whole.safetensors"), "{length}: {error}");
    }
    let error = state.resume(&folder.path().join("absent.safetensors")).unwrap_err();
    assert!(matches!(error, Error::Core { source: ediffi_core::Error::ReadFile { .. } }), "{error}");
    for (key, value) in [("step", "5"), ("step", "five")] {
        // Weights that would show, were they copied before the header is looked at.
        for (_, tensor) in &mut tensors {
            let _ = tensor.fill_(3.0);
        }
        weights::save(&path, &tensors, HashMap::from([(key.to_owned(), value.to_owned())])).unwrap();
        let error = state.resume(&path).unwrap_err();
        assert!(matches!(&error, Error::Checkpoint { path: named, .. } if *named == path), "{error}");
    }
    assert!(same(state.parameters(), &before));
    assert_eq!(state.step(), 0);
}

/// What a save that fails half way leaves is tested where files are written, and with a full disk in `tools/icons/tests/plan.rs`.
#[test]
fn a_checkpoint_replaces_the_one_before_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.checkpoint.safetensors");
    let (network, mut state) = begin(8);
    state.save(&path, HashMap::new()).unwrap();
    let old = std::fs::read(&path).unwrap();
    train(&network, &mut state, 1);
    state.save(&path, HashMap::new()).unwrap();
    assert_ne!(std::fs::read(&path).unwrap(), old);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(matches!(state.save(&folder.path().join("absent/x.safetensors"), HashMap::new()), Err(Error::Core { .. })));
}

#[test]
fn a_child_starts_from_its_parent_s_average() {
    for device in devices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("parent.safetensors");
        let (network, mut parent) = begin_on(device, 9);
        train(&network, &mut parent, 3);
        parent.export(&path, "", Kind::Float, HashMap::new()).unwrap();
        let (network, mut child) = begin_on(device, 10);
        child.start_from(&path).unwrap();
        let average = copies(parent.average());
        assert!(same(child.parameters(), &average) && same(child.average(), &average));
        assert_eq!((child.step(), child.pictures()), (0, 0));
        train(&network, &mut child, 1);
        assert!(!same(child.parameters(), &average), "the network trains on the copied weights");
        let missing = child.start_from(&folder.path().join("absent.safetensors"));
        assert!(matches!(missing, Err(Error::Core { source: ediffi_core::Error::ReadFile { .. } })));
    }
}

#[test]
fn exports_the_average_below_a_prefix_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.safetensors");
    let mut fresh = Fresh::new(11, Device::Cpu);
    let mut scope = Scope::root(&mut fresh);
    let network = UNet::new(scope.at("base"), &config(), Kind::Float).unwrap();
    let _ = scope.at("t5").weight("shared.weight", &[2, 2], ediffi_core::weights::Init::Ones).unwrap();
    let settings = AdamWSettings { learning_rate: 1e-2, warm_up: 1, ..AdamWSettings::default() };
    let mut state = TrainState::new(fresh.into_named(), settings, 0.5).unwrap();
    train(&network, &mut state, 2);
    let notes = HashMap::from([("note".to_owned(), "tiny".to_owned())]);
    state.export(&path, "base.", Kind::BFloat16, notes).unwrap();
    let exported = contents(&path);
    assert_eq!(exported.len(), state.parameters().len() - 1);
    for (name, tensor) in &exported {
        let full = format!("base.{name}");
        let (_, average) = state.average().iter().find(|(n, _)| *n == full).unwrap();
        assert!(*tensor == average.to_kind(Kind::BFloat16), "{name}");
    }
    let file = weights::WeightsFile::open(&path, |name| Some(name.to_owned())).unwrap();
    assert_eq!(["pictures", "steps", "note"].map(|key| file.text(key).unwrap()), ["8", "2", "tiny"]);
    // What was exported is a network again.
    file.build(Device::Cpu, Kind::Float, |scope| UNet::new(scope, &config(), Kind::Float)).unwrap();
    let error = state.export(&path, "bass.", Kind::Float, HashMap::new()).unwrap_err();
    assert!(matches!(error, Error::Setting { field: "prefix", .. }), "{error}");
}

#[test]
fn a_network_over_the_average_follows_it() {
    for device in devices() {
        let (network, mut state) = begin_on(device, 12);
        train(&network, &mut state, 1);
        let before = copies(state.average());
        let mut shared = Shared(state.average());
        let averaged = UNet::new(Scope::root(&mut shared), &config(), Kind::Float).unwrap();
        let value = |network: &UNet| loss(network, 5, 0..ROWS).double_value(&[]);
        let first = value(&averaged);
        train(&network, &mut state, 3);
        assert!(!same(state.average(), &before) && value(&averaged) != first);
        let exported: Vec<_> = state.average().iter().map(|(name, x)| (name.clone(), x.copy())).collect();
        let exported = UNet::new(Scope::root(&mut Shared(&exported)), &config(), Kind::Float).unwrap();
        assert_eq!(value(&averaged), value(&exported));
        for (name, shape) in [("absent", vec![1]), ("out.bias", vec![1])] {
            let spec = Spec {
                name: name.to_owned(),
                shape,
                init: ediffi_core::weights::Init::Zeros,
                role: ediffi_core::weights::Role::Weight,
            };
            let error = Shared(state.average()).get(&spec).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

/// f32 master weights under a bf16 network: one step moves the masters by what bf16 alone could not hold.
#[test]
fn a_bf16_network_trains_f32_masters() {
    for device in devices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("start.safetensors");
        let (reference, mut start) = begin_on(device, 13);
        train(&reference, &mut start, 3);
        start.export(&path, "", Kind::Float, HashMap::new()).unwrap();
        start.start_from(&path).unwrap();
        let settings = AdamWSettings { learning_rate: 1e-6, warm_up: 1, weight_decay: 0.0, ..AdamWSettings::default() };
        let (network, mut state) = begin_as(14, device, Kind::BFloat16, settings);
        state.start_from(&path).unwrap();
        let (bf16, f32) = (loss(&network, 4, 0..ROWS), loss(&reference, 4, 0..ROWS));
        assert_eq!(bf16.kind(), Kind::Float);
        let (a, b) = (bf16.double_value(&[]), f32.double_value(&[]));
        assert!(a != b && (a / b - 1.0).abs() < 0.02, "bf16 {a}, f32 {b}");
        bf16.backward();
        for (name, parameter) in state.parameters() {
            assert_eq!(parameter.kind(), Kind::Float, "{name}");
            let gradient = parameter.grad();
            assert!(gradient.defined() && gradient.kind() == Kind::Float, "{name}");
        }
        let before = copies(state.parameters());
        state.update(ROWS as u64, 1).unwrap();
        let moved = state.parameters().iter().zip(&before).map(|((_, after), before)| (after - before).abs().max());
        let moved = moved.map(|m| m.double_value(&[])).fold(0.0, f64::max);
        // A first step of AdamW is as long as the learning rate; bf16 has no number that close to a weight of 0.1.
        assert!(moved > 5e-7 && moved < 2e-6, "{moved}");
        assert!(state.parameters().iter().chain(state.average()).all(|(_, t)| t.kind() == Kind::Float));
    }
}
