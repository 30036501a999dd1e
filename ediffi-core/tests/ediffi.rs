//! eDiff-I's two layouts beside independent PyTorch networks written from the papers (`fixtures/ediffi/make.py`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use common::devices;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::nn::{Activation, Bias, Painted, ScoreBias, Site};
use ediffi_core::unet::parts::{Sinusoids, TimeEmbedding};
use ediffi_core::unet::{Adm, Efficient, UNet, UNetConfig};
use ediffi_core::weights::{self, Scope};
use ediffi_core::window::Window;
use tch::{Device, Kind, Tensor};

/// Folder of a network, and its recorded evaluations.
const CASES: [(&str, &[&str]); 4] = [
    ("adm", &["all", "image", "text", "t5", "none"]),
    ("adm-patch", &["all"]),
    ("efficient", &["all", "t5"]),
    ("efficient-patch", &["all", "clip"]),
];

/// What an output may be off by on the CPU. PyTorch is off from itself by up to 1.7e-6 on these outputs and by 3.3e-6 within
/// the networks: with two threads, channels-last, by another kernel of convolution, or in f64 (`make.py` prints it; two x86
/// cores).
///
/// Each of 36 deliberate faults, one at a time, failed at least one test. The smallest, an epsilon of 1e-6 in the norm of a
/// cross-attention, moves that layer by 5e-5 and the output by 2e-4 or more. Swapped scale and shift move a block by 0.18, a skip
/// without its 1/√2 one by 0.20, a cross-attention that reads the map before its norm one by 0.14, and tokens without their norm
/// one by 0.20. GELU in place of SiLU moves a block by 0.03. Some show in one place only: swapped T5 and CLIP tokens in what paint
/// sees, and zeros that are not projected in the evaluations without all embeddings.
const TOLERANCE: f64 = 8e-6;

/// What an output may be off by on CUDA, which adds in another order. Convolutions do not round to TF32 unless they are allowed to.
const CUDA_TOLERANCE: f64 = 1e-4;

/// What the output of a network in bf16 may be off by: the root of the mean square, in units of the output's standard
/// deviation. bf16 rounds to 2⁻⁹ of a number; the worst of the recorded evaluations is off by 1.5e-2 where bf16 is emulated (x86, AVX2).
const BF16_TOLERANCE: f64 = 6.0 / 256.0;

fn tolerance(device: Device) -> f64 {
    if device == Device::Cpu { TOLERANCE } else { CUDA_TOLERANCE }
}

fn fixture(case: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ediffi").join(case).join(file)
}

fn recorded(case: &str, device: Device) -> BTreeMap<String, Tensor> {
    let read = Tensor::read_safetensors(fixture(case, "io.safetensors")).unwrap();
    read.into_iter().map(|(name, x)| (name, x.to_device(device))).collect()
}

fn config(case: &str) -> UNetConfig {
    serde_json::from_str(&std::fs::read_to_string(fixture(case, "config.json")).unwrap()).unwrap()
}

fn network(case: &str, device: Device, kind: Kind) -> UNet {
    let (config, path) = (config(case), fixture(case, "weights.safetensors"));
    let names = |name: &str| Some(name.to_owned());
    weights::load(&path, names, device, kind, |scope| UNet::new(scope, &config, kind)).unwrap()
}

/// The recorded embeddings but those that the evaluation goes without.
fn conditioning(evaluation: &str, io: &BTreeMap<String, Tensor>) -> Conditioning {
    let (t5, clip_text, clip_image) = match evaluation {
        "all" => (true, true, true),
        "image" => (false, false, true),
        "text" => (true, true, false),
        "t5" => (true, false, false),
        "clip" => (false, true, true),
        "none" => (false, false, false),
        other => panic!("{other}"),
    };
    let take = |name: &str, wanted: bool| io.get(name).filter(|_| wanted).map(Tensor::shallow_clone);
    Conditioning {
        t5: take("t5", t5),
        clip_text: take("clip_text", clip_text),
        clip_text_pooled: take("clip_text_pooled", clip_text),
        clip_image: take("clip_image", clip_image),
        low_res: take("low_res", true),
        micro: None,
        noise_level: None,
    }
}

fn greatest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

/// How far every recorded evaluation is off: its name, the greatest difference, and the root of the mean square of the differences
/// in units of the output's standard deviation.
fn distances(device: Device, kind: Kind) -> Vec<(String, f64, f64)> {
    let mut found = Vec::new();
    for (case, evaluations) in CASES {
        let (unet, io) = (network(case, device, kind), recorded(case, device));
        assert_eq!(io.keys().filter(|name| name.starts_with("out.")).count(), evaluations.len(), "{case}");
        for evaluation in evaluations {
            let context = unet.context(&conditioning(evaluation, &io), 2).unwrap();
            let out = unet.forward(&io["x"], &io["c_noise"], &context, None).unwrap();
            let expected = &io[&format!("out.{evaluation}")];
            assert_eq!((out.kind(), out.size()), (Kind::Float, expected.size()), "{case}");
            let off = out - expected;
            let rms = off.square().mean(Kind::Double).sqrt() / expected.std(true);
            found.push((format!("{case} {evaluation} on {device:?}"), greatest(&off), rms.double_value(&[])));
        }
    }
    found
}

#[test]
fn the_networks_are_those_of_the_papers() {
    for device in devices() {
        let found = distances(device, Kind::Float);
        for (name, greatest, _) in &found {
            assert!(*greatest <= tolerance(device), "{name} is off by {greatest:.1e}: {found:?}");
        }
    }
}

/// Guidance may run both branches in one batch.
#[test]
fn two_branches_in_one_batch_are_both_evaluations() {
    for device in devices() {
        for (case, evaluations) in CASES {
            let (unet, io) = (network(case, device, Kind::Float), recorded(case, device));
            // The second branch with the pictures in the other order: no row then is that of the first.
            let other: BTreeMap<_, _> = io.iter().map(|(name, x)| (name.clone(), x.flip([0]))).collect();
            let last = evaluations[evaluations.len() - 1];
            let branches = conditioning("all", &io).stacked(&conditioning(last, &other)).unwrap();
            let [x, c_noise] = ["x", "c_noise"].map(|name| Tensor::cat(&[&io[name], &other[name]], 0));
            let out = unet.forward(&x, &c_noise, &unet.context(&branches, 4).unwrap(), None).unwrap();
            let expected = Tensor::cat(&[&io["out.all"], &other[&format!("out.{last}")]], 0);
            let off = greatest(&(out - expected));
            assert!(off <= tolerance(device), "{case} on {device:?} is off by {off:.1e}");
        }
    }
}

/// Keeps the scores of all columns, and paints nothing.
#[derive(Debug, Default)]
struct Scores(Mutex<Vec<Tensor>>);

impl ScoreBias for Scores {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        self.0.lock().unwrap().push(Tensor::f_cat(&[site.scores()?, site.other_scores()?], -1)?);
        Ok(None)
    }
}

/// The order of its tokens does not matter to attention, but to paint: T5, CLIP text, and then what is no text.
///
/// The first layer with T5 and CLIP text swapped is off by 6.5, and with the null token in front by 6.7.
#[test]
fn paint_sees_the_scores_of_the_tokens_in_their_order() {
    for device in devices() {
        for (case, _) in CASES {
            let (unet, io) = (network(case, device, Kind::Float), recorded(case, device));
            let context = unet.context(&conditioning("all", &io), 2).unwrap();
            let hook = Scores::default();
            let painted = Painted { hook: &hook, sigma: 1.0, conditional: 2, window: Window::WHOLE };
            let _ = unet.forward(&io["x"], &io["c_noise"], &context, Some(painted)).unwrap();
            let mut expected = BTreeMap::new();
            for (name, scores) in &io {
                if let Some(layer) = name.strip_prefix("scores.") {
                    let (step, _) = layer.split_once('.').unwrap();
                    expected.insert(step.parse::<usize>().unwrap(), scores);
                }
            }
            let found = hook.0.into_inner().unwrap();
            assert_eq!(found.len(), expected.len(), "{case}");
            for (found, (step, expected)) in found.iter().zip(expected) {
                assert_eq!(found.size(), expected.size(), "{case} {step}");
                let off = greatest(&(found - expected));
                assert!(off <= tolerance(device), "step {step} of {case} on {device:?} is off by {off:.1e}");
            }
        }
    }
}

#[test]
fn a_network_in_bf16_is_as_near_as_its_roundings_allow() {
    for device in devices() {
        let found = distances(device, Kind::BFloat16);
        for (name, _, rms) in &found {
            assert!(*rms <= BF16_TOLERANCE, "{name} is off by {rms:.1e}: {found:?}");
        }
    }
}

/// Timesteps go up to 999, where bf16 knows every fourth whole number.
#[test]
fn the_noise_embedding_of_a_network_in_bf16_is_f32() {
    for device in devices() {
        for (case, _) in CASES {
            let (path, io) = (fixture(case, "weights.safetensors"), recorded(case, device));
            let dimensions = match config(case) {
                UNetConfig::Adm(Adm(dimensions)) | UNetConfig::Efficient(Efficient(dimensions)) => dimensions,
                other => panic!("{other:?}"),
            };
            let sinusoids = Sinusoids { width: dimensions.channels, multiply_first: false };
            let (width, activation) = (dimensions.embedding_width, Activation::Silu);
            let build =
                |scope: Scope<'_>| TimeEmbedding::new(scope, ["noise1", "noise2"], sinusoids, width, activation);
            let names = |name: &str| name.starts_with("noise").then(|| name.to_owned());
            let embedding = weights::load(&path, names, device, Kind::BFloat16, build).unwrap();
            let off = greatest(&(embedding.forward(&io["c_noise"]).unwrap() - &io["part.time_embedding"]));
            // A linear map of f32 is exact on every device.
            assert!(off <= TOLERANCE, "{case} on {device:?} is off by {off:.1e}");
        }
    }
}
