//! Networks and preparation of pictures against `transformers`: see `fixtures/generate.py`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{config, devices, difference, expected, fixture, tolerance};
use ediffi_core::runtime::Runtime;
use ediffi_core::weights::load;
use ediffi_encoders::clip::{Preprocess, rgb8, text_names, vision_names};
use ediffi_encoders::{Clip, ClipConfig, ClipTextNetwork, ClipVisionNetwork, T5, T5Config, T5Network, t5};
use tch::{Device, Kind};

fn t5_network(device: Device, kind: Kind) -> T5Network {
    let config: T5Config = config("t5");
    load(&fixture("t5"), t5::names, device, kind, |scope| T5Network::new(scope, &config, kind)).unwrap()
}

#[test]
fn the_t5_encoder_is_that_of_transformers() {
    let expected = expected("t5");
    for device in devices() {
        let [ids, mask] = ["ids", "mask"].map(|name| expected[name].to_device(device));
        let hidden = t5_network(device, Kind::Float).forward(&ids, &mask).unwrap();
        // Filled positions too: a DeepFloyd network attends to them.
        let found = difference(&hidden, &expected["hidden"]);
        assert!(found < tolerance(device), "{device:?}: {found}");
        for (kind, tolerance) in [(Kind::BFloat16, 0.15), (Kind::Half, 0.02)] {
            let hidden = t5_network(device, kind).forward(&ids, &mask).unwrap();
            assert_eq!(hidden.kind(), Kind::Float);
            let found = difference(&hidden, &expected["hidden"]);
            assert!(found < tolerance, "{kind:?} on {device:?}: {found}");
        }
    }
}

#[test]
fn the_halves_of_clip_are_those_of_transformers() {
    let (folder, expected, config) = (fixture("clip"), expected("clip"), config::<ClipConfig>("clip"));
    let (dim, kind) = (config.projection_dim, Kind::Float);
    let vision = config.vision_config.unwrap();
    for device in devices() {
        let build =
            |scope: ediffi_core::weights::Scope<'_>| ClipTextNetwork::new(scope, &config.text_config, Some(dim), kind);
        let text = load(&folder, text_names, device, kind, build).unwrap();
        let output = text.forward(&expected["ids"].to_device(device)).unwrap();
        let build = |scope: ediffi_core::weights::Scope<'_>| ClipVisionNetwork::new(scope, &vision, Some(dim), kind);
        let vision = load(&folder, vision_names, device, kind, build).unwrap();
        let image = vision.forward(&expected["pixels"].to_device(device)).unwrap();
        for (name, found) in [("tokens", output.tokens), ("pooled", output.pooled), ("image", image)] {
            let found = difference(&found, &expected[name]);
            assert!(found < tolerance(device), "{name} on {device:?}: {found}");
        }
    }
}

#[test]
fn pictures_are_prepared_as_pillow_and_transformers_do() {
    let expected = expected("clip");
    let picture = &expected["picture"];
    let (height, width, _) = picture.size3().unwrap();
    let bytes = Vec::<u8>::try_from(picture.flatten(0, -1)).unwrap();
    let picture = rgb8(&bytes, width as usize, height as usize).unwrap();
    let preprocess = Preprocess::open(&fixture("clip").join("preprocessor_config.json"), 16).unwrap();
    // One step of a byte, in units of the smallest standard deviation.
    let step = 1.0 / 255.0 / 0.26;
    let prepared = preprocess.apply(&picture).unwrap();
    assert!(difference(&prepared, &expected["processed"]) < 1.01 * step);
    let prepared = preprocess.apply(&(picture.to_kind(Kind::Float) / 255.0)).unwrap();
    assert!(difference(&prepared, &expected["processed"]) < 1.01 * step);
}

#[test]
fn the_folders_give_the_same_from_text() {
    let (expected_t5, expected_clip) = (expected("t5"), expected("clip"));
    for device in devices() {
        let runtime = Runtime { device, kind: Kind::Float };
        let t5 = T5::open(&fixture("t5"), runtime).unwrap();
        let encoded = t5.encode(&["a red apple left of a cat", "the naïve café, at night"], 40).unwrap();
        assert_eq!((encoded.tokens.device(), encoded.mask.device()), (device, device));
        let visible = &expected_t5["hidden"] * expected_t5["mask"].unsqueeze(-1);
        assert!(difference(&encoded.tokens, &visible) < tolerance(device), "{device:?}");

        let clip = Clip::open(&fixture("clip"), runtime).unwrap();
        let encoded = clip.encode_text(&["a yellow house with a red door at night", "a cat's café"], 24).unwrap();
        assert!(difference(&encoded.pooled, &expected_clip["pooled"]) < tolerance(device), "{device:?}");
        let visible = &expected_clip["tokens"] * encoded.mask.to_device(Device::Cpu).unsqueeze(-1);
        assert!(difference(&encoded.tokens, &visible) < tolerance(device), "{device:?}");
    }
}
