//! A small U-Net under training: accumulation, replicas, precision, memory order, and gradients that are not finite.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

#[path = "../../ediffi-core/tests/common/mod.rs"]
mod common;
mod tiny;

use std::collections::HashMap;

use common::devices;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::precondition::Edm;
use ediffi_core::unet::UNet;
use ediffi_core::weights::{Init, Scope};
use ediffi_train::Error;
use ediffi_train::batch::Batch;
use ediffi_train::learner::{Learner, Objective};
use ediffi_train::noise::NoiseLevels;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::state::Shared;
use tch::{Kind, Tensor};
use tiny::{ROWS, begin, begin_as, begin_on, config, contents, copies, loss, same, train};

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

/// Each worker computes half of the batch on its own thread, in a network of its own over the same weights.
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

/// A replica in bf16 sees weights that were cast once. A network over the f32 weights casts them in every call, and trains alike.
#[test]
fn weights_cast_once_train_as_those_that_are_cast_in_every_call() {
    for device in devices() {
        let settings = AdamWSettings { learning_rate: 1e-2, warm_up: 1, ..AdamWSettings::default() };
        let (network, mut each_call) = begin_as(15, device, Kind::BFloat16, settings);
        let (_, mut once) = begin_as(15, device, Kind::BFloat16, settings);
        let replicas = [once.replica_in(Kind::BFloat16).unwrap(), once.replica_in(Kind::BFloat16).unwrap()];
        let bias = once.parameters().iter().find(|(name, _)| name == "out.bias").unwrap().1.size();
        let networks = replicas.each_ref().map(|replica| {
            let mut source = replica.source();
            let mut scope = Scope::root(&mut source);
            assert_eq!(scope.weight("out.bias", &bias, Init::Zeros).unwrap().kind(), Kind::BFloat16);
            assert_eq!(scope.weight_f32("out.bias", &bias, Init::Zeros).unwrap().kind(), Kind::Float);
            UNet::new(Scope::root(&mut replica.source()), &config(), Kind::BFloat16).unwrap()
        });
        for step in 0..4 {
            for (rows, cast) in [0..2, 2..4].into_iter().zip(&networks) {
                let losses = [loss(&network, step, rows.clone()), loss(cast, step, rows)];
                assert_eq!(losses[0], losses[1], "step {step}");
                losses.iter().for_each(Tensor::backward);
            }
            let expected = each_call.update(ROWS as u64, 2).unwrap();
            let norm = once.update_from(&[&replicas[0], &replicas[1]], ROWS as u64, 2).unwrap();
            assert!((norm / expected - 1.0).abs() < 1e-3, "step {step}: {norm} instead of {expected}");
        }
        assert!(once.parameters().iter().all(|(_, parameter)| parameter.kind() == Kind::Float));
        // Weights that were read are cast, too.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        once.export(&path, "", Kind::Float, HashMap::new()).unwrap();
        let before = loss(&networks[0], 9, 0..ROWS);
        for state in [&mut each_call, &mut once] {
            state.start_from(&path).unwrap();
        }
        let after = loss(&networks[0], 9, 0..ROWS);
        assert!(after != before && after == loss(&network, 9, 0..ROWS));
    }
}

#[test]
fn f16_is_refused_by_name() {
    let (_, mut state) = begin(16);
    let error = state.replica_in(Kind::Half).unwrap_err();
    assert!(matches!(error, Error::Setting { field: "kind", .. }), "{error}");
    let objective = Objective::new(Edm::default(), NoiseLevels::new(LogNormal::default(), SigmaInterval::ALL), 1);
    let encode = |_: &Batch<()>| Ok::<_, Error>(Conditioning::default());
    let error = Learner::new(&mut Shared(state.average()), &config(), Kind::Half, objective, encode).err().unwrap();
    assert!(matches!(error, Error::Setting { field: "kind", .. }), "{error}");
}

/// Convolutions train channels-last: weights, their gradients and the average; a file has them in the order of their axes.
#[test]
fn kernels_stay_channels_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let (network, mut state) = begin(17);
    train(&network, &mut state, 2);
    let kernels: Vec<_> = state.parameters().iter().zip(state.average()).filter(|((_, x), _)| x.dim() == 4).collect();
    assert!(!kernels.is_empty());
    for ((name, kernel), (_, average)) in kernels {
        for x in [kernel, average, &kernel.grad()] {
            assert!(x.permute([0, 2, 3, 1]).is_contiguous(), "{name}: {:?}", x.stride());
        }
    }
    state.save(&path, HashMap::new()).unwrap();
    for (name, tensor) in contents(&path).iter().filter(|(name, _)| name.starts_with("weights.")) {
        let (_, parameter) = state.parameters().iter().find(|(own, _)| name.ends_with(own.as_str())).unwrap();
        assert!(tensor.is_contiguous() && tensor == parameter, "{name}");
    }
}
