//! Paint in whole networks: eDiff-I's own layouts, and DeepFloyd IF's, where text and pixels share one softmax. The networks are the
//! tiny ones of `ediffi-core/tests/fixtures`.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../../ediffi-core/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use common::devices;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::nn::{Bias, ScoreBias, Site};
use ediffi_core::unet::{Layout, Painted, PublishedUNet, Tokens, UNet, UNetConfig};
use ediffi_core::weights;
use ediffi_core::window::Window;
use ediffi_paint::{Canvas, Painter, Region, Strength, TextTokens};
use tch::{Device, Kind, Tensor};

const PROMPT: &str = "a red apple";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ediffi-core/tests/fixtures").join(name)
}

fn tensors(name: &str, device: Device) -> BTreeMap<String, Tensor> {
    let read = Tensor::read_safetensors(fixture(name)).unwrap();
    read.into_iter().map(|(name, x)| (name, x.to_device(device))).collect()
}

/// A network, and two pictures with their texts.
struct Case {
    name: &'static str,
    unet: UNet,
    x: Tensor,
    c_noise: Tensor,
    conditioning: Conditioning,
}

impl Case {
    fn new(name: &'static str, device: Device, kind: Kind) -> Self {
        if name.starts_with("deepfloyd") {
            Self::deepfloyd(name, device, kind)
        } else {
            Self::ediffi(name, device, kind)
        }
    }

    fn load(layout: &dyn Layout, weights: &str, device: Device, kind: Kind) -> UNet {
        let names = |name: &str| Some(name.to_owned());
        weights::load(&fixture(weights), names, device, kind, |scope| UNet::new(scope, layout, kind)).unwrap()
    }

    fn ediffi(name: &'static str, device: Device, kind: Kind) -> Self {
        let config = std::fs::read_to_string(fixture(&format!("{name}/config.json"))).unwrap();
        let config: UNetConfig = serde_json::from_str(&config).unwrap();
        let mut io = tensors(&format!("{name}/io.safetensors"), device);
        let conditioning = Conditioning {
            t5: io.remove("t5"),
            clip_text: io.remove("clip_text"),
            clip_text_pooled: io.remove("clip_text_pooled"),
            clip_image: io.remove("clip_image"),
            low_res: io.remove("low_res"),
            micro: None,
            noise_level: None,
        };
        let [x, c_noise] = ["x", "c_noise"].map(|name| io[name].shallow_clone());
        Self {
            name,
            unet: Self::load(&config, &format!("{name}/weights.safetensors"), device, kind),
            x,
            c_noise,
            conditioning,
        }
    }

    fn deepfloyd(name: &'static str, device: Device, kind: Kind) -> Self {
        let (folder, file, io) = match name {
            "deepfloyd/stage-1" => ("stage-1/unet", "diffusion_pytorch_model.fp16.safetensors", "unet-stage-1"),
            "deepfloyd/stage-2" => ("stage-2/unet", "diffusion_pytorch_model.safetensors", "unet-stage-2"),
            _ => ("only-cross", "diffusion_pytorch_model.safetensors", "unet-only-cross"),
        };
        let mut config = PublishedUNet::read(&fixture(&format!("deepfloyd/{folder}/config.json"))).unwrap().network;
        let context = config.dimensions.context.as_mut().unwrap();
        // The texts of the recorded evaluations.
        context.t5 = context.t5.map(|t5| Tokens { tokens: 7, ..t5 });
        let unet = Self::load(&config, &format!("deepfloyd/{folder}/{file}"), device, kind);
        let mut io = tensors(&format!("deepfloyd/{io}.safetensors"), device);
        let (sample, low_res) = (&io["sample"], unet.io().low_res);
        let x = sample.narrow(1, 0, 3);
        let low_res = low_res.then(|| sample.narrow(1, 3, 3));
        let c_noise = io["timestep"].shallow_clone();
        let (t5, noise_level) = (io.remove("encoder_hidden_states"), io.remove("class_labels"));
        Self {
            name,
            unet,
            x,
            c_noise,
            conditioning: Conditioning { t5, low_res, noise_level, ..Conditioning::default() },
        }
    }

    /// How many tokens of T5 and of CLIP the network sees.
    fn tokens(&self) -> [usize; 2] {
        let shapes = self.unet.io().embeddings;
        [shapes.t5.map_or(0, |t5| t5.tokens), shapes.clip_text.map_or(0, |clip| clip.tokens)].map(|n| n as usize)
    }

    /// The columns of "red apple".
    fn apple(&self) -> Vec<i64> {
        let [t5, clip] = self.tokens();
        let ends = if clip > 0 { vec![t5 as i64 + 1, t5 as i64 + 2] } else { Vec::new() };
        [vec![1, 2], ends].concat()
    }

    /// A red apple in these columns of a canvas 32 wide.
    fn painter(&self, x: Range<u32>, weight: f64) -> Painter {
        let [t5, clip] = self.tokens();
        let mut words = vec![Some(0..1), Some(1..5), Some(5..11)];
        words.resize(t5, None);
        let mut clip_words = vec![None, Some(2..5), Some(6..11)];
        clip_words.resize(clip, None);
        let apple = Region::rectangle("red apple", (32, 32), x, 0..32).unwrap();
        let canvas = Canvas::new([apple]).unwrap().with_strength(Strength::new(weight)).unwrap();
        let t5 = TextTokens { encoder: "t5", text: PROMPT, offsets: &words };
        let clip = TextTokens { encoder: "clip", text: PROMPT, offsets: &clip_words };
        let encoders = [t5, clip].into_iter().filter(|encoder| !encoder.offsets.is_empty());
        Painter::new(&canvas, &encoders.collect::<Vec<_>>()).unwrap()
    }

    /// The paper's formula for the same paint.
    fn formula(&self, left: bool, weight: f64) -> Formula {
        Formula { left, weight, columns: self.apple() }
    }

    /// The network's answer; the first `conditional` of its two rows are painted.
    fn run(&self, hook: Option<&dyn ScoreBias>, conditional: i64, sigma: f64) -> Tensor {
        let context = self.unet.context(&self.conditioning, 2).unwrap();
        let painted = hook.map(|hook| Painted { hook, sigma, conditional, window: Window::WHOLE });
        self.unet.forward(&self.x, &self.c_noise, &context, painted).unwrap()
    }
}

const NAMES: [&str; 6] = [
    "ediffi/adm",
    "ediffi/efficient",
    "ediffi/efficient-patch",
    "deepfloyd/stage-1",
    "deepfloyd/stage-2",
    "deepfloyd/only-cross",
];

fn cases() -> impl Iterator<Item = (Device, Case)> {
    devices().into_iter().flat_map(|device| NAMES.map(|name| (device, Case::new(name, device, Kind::Float))))
}

/// eDiff-I §4.3, written out for a phrase that fills one half of the picture: w′ · log(1 + σ) · max(Q·Kᵀ/√d) in the columns of
/// the phrase at the painted pixels. The maximum is of a row and head, and not below zero.
#[derive(Debug)]
struct Formula {
    left: bool,
    weight: f64,
    columns: Vec<i64>,
}

impl ScoreBias for Formula {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        let (columns, device) = (site.shape()[3], site.device());
        let is_column = (0..columns).map(|column| f32::from(self.columns.contains(&column)));
        let is_column = Tensor::from_slice(&is_column.collect::<Vec<_>>());
        let is_painted = (0..site.height * site.width).map(|pixel| 2 * (pixel % site.width) < site.width);
        let is_painted = is_painted.map(|left| f32::from(left == self.left));
        let is_painted = Tensor::from_slice(&is_painted.collect::<Vec<_>>());
        let painted = is_painted.outer(&is_column).to_device(device);
        let maximum = site.scores()?.amax([2, 3], true).clamp_min(0.0);
        Ok(Some(Bias::Dense(maximum * (self.weight * site.sigma.ln_1p()) * painted)))
    }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// What answers may be apart that differ in rounding alone. The answers are of size 1. A CUDA device may take another
/// kernel for another number of rows.
fn rounding(device: Device) -> f64 {
    if device == Device::Cpu { 1e-5 } else { 1e-4 }
}

#[test]
fn a_painted_network_follows_the_papers_formula() {
    for (device, case) in cases() {
        let plain = case.run(None, 2, 5.0);
        for (columns, left) in [(0..16, true), (16..32, false)] {
            let found = case.run(Some(&case.painter(columns, 1.0)), 2, 5.0);
            let expected = case.run(Some(&case.formula(left, 1.0)), 2, 5.0);
            let (off, effect) = (difference(&found, &expected), difference(&plain, &expected));
            assert!(off < rounding(device) && effect > 2.0 * rounding(device), "{}: {off:.1e} {effect:.1e}", case.name);
        }
    }
}

#[test]
fn zero_weight_is_the_unpainted_network_bit_for_bit() {
    for (device, case) in cases() {
        let plain = case.run(None, 2, 5.0);
        assert_eq!(case.run(Some(&case.painter(0..16, 0.0)), 2, 5.0), plain, "{} on {device:?}", case.name);
    }
}

#[test]
fn rows_without_a_prompt_are_untouched() {
    for (device, case) in cases() {
        let [plain, painted] = [None, Some(case.painter(0..16, 2.0))]
            .map(|painter| case.run(painter.as_ref().map(|painter| painter as &dyn ScoreBias), 1, 5.0));
        let expected = case.run(Some(&case.formula(true, 2.0)), 2, 5.0);
        assert!(difference(&painted.narrow(0, 0, 1), &expected.narrow(0, 0, 1)) < rounding(device), "{}", case.name);
        let off = difference(&painted.narrow(0, 1, 1), &plain.narrow(0, 1, 1));
        // On the CPU bit for bit.
        assert!(if device == Device::Cpu { off == 0.0 } else { off < rounding(device) }, "{}: {off:.1e}", case.name);
    }
}

/// What a painter was asked in one evaluation, and what it said.
#[derive(Debug)]
struct Spy {
    painter: Painter,
    seen: Mutex<Vec<(i64, i64, Tensor, Tensor)>>,
}

impl ScoreBias for Spy {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        let Some(bias) = self.painter.bias(site)? else { return Ok(None) };
        let bias = bias.into_dense()?;
        self.seen.lock().unwrap().push((site.height, site.width, site.scores()?.copy(), bias.copy()));
        Ok(Some(Bias::Dense(bias)))
    }
}

/// In every layer the pixels inside look more at the phrase, and the others as before; the more weight and noise, the more.
#[test]
fn attention_to_the_phrase_moves_with_the_mask_in_every_layer() {
    for (_, case) in cases() {
        let left_half = |x: i64, width: i64| 2 * x < width;
        for (columns, inside_left) in [(0..16, true), (16..32, false)] {
            let mut growth = Vec::new();
            for (weight, sigma) in [(0.5, 1.0), (1.0, 1.0), (1.0, 20.0)] {
                let spy = Spy { painter: case.painter(columns.clone(), weight), seen: Mutex::default() };
                drop(case.run(Some(&spy), 2, sigma));
                let seen = spy.seen.into_inner().unwrap();
                assert!(!seen.is_empty());
                let mut gained = f64::INFINITY;
                for (height, width, scores, bias) in seen {
                    let text = case.tokens().iter().sum::<usize>() as i64;
                    assert_eq!(scores.size()[2..], [height * width, text]);
                    let mass = |scores: &Tensor| {
                        let attention = scores.softmax(-1, Kind::Float);
                        case.apple().into_iter().map(|column| attention.select(3, column)).sum::<Tensor>()
                    };
                    // Of a head whose largest score is below zero there is nothing to scale: it is not painted.
                    let heads = scores.amax([2, 3], false).gt(0.0);
                    let change = mass(&(&scores + &bias)) - mass(&scores);
                    for pixel in 0..height * width {
                        let change = change.select(2, pixel);
                        if left_half(pixel % width, width) == inside_left {
                            let painted = change.masked_select(&heads);
                            assert!(painted.min().double_value(&[]) > 0.0);
                            gained = gained.min(painted.mean(Kind::Double).double_value(&[]));
                        } else {
                            assert!(change.abs().max().double_value(&[]) < 1e-6);
                        }
                    }
                }
                growth.push(gained);
            }
            assert!(growth.is_sorted_by(|a, b| a < b), "{growth:?}");
        }
    }
}
