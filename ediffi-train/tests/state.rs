//! A small U-Net under training: checkpoints, resume and export.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers included")]

#[path = "../../ediffi-core/tests/common/mod.rs"]
mod common;
mod tiny;

use std::collections::HashMap;

use common::devices;
use ediffi_core::unet::UNet;
use ediffi_core::weights::{self, Fresh, Params, Scope, Spec};
use ediffi_train::Error;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::state::{Shared, TrainState};
use tch::{Device, Kind, Tensor};
use tiny::{ROWS, begin, begin_on, config, contents, copies, loss, same, train};

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

/// The second parameter has a gradient in the first step alone. Its moments live on, whether the training was resumed or not.
#[test]
fn a_parameter_that_was_used_before_a_resume_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let begin = || {
        let one = || Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        let parameters = ["a", "b", "never"].map(|name| (name.to_owned(), one()));
        let settings = AdamWSettings { learning_rate: 0.1, warm_up: 1, ..AdamWSettings::default() };
        TrainState::new(parameters.into(), settings, 0.5).unwrap()
    };
    let step = |state: &mut TrainState, used: usize| {
        for (_, parameter) in &state.parameters()[..used] {
            parameter.square().sum(Kind::Float).backward();
        }
        state.update(1, 1).unwrap();
    };
    let mut whole = begin();
    step(&mut whole, 2);
    whole.save(&path, HashMap::new()).unwrap();
    let after_one = copies(whole.parameters());
    step(&mut whole, 1);
    let mut resumed = begin();
    resumed.resume(&path).unwrap();
    step(&mut resumed, 1);
    assert!(same(resumed.parameters(), &copies(whole.parameters())));
    let moved: Vec<bool> = whole.parameters().iter().zip(&after_one).map(|((_, a), b)| a != b).collect();
    assert_eq!(moved, [true, true, false]);
}

/// One whose gradients were exactly zero decays, with and without gradients of its own in a step, and behind a checkpoint, too.
#[test]
fn a_parameter_that_only_decays_still_does_when_the_training_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let begin = || {
        let one = || Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        let settings = AdamWSettings { learning_rate: 0.1, warm_up: 1, weight_decay: 0.5, ..AdamWSettings::default() };
        let named = ["zeros", "used", "never"].map(|name| (name.to_owned(), one()));
        TrainState::new(named.into(), settings, 0.9).unwrap()
    };
    let step = |state: &mut TrainState, zeros: bool| {
        let [(_, first), (_, second), ..] = state.parameters() else { panic!() };
        if zeros {
            (first * 0.0).sum(Kind::Float).backward();
        }
        second.sum(Kind::Float).backward();
        state.update(1, 1).unwrap();
        [0, 2].map(|index: usize| state.parameters()[index].1.double_value(&[0, 0]))
    };
    let mut whole = begin();
    let [first, never] = step(&mut whole, true);
    assert!(first < 1.0 && never == 1.0);
    whole.save(&path, HashMap::new()).unwrap();
    let expected = step(&mut whole, false);
    assert!(expected[0] < first && expected[1] == 1.0, "{expected:?}");
    let mut resumed = begin();
    resumed.resume(&path).unwrap();
    assert_eq!(step(&mut resumed, false), expected);
}
