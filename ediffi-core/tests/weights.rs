//! Files of weights: what was saved is what is loaded, and all that is wrong with a file is said at once.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;
mod tiny;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::devices;
use ediffi_core::weights::{self, Fresh, Init, Role, Scope, Table, WeightsFile};
use ediffi_core::{Error, Result, interrupt};
use tch::{Device, Kind, Tensor};

/// The parameters of a small network: a weight, a bias and the gain of a norm, which stays in f32.
fn build(mut scope: Scope<'_>) -> Result<[Tensor; 3]> {
    let mut linear = scope.at("linear");
    Ok([
        linear.weight("weight", &[3, 2], Init::fan_in(2))?,
        linear.weight("bias", &[3], Init::Normal { std: 0.3 })?,
        scope.at("norm").weight_f32("weight", &[3], Init::Normal { std: 1.0 })?,
    ])
}

/// Start values of the network, by name.
fn fresh(device: Device) -> Vec<(String, Tensor)> {
    let mut fresh = Fresh::new(1, device);
    let _ = build(Scope::root(&mut fresh)).unwrap();
    fresh.into_named()
}

fn same(name: &str) -> Option<String> {
    Some(name.to_owned())
}

fn load(path: &Path) -> Result<[Tensor; 3]> {
    weights::load(path, same, Device::Cpu, Kind::Float, build)
}

#[test]
fn weights_come_back_to_the_last_bit_in_the_precision_of_the_network() {
    for device in devices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let named = fresh(device);
        weights::save(&path, &named, HashMap::from([("step".to_owned(), "7".to_owned())])).unwrap();
        for kind in [Kind::Float, Kind::BFloat16] {
            let loaded = weights::load(&path, same, device, kind, build).unwrap();
            for (loaded, ((name, saved), kind)) in loaded.iter().zip(named.iter().zip([kind, kind, Kind::Float])) {
                assert_eq!((loaded.kind(), loaded.device()), (kind, device), "{name}");
                assert!(loaded.equal(&saved.to_kind(kind)), "{name}");
            }
        }
        let file = WeightsFile::open(&path, same).unwrap();
        assert_eq!((file.text("step"), file.text("steps")), (Some("7"), None));
    }
}

/// Loaded weights come back to the last bit (above). What a network makes of them differs by rounding: where weights do not change,
/// the first convolution is computed in two halves.
#[test]
fn a_network_that_comes_back_computes_the_same() {
    for config in tiny::layouts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unet.safetensors");
        let (unet, named) = tiny::random(&config);
        weights::save(&path, &named, HashMap::new()).unwrap();
        let loaded = tiny::load(&path, &config).unwrap();
        let conditioning = tiny::conditioning(&[1, 2]);
        let [expected, got] = [&unet, &loaded].map(|network| tiny::output(network, &[1, 2], &conditioning));
        let off = (got - &expected).abs().max().double_value(&[]) / expected.std(true).double_value(&[]);
        assert!(off < 1e-5, "{config:?} is off by {off:.1e}");
    }
}

/// Nothing is left beside the file, and others may read it as they may read any file of the user's.
#[test]
fn a_saved_file_is_one_of_the_user_s_usual_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    weights::save(&path, &fresh(Device::Cpu), HashMap::new()).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let permissions = |path: &Path| std::fs::metadata(path).unwrap().permissions();
    assert_eq!(permissions(&path), permissions(&plain));
}

#[test]
fn all_that_is_wrong_with_a_file_is_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    let named = [
        ("linear.weight", zeros(&[2, 2], Kind::Float)),
        ("norm.weight", zeros(&[3], Kind::Int64)),
        ("ema.decay", zeros(&[1], Kind::Float)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor));
    weights::save(&path, &named, HashMap::new()).unwrap();
    let error = load(&path).unwrap_err();
    let message = error.to_string();
    let Error::Weights { path: named, missing, unexpected, mismatched } = error else { panic!("{error}") };
    assert_eq!((named, missing, unexpected), (path, vec!["linear.bias".to_owned()], vec!["ema.decay".to_owned()]));
    let mismatched: Vec<_> =
        mismatched.iter().map(|m| (m.name.as_str(), m.found.clone(), m.expected.clone())).collect();
    assert_eq!(mismatched, [("linear.weight", vec![2, 2], vec![3, 2]), ("norm.weight", vec![3], vec![3])]);
    for part in ["model.safetensors", "linear.bias", "ema.decay", "linear.weight", "norm.weight", "I64"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn files_that_are_cut_short_or_missing_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    assert!(matches!(load(&path), Err(Error::ReadFile { path: named, .. }) if named == path));
    weights::save(&path, &fresh(Device::Cpu), HashMap::new()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    // Within the tensors, within the header, within its length, and nothing at all.
    for length in [whole.len() - 1, 100, 5, 0] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(&error, Error::WeightsFormat { path: named, .. } if *named == path), "{length}: {error}");
    }
}

/// The crate that parses the header adds the lengths without a look: a panic in a development build.
#[test]
fn tensors_of_2_to_the_64_bytes_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (half, last) = (u64::MAX / 8, u64::MAX - 1);
    let tensor = |name: u64, begin: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
    };
    let tensors: Vec<String> = (0..8).map(|i| tensor(i, i * half, (i + 1) * half)).collect();
    let json = format!("{{{},{}}}", tensors.join(","), tensor(8, 8 * half, last));
    let bytes = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
    std::fs::write(&path, &bytes).unwrap();
    let error = load(&path).unwrap_err();
    assert!(matches!(&error, Error::WeightsFormat { path: named, .. } if *named == path), "{error}");
    assert!(weights::parse(&bytes).is_err());
}

/// There are no numbers in it, but its sides cannot be multiplied.
#[test]
fn a_shape_that_overflows_on_the_way_to_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for shape in ["[4611686018427387904,2,0]", "[0,9223372036854775808]", "[0,4611686018427387904,2]"] {
        let json = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#);
        let bytes = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
        std::fs::write(&path, &bytes).unwrap();
        let error = WeightsFile::open(&path, same).unwrap_err();
        assert!(matches!(&error, Error::WeightsFormat { path: named, .. } if *named == path), "{shape}: {error}");
        assert!(weights::parse(&bytes).is_err());
    }
}

/// A folder with an index is read from its shards, under the names that the network uses.
#[test]
fn shards_are_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let named: Vec<_> = fresh(Device::Cpu).into_iter().map(|(name, x)| (format!("encoder.{name}"), x)).collect();
    weights::save(&folder.path().join("1.safetensors"), &named[..1], HashMap::new()).unwrap();
    weights::save(&folder.path().join("2.safetensors"), &named[1..], HashMap::new()).unwrap();
    let index = r#"{ "weight_map": { "encoder.linear.weight": "1.safetensors", "encoder.linear.bias": "2.safetensors",
                     "encoder.norm.weight": "2.safetensors", "decoder.bias": "3.safetensors" } }"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let names = |stored: &str| stored.strip_prefix("encoder.").map(str::to_owned);
    let loaded = weights::load(folder.path(), names, Device::Cpu, Kind::Float, build).unwrap();
    assert!(loaded.iter().zip(&named).all(|(loaded, (_, saved))| loaded.equal(saved)));
}

#[test]
fn a_table_lists_what_a_network_asks_for() {
    let table = Table::of(build).unwrap();
    let names: Vec<&str> = table.specs().iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!((names, table.elements()), (vec!["linear.weight", "linear.bias", "norm.weight"], 12));
}

/// Wherever it is cut while it is open, and by whomever: what is read afterwards is there, or an error that names the file. Large
/// tensors are read piece by piece.
#[test]
fn a_file_that_shrinks_while_it_is_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let large = Tensor::arange(1_500_001, (Kind::Float, Device::Cpu)).reshape([1, 1_500_001]);
    let named = [("large".to_owned(), large.shallow_clone()), ("small".to_owned(), Tensor::from_slice(&[1.0_f32]))];
    weights::save(&path, &named, HashMap::new()).unwrap();
    let whole = std::fs::metadata(&path).unwrap().len();
    let read = |file: &WeightsFile, kind| {
        file.build(Device::Cpu, kind, |mut scope: Scope<'_>| {
            let lent = scope.lend("large", &[1, 1_500_001], Init::Zeros, Role::Kernel)?;
            Ok((scope.weight("small", &[1], Init::Zeros)?, lent.tensor()?))
        })
    };
    for kind in [Kind::Float, Kind::BFloat16] {
        let file = WeightsFile::open(&path, same).unwrap();
        assert!(read(&file, kind).unwrap().1.equal(&large.to_kind(kind)));
    }
    for left in [whole - 1, whole / 2, 100, 0] {
        weights::save(&path, &named, HashMap::new()).unwrap();
        let file = WeightsFile::open(&path, same).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
        for error in [
            read(&file, Kind::Float).unwrap_err(),
            read(&file, Kind::BFloat16).unwrap_err(),
            file.sample(|_| true, |_| {}).unwrap_err(),
        ] {
            assert!(matches!(&error, Error::WeightsTruncated(named) if *named == path), "{left}: {error}");
        }
        let error = WeightsFile::open(&path, same).unwrap_err();
        assert!(matches!(error, Error::WeightsFormat { .. }), "{left}: {error}");
    }
}

/// As a job that is cancelled while its weights are loaded.
#[test]
fn loading_stops_when_the_thread_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    weights::save(&path, &fresh(Device::Cpu), HashMap::new()).unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    let watched = interrupt::watch(flag.clone());
    let _ = load(&path).unwrap();
    flag.store(true, Ordering::Relaxed);
    assert!(matches!(load(&path), Err(Error::Cancelled)));
    drop(watched);
    let _ = load(&path).unwrap();
}
