//! Networks and preparation of pictures against `transformers`: see `fixtures/generate.py`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::load;
use ediffi_encoders::clip::{Preprocess, rgb8, text_names, vision_names};
use ediffi_encoders::{Clip, ClipConfig, ClipTextNetwork, ClipVisionNetwork, T5, T5Config, T5Network, t5};
use tch::{Device, Kind, Tensor};

const CPU: Runtime = Runtime { device: Device::Cpu, kind: Kind::Float };

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn expected(folder: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(folder.join("expected.safetensors")).unwrap().into_iter().collect()
}

fn config<T: serde::de::DeserializeOwned>(folder: &Path) -> T {
    serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn t5_network(kind: Kind) -> T5Network {
    let folder = folder("t5");
    let config: T5Config = config(&folder);
    load(&folder, t5::names, Device::Cpu, kind, |scope| T5Network::new(scope, &config, kind)).unwrap()
}

#[test]
fn the_t5_encoder_is_that_of_transformers() {
    let expected = expected(&folder("t5"));
    let hidden = t5_network(Kind::Float).forward(&expected["ids"], &expected["mask"]).unwrap();
    // Filled positions too: a DeepFloyd network attends to them.
    assert!(difference(&hidden, &expected["hidden"]) < 1e-5, "{}", difference(&hidden, &expected["hidden"]));
}

#[test]
fn t5_in_half_precision_is_close() {
    let expected = expected(&folder("t5"));
    for (kind, tolerance) in [(Kind::BFloat16, 0.15), (Kind::Half, 0.02)] {
        let hidden = t5_network(kind).forward(&expected["ids"], &expected["mask"]).unwrap();
        assert_eq!(hidden.kind(), Kind::Float);
        let difference = difference(&hidden, &expected["hidden"]);
        assert!(difference < tolerance, "{kind:?}: {difference}");
    }
}

#[test]
fn the_text_half_of_clip_is_that_of_transformers() {
    let (folder, expected) = (folder("clip"), expected(&folder("clip")));
    let config: ClipConfig = config(&folder);
    let network = load(&folder, text_names, Device::Cpu, Kind::Float, |scope| {
        ClipTextNetwork::new(scope, &config.text_config, config.projection_dim, Kind::Float)
    })
    .unwrap();
    let output = network.forward(&expected["ids"]).unwrap();
    assert!(difference(&output.tokens, &expected["tokens"]) < 1e-5);
    assert!(difference(&output.pooled, &expected["pooled"]) < 1e-5);
}

#[test]
fn the_picture_half_of_clip_is_that_of_transformers() {
    let (folder, expected) = (folder("clip"), expected(&folder("clip")));
    let config: ClipConfig = config(&folder);
    let vision = config.vision_config.unwrap();
    let network = load(&folder, vision_names, Device::Cpu, Kind::Float, |scope| {
        ClipVisionNetwork::new(scope, &vision, config.projection_dim, Kind::Float)
    })
    .unwrap();
    assert!(difference(&network.forward(&expected["pixels"]).unwrap(), &expected["image"]) < 1e-5);
}

#[test]
fn pictures_are_prepared_as_pillow_and_transformers_do() {
    let folder = folder("clip");
    let expected = expected(&folder);
    let picture = &expected["picture"];
    let (height, width, _) = picture.size3().unwrap();
    let bytes = Vec::<u8>::try_from(picture.flatten(0, -1)).unwrap();
    let picture = rgb8(&bytes, width as usize, height as usize).unwrap();
    let preprocess = Preprocess::open(&folder.join("preprocessor_config.json"), 16).unwrap();
    // One step of a byte, in units of the smallest standard deviation.
    let step = 1.0 / 255.0 / 0.26;
    let prepared = preprocess.apply(&picture).unwrap();
    assert!(difference(&prepared, &expected["processed"]) < 1.01 * step);
    let prepared = preprocess.apply(&(picture.to_kind(Kind::Float) / 255.0)).unwrap();
    assert!(difference(&prepared, &expected["processed"]) < 1.01 * step);
}

#[test]
fn the_folders_give_the_same_from_text() {
    let expected_t5 = expected(&folder("t5"));
    let t5 = T5::open(&folder("t5"), CPU).unwrap();
    let encoded = t5.encode(&["a red apple left of a cat", "the naïve café, at night"], 40).unwrap();
    let visible = &expected_t5["hidden"] * expected_t5["mask"].unsqueeze(-1);
    assert!(difference(&encoded.tokens, &visible) < 1e-5);

    let expected_clip = expected(&folder("clip"));
    let clip = Clip::open(&folder("clip"), CPU).unwrap();
    let encoded = clip.encode_text(&["a yellow house with a red door at night", "a cat's café"], 24).unwrap();
    assert!(difference(&encoded.pooled, &expected_clip["pooled"]) < 1e-5);
    let mask = encoded.tokens.abs().sum_dim_intlist(-1, true, Kind::Float).gt(0.0);
    assert!(difference(&encoded.tokens, &(&expected_clip["tokens"] * mask)) < 1e-5);
}
