//! Paint in DeepFloyd IF's networks, where text and pixels share one softmax: the tiny networks of
//! `ediffi-core/tests/fixtures/deepfloyd`.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::nn::{ScoreBias, Site};
use ediffi_core::unet::{Painted, PublishedUNet, Tokens, UNet};
use ediffi_core::weights;
use ediffi_core::window::Window;
use ediffi_paint::{Canvas, Painter, Region, Strength, TextTokens};
use tch::{Device, Kind, Tensor};

const PROMPT: &str = "a red apple";
/// Tokens of a text in the recorded evaluations, and those of "red apple".
const COLUMNS: i64 = 7;
const APPLE: [i64; 2] = [1, 2];

/// Folder, weights and recorded evaluation of a stage I, a stage II, and a network without attention among pixels.
const NETWORKS: [(&str, &str, &str); 3] = [
    ("stage-1/unet", "diffusion_pytorch_model.fp16.safetensors", "unet-stage-1.safetensors"),
    ("stage-2/unet", "diffusion_pytorch_model.safetensors", "unet-stage-2.safetensors"),
    ("only-cross", "diffusion_pytorch_model.safetensors", "unet-only-cross.safetensors"),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ediffi-core/tests/fixtures/deepfloyd").join(name)
}

/// A network and two pictures with their texts.
struct Case {
    unet: UNet,
    io: BTreeMap<String, Tensor>,
}

impl Case {
    fn all() -> Vec<Self> {
        let open = |(folder, file, io): (&str, &str, &str)| {
            let folder = fixture(folder);
            let mut config = PublishedUNet::read(&folder.join("config.json")).unwrap().network;
            let context = config.dimensions.context.as_mut().unwrap();
            context.t5 = context.t5.map(|t5| Tokens { tokens: COLUMNS, ..t5 });
            let path = folder.join(file);
            let names = |name: &str| Some(name.to_owned());
            let build = |scope: weights::Scope<'_>| UNet::new(scope, &config, Kind::Float);
            let unet = weights::load(&path, names, Device::Cpu, Kind::Float, build).unwrap();
            Self { unet, io: Tensor::read_safetensors(fixture(io)).unwrap().into_iter().collect() }
        };
        NETWORKS.into_iter().map(open).collect()
    }

    /// The network's answer; the first `conditional` of its two rows are painted.
    fn run(&self, hook: Option<&dyn ScoreBias>, conditional: i64, sigma: f64) -> Tensor {
        let sample = &self.io["sample"];
        let (x, low_res) = match self.unet.io().low_res {
            true => (sample.narrow(1, 0, 3), Some(sample.narrow(1, 3, 3))),
            false => (sample.shallow_clone(), None),
        };
        let t5 = Some(self.io["encoder_hidden_states"].shallow_clone());
        let noise_level = self.io.get("class_labels").map(Tensor::shallow_clone);
        let conditioning = Conditioning { t5, low_res, noise_level, ..Conditioning::default() };
        let context = self.unet.context(&conditioning, 2).unwrap();
        let painted = hook.map(|hook| Painted { hook, sigma, conditional, window: Window::WHOLE });
        self.unet.forward(&x, &self.io["timestep"], &context, painted).unwrap()
    }
}

fn painter(x: Range<u32>, weight: f64) -> Painter {
    let t5: [Option<Range<usize>>; 7] = [Some(0..1), Some(1..5), Some(5..11), None, None, None, None];
    let apple = Region::rectangle("red apple", (32, 32), x, 0..32).unwrap();
    let canvas = Canvas::new([apple]).unwrap().with_strength(Strength::new(weight)).unwrap();
    Painter::new(&canvas, &[TextTokens { encoder: "t5", text: PROMPT, offsets: &t5 }]).unwrap()
}

#[test]
fn zero_weight_is_the_unpainted_network_bit_for_bit() {
    for case in Case::all() {
        let plain = case.run(None, 2, 5.0);
        assert_eq!(case.run(Some(&painter(0..16, 0.0)), 2, 5.0), plain);
        assert_ne!(case.run(Some(&painter(0..16, 1.0)), 2, 5.0), plain);
    }
}

#[test]
fn rows_without_a_prompt_are_untouched_bit_for_bit() {
    for case in Case::all() {
        let (plain, painted) = (case.run(None, 1, 5.0), case.run(Some(&painter(0..16, 2.0)), 1, 5.0));
        assert_eq!(painted.narrow(0, 1, 1), plain.narrow(0, 1, 1));
        assert_ne!(painted.narrow(0, 0, 1), plain.narrow(0, 0, 1));
    }
}

#[test]
fn moving_the_mask_changes_the_answer() {
    for case in Case::all() {
        let [left, right] = [0..16, 16..32].map(|x| case.run(Some(&painter(x, 1.0)), 2, 5.0));
        assert_ne!(left, right);
    }
}

/// What a painter was asked in one evaluation, and what it said.
#[derive(Debug)]
struct Spy {
    painter: Painter,
    seen: Mutex<Vec<(i64, i64, Tensor, Tensor)>>,
}

impl ScoreBias for Spy {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Tensor>> {
        let bias = self.painter.bias(site)?;
        if let Some(bias) = &bias {
            let record = (site.height, site.width, site.scores.copy(), bias.copy());
            self.seen.lock().unwrap().push(record);
        }
        Ok(bias)
    }
}

/// In every layer the pixels inside look more at the phrase, and the others as before; the more weight and noise, the more.
#[test]
fn attention_to_the_phrase_moves_with_the_mask_in_every_layer() {
    for case in Case::all() {
        let layers = case.io.keys().filter(|name| name.starts_with("tap.")).count();
        let left_half = |x: i64, width: i64| 2 * x < width;
        for (columns, inside_left) in [(0..16, true), (16..32, false)] {
            let mut growth = Vec::new();
            for (weight, sigma) in [(0.5, 1.0), (1.0, 1.0), (1.0, 20.0)] {
                let spy = Spy { painter: painter(columns.clone(), weight), seen: Mutex::default() };
                drop(case.run(Some(&spy), 2, sigma));
                let seen = spy.seen.into_inner().unwrap();
                assert!(!seen.is_empty() && seen.len() < layers);
                let mut gained = f64::INFINITY;
                for (height, width, scores, bias) in seen {
                    assert_eq!(scores.size()[2..], [height * width, COLUMNS]);
                    let mass = |scores: &Tensor| {
                        let attention = scores.softmax(-1, Kind::Float);
                        APPLE.map(|column| attention.select(3, column)).iter().sum::<Tensor>()
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
