//! The tiny model.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use ediffi::{DeviceChoice, Generation, Manifest, Pipeline, PipelineBuilder, Precision, Request, StyleImage};
use ediffi_core::nn::{Activation, Norm};
use ediffi_core::noise::NoiseSource;
use ediffi_core::seed::Noise;
use ediffi_core::unet::{Adm, ClipText, ContextConfig, Dimensions, Efficient, Level, Tokens, UNet, UNetConfig};
use ediffi_core::weights::{self, Fresh, Scope};
use ediffi_encoders::t5::FeedForwardKind;
use ediffi_encoders::{
    ClipConfig, ClipTextConfig, ClipTextNetwork, ClipVisionConfig, ClipVisionNetwork, T5Config, T5Network,
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// The words that the tokenizers know.
const WORDS: [&str; 12] = ["a", "red", "green", "apple", "cat", "dog", "left", "of", "on", "blue", "blur", "and"];

/// Tokens that a text is filled up to: T5 has one special token, CLIP two.
pub(crate) const T5_TOKENS: i64 = 10;
pub(crate) const CLIP_TOKENS: i64 = 12;

/// A model folder that is removed when it is dropped.
pub(crate) struct Model {
    pub(crate) folder: TempDir,
}

impl Model {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        t5(&root.join("t5"));
        clip(&root.join("clip"));
        let base = config(context(), false);
        network(&root.join("base"), &base, &["high", "low"]);
        // Super-resolution without words: they matter to the first stage alone.
        network(&root.join("sr"), &config(None, true), &["all"]);
        Manifest::write(&manifest(), root).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// In f32 on the CPU, so that the tests mean the same on every machine, and with float pixels to compare.
    pub(crate) fn builder(&self) -> PipelineBuilder {
        Pipeline::builder(self.path()).device(DeviceChoice::Cpu).precision(Precision::F32).keep_floats(true)
    }

    pub(crate) fn open(&self) -> Pipeline {
        self.builder().open().unwrap()
    }

    /// Changes the manifest and opens the folder again.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.path().join("pipeline.json");
        let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut manifest);
        fs::write(path, manifest.to_string()).unwrap();
    }
}

pub(crate) fn manifest() -> Manifest {
    let sampler = |steps: usize| json!({ "solver": "dpmpp-2m", "steps": steps, "schedule": { "karras": { "min": 0.02, "max": 20, "rho": 7 } } });
    let stages = json!([
        { "name": "base", "size": 8, "network": "base/config.json", "precondition": { "edm": { "sigma_data": 0.5 } },
          "experts": [ { "weights": "base/high.safetensors", "sigma": [2, null] },
                       { "weights": "base/low.safetensors", "sigma": [0, 2] } ],
          "sampler": sampler(4), "guidance": { "scale": 3.0 } },
        { "name": "sr", "size": 16, "network": "sr/config.json", "precondition": { "edm": { "sigma_data": 0.5 } },
          "experts": [ { "weights": "sr/all.safetensors", "sigma": [0, null] } ],
          "sampler": sampler(2) }
    ]);
    let encoders = json!({ "t5": "t5", "clip": "clip" });
    serde_json::from_value(json!({ "format": "ediffi-pipeline/1", "encoders": encoders, "stages": stages })).unwrap()
}

pub(crate) fn context() -> Option<ContextConfig> {
    Some(ContextConfig {
        width: 16,
        t5: Some(Tokens { tokens: T5_TOKENS, width: 8 }),
        clip_text: Some(ClipText { tokens: CLIP_TOKENS, width: 8, pooled: Some(6) }),
        clip_image: Some(6),
    })
}

pub(crate) fn config(context: Option<ContextConfig>, low_res: bool) -> UNetConfig {
    let level = |multiplier, attention| Level {
        multiplier,
        blocks: 1,
        self_attention: attention,
        cross_attention: attention && context.is_some(),
    };
    let dimensions = Dimensions {
        picture_channels: 3,
        low_res,
        patch: 1,
        channels: 8,
        levels: vec![level(1, false), level(2, true)],
        head_channels: 8,
        norm: Norm::Group(4),
        embedding_width: 16,
        context,
        detail: None,
    };
    if low_res { Efficient(dimensions).into() } else { Adm(dimensions).into() }
}

/// Writes a network's dimensions, and one file of weights for each expert.
pub(crate) fn network(folder: &Path, config: &UNetConfig, experts: &[&str]) {
    write_json(folder, "config.json", config);
    for (seed, expert) in experts.iter().enumerate() {
        let weights = random(seed as u64, |scope| drop(UNet::new(scope, config, Kind::Float).unwrap()));
        weights::save(&folder.join(format!("{expert}.safetensors")), &weights, HashMap::new()).unwrap();
    }
}

/// The parameters that `build` asks for. Those that would start at zero are random too: they would hide everything behind
/// them.
fn random(seed: u64, build: impl Fn(Scope<'_>)) -> Vec<(String, Tensor)> {
    let mut fresh = Fresh::new(seed, Device::Cpu);
    build(Scope::root(&mut fresh));
    let mut noise = Noise::new(&[seed], 99);
    let mut jittered = |tensor: Tensor| {
        let jitter = noise.normal(&[1, tensor.numel() as i64]).unwrap().view_as(&tensor);
        tensor + 0.1 * jitter
    };
    fresh.into_named().into_iter().map(|(name, tensor)| (name, jittered(tensor))).collect()
}

fn t5(folder: &Path) {
    let config = T5Config {
        vocab_size: 32,
        d_model: 8,
        d_kv: 4,
        d_ff: 16,
        num_layers: 1,
        num_heads: 2,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 16,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: FeedForwardKind::GatedGelu,
        pad_token_id: 0,
        eos_token_id: 1,
    };
    write_json(folder, "config.json", &config);
    tokenizer(folder, &["<pad>", "</s>", "<unk>"]);
    let weights = random(7, |scope| drop(T5Network::new(scope, &config, Kind::Float).unwrap()));
    weights::save(&folder.join("model.safetensors"), &weights, HashMap::new()).unwrap();
}

fn clip(folder: &Path) {
    let text = ClipTextConfig {
        vocab_size: 32,
        hidden_size: 8,
        intermediate_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: CLIP_TOKENS,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: 1,
    };
    let vision = ClipVisionConfig {
        hidden_size: 8,
        intermediate_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        image_size: 16,
        patch_size: 8,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    };
    let config = ClipConfig { text_config: text.clone(), vision_config: Some(vision.clone()), projection_dim: 6 };
    write_json(folder, "config.json", &config);
    tokenizer(folder, &["<|startoftext|>", "<|endoftext|>", "<unk>"]);
    let mut weights = random(8, |scope| drop(ClipTextNetwork::new(scope, &text, Some(6), Kind::Float).unwrap()));
    weights.extend(random(9, |scope| drop(ClipVisionNetwork::new(scope, &vision, Some(6), Kind::Float).unwrap())));
    weights::save(&folder.join("model.safetensors"), &weights, HashMap::new()).unwrap();
}

/// A tokenizer of whole words.
fn tokenizer(folder: &Path, special: &[&str]) {
    let tokens = special.iter().chain(&WORDS).enumerate();
    let vocab: serde_json::Map<String, Value> = tokens.map(|(id, &token)| (token.to_owned(), id.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" }
    });
    write_json(folder, "tokenizer.json", &tokenizer);
}

fn write_json(folder: &Path, name: &str, value: &impl serde::Serialize) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), serde_json::to_string(value).unwrap()).unwrap();
}

pub(crate) fn apple() -> Request {
    Request::new("a red apple left of a cat").seed(7)
}

pub(crate) fn style(level: u8) -> StyleImage {
    let pixel = |x, y| image::Rgb([level, (16 * x) as u8, (16 * y) as u8]);
    StyleImage::new(image::RgbImage::from_fn(16, 16, pixel)).unwrap()
}

/// The files of all images.
pub(crate) fn bytes(generation: &Generation) -> Vec<Vec<u8>> {
    generation.images.iter().map(|image| image.to_png().unwrap()).collect()
}

/// The first image of a request.
pub(crate) fn tensor(pipeline: &Pipeline, request: &Request) -> Tensor {
    pipeline.generate(request).unwrap().images[0].tensor().unwrap()
}

/// The greatest difference between two pictures.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max()).unwrap()
}
