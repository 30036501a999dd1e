//! The U-Net's weights in files.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod tiny;

use std::collections::HashMap;
use std::path::Path;

use ediffi_core::{Error, weights};
use tch::{Device, Kind, Tensor};
use tiny::{adm, conditioning, fresh, layouts, load, output, random};

#[test]
fn weights_survive_being_saved_to_the_last_bit() {
    for layout in layouts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unet.safetensors");
        let config = layout;
        let (unet, named) = random(&config);
        weights::save(&path, &named, HashMap::from([("step".to_owned(), "7".to_owned())])).unwrap();
        let loaded = load(&path, &config).unwrap();
        let conditioning = conditioning(&[1, 2]);
        assert!(output(&unet, &[1, 2], &conditioning).equal(&output(&loaded, &[1, 2], &conditioning)));
        let file = weights::WeightsFile::open(&path, |name| Some(name.to_owned())).unwrap();
        assert_eq!((file.text("step"), file.text("steps")), (Some("7"), None));
        // Nothing is left beside it, and others may read it as they may read any file of the user's.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let permissions = |path: &Path| std::fs::metadata(path).unwrap().permissions();
        assert_eq!(permissions(&path), permissions(&plain));
    }
}

#[test]
fn all_that_is_wrong_with_a_file_is_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unet.safetensors");
    let config = adm();
    let (_, mut named) = fresh(&config);
    named.retain(|(name, _)| name != "stem.bias" && name != "out.weight");
    named.push(("ema.decay".to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu))));
    for (name, x) in &mut named {
        if name == "noise1.weight" {
            *x = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
        }
        if name == "noise2.bias" {
            *x = x.to_kind(Kind::Int64);
        }
    }
    weights::save(&path, &named, HashMap::new()).unwrap();
    let error = load(&path, &config).unwrap_err();
    let message = error.to_string();
    let Error::Weights { path: named_path, missing, unexpected, mismatched } = error else { panic!("{error}") };
    assert_eq!(named_path, path);
    assert_eq!(missing, ["stem.bias", "out.weight"]);
    assert_eq!(unexpected, ["ema.decay"]);
    let mismatched: Vec<_> =
        mismatched.iter().map(|m| (m.name.as_str(), m.found.clone(), m.expected.clone())).collect();
    assert_eq!(mismatched, [("noise1.weight", vec![2, 2], vec![16, 8]), ("noise2.bias", vec![16], vec![16])]);
    for part in ["unet.safetensors", "stem.bias", "ema.decay", "noise1.weight", "noise2.bias"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn files_that_are_cut_short_or_missing_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unet.safetensors");
    let config = adm();
    assert!(matches!(load(&path, &config), Err(Error::ReadFile { path: named, .. }) if named == path));
    weights::save(&path, &fresh(&config).1, HashMap::new()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    // Within the tensors, within the header, within its length, and nothing at all.
    for length in [whole.len() - 1, 100, 5, 0] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = load(&path, &config).unwrap_err();
        assert!(matches!(&error, Error::WeightsFormat { path: named, .. } if *named == path), "{length}: {error}");
    }
}
