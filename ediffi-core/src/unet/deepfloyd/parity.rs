//! The network beside diffusers': every block of tiny networks, and names and shapes of the full-size ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::{DeepFloyd, PublishedUNet, Switches};
use crate::Error;
use crate::conditioning::Conditioning;
use crate::unet::{Layout as _, Tokens, UNet, UNetConfig};
use crate::weights::{self, Table};

/// What a part may be off by, in units of the spread of its output where that is above 1 (within the networks it reaches 3),
/// and for the output of the network as it is. By this measure diffusers is off from itself by up to 3.0e-6 on these
/// fixtures, and its outputs by 1.9e-6: with two threads, channels-last, without oneDNN, or in f64 (`rounding.py` beside the
/// fixtures, on two x86 cores with AVX-512). Without the unit that is more where values are large: on networks twice as wide
/// diffusers' own channels-last evaluation is 1.4e-5 off from its usual one after a block whose values reach 6.
///
/// Below it is the mildest fault in the arithmetic that has been tried, another epsilon in the norm before attention.
/// Deliberate faults that a test of this file caught, and by how much the first part was off: another epsilon in the norms of
/// the residual blocks (1.4e-4) or before attention (9.5e-6), GELU by tanh (2.1e-4), scale and shift swapped (2.1), sines
/// before cosines (0.94), frequencies shifted by one (0.58), the text normed token by token (0.83), pooled without its first
/// norm (0.62), residuals times 0.70710678 for 1 / (1 / 0.7071) (2.5e-5), every other pixel for a mean of four (2.5), bilinear
/// for repeated pixels (0.85), the noise embedding not activated (1.7) or activated twice (0.28), attention without its
/// residual (2.1), the middle not scaled (1.5).
const TOLERANCE: f64 = 8e-6;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/deepfloyd").join(name)
}

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture(name)).unwrap().into_iter().collect()
}

fn same(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// The dimensions of a network of the fixtures, for texts of 7 tokens as the recorded evaluations have them.
fn config(folder: &str) -> DeepFloyd {
    let mut config = PublishedUNet::read(&fixture(folder).join("config.json")).unwrap().network;
    if let Some(context) = &mut config.dimensions.context {
        context.t5 = context.t5.map(|t5| Tokens { tokens: 7, ..t5 });
    }
    config
}

fn network(folder: &str, file: &str) -> UNet {
    let config = config(folder);
    let path = fixture(folder).join(file);
    weights::load(&path, same, Device::Cpu, Kind::Float, |scope| UNet::new(scope, &config, Kind::Float)).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max()).unwrap()
}

/// The greatest difference between `a` and the recorded `b`, in units of the spread of `b` where that is above 1.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    difference(a, b) / f64::try_from(b.std(true)).unwrap().max(1.0)
}

/// The worst difference of each part, in the order of the network.
fn differences(unet: &UNet, io: &BTreeMap<String, Tensor>) -> Vec<(String, f64)> {
    let (x, low_res) = match unet.io().low_res {
        true => (io["sample"].narrow(1, 0, 3), Some(io["sample"].narrow(1, 3, 3))),
        false => (io["sample"].shallow_clone(), None),
    };
    let t5 = Some(io["encoder_hidden_states"].shallow_clone());
    let noise_level = io.get("class_labels").map(Tensor::shallow_clone);
    let conditioning = Conditioning { t5, low_res, noise_level, ..Conditioning::default() };
    let context = unet.context(&conditioning, 2).unwrap();
    let mut seen = BTreeMap::new();
    let mut order = Vec::new();
    let out = unet
        .forward_tapped(&x, &io["timestep"], &context, None, |name, h| {
            // The last part of a block gives what the block gives: `down_blocks.0.resnets.1` is one of `down_blocks.0`.
            let parts: Vec<&str> = name.split('.').collect();
            let block = match parts[0] {
                "down_blocks" | "up_blocks" => parts[..2].join("."),
                other => other.to_owned(),
            };
            if !seen.contains_key(&block) {
                order.push(block.clone());
            }
            seen.insert(block, h.copy());
        })
        .unwrap();
    let mut found: Vec<(String, f64)> = Vec::new();
    let mut pooled = io["tap.add_embedding"].shallow_clone();
    if let Some(level) = io.get("tap.class_embedding") {
        pooled += level;
    }
    found.push(("pooled".to_owned(), distance(&context.pooled.unwrap(), &pooled)));
    found.extend(order.into_iter().map(|name| {
        let found = distance(&seen[&name], &io[&format!("tap.{name}")]);
        (name, found)
    }));
    found.push(("out".to_owned(), difference(&out, &io["out"])));
    found
}

fn check(unet: &UNet, evaluation: &str) {
    let io = tensors(evaluation);
    let found = differences(unet, &io);
    let taps = io.keys().filter(|name| name.starts_with("tap.")).count();
    // All taps but the projection of the text (seen through keys and values) and those that make `pooled`.
    let made = 2 + usize::from(io.contains_key("tap.class_embedding"));
    assert_eq!(found.len(), taps - made + 2, "{found:?}");
    for (name, distance) in &found {
        assert!(*distance <= TOLERANCE, "{evaluation}: {name} is off by {distance:.1e}: {found:?}");
    }
}

const FP16: &str = "diffusion_pytorch_model.fp16.safetensors";
const PLAIN: &str = "diffusion_pytorch_model.safetensors";

#[test]
fn stage_1_is_that_of_diffusers_block_by_block() {
    let unet = network("stage-1/unet", FP16);
    check(&unet, "unet-stage-1.safetensors");
    check(&unet, "unet-stage-1-rectangle.safetensors");
}

#[test]
fn stage_2_is_that_of_diffusers_block_by_block() {
    check(&network("stage-2/unet", PLAIN), "unet-stage-2.safetensors");
}

#[test]
fn attention_to_the_text_alone_is_that_of_diffusers_block_by_block() {
    check(&network("only-cross", PLAIN), "unet-only-cross.safetensors");
}

#[derive(Deserialize)]
struct Manifest {
    config: serde_json::Value,
    shapes: BTreeMap<String, Vec<i64>>,
}

/// Reads a configuration that is held as a value.
fn read(config: &serde_json::Value) -> crate::Result<PublishedUNet> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    PublishedUNet::read(&path)
}

fn manifest(name: &str) -> Manifest {
    let packed = std::fs::File::open(fixture(name)).unwrap();
    serde_json::from_reader(flate2::read::GzDecoder::new(packed)).unwrap()
}

fn shapes(config: &DeepFloyd) -> BTreeMap<String, Vec<i64>> {
    let table = Table::of(|scope| UNet::new(scope, config, Kind::Float)).unwrap();
    table.specs().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect()
}

#[test]
fn the_full_size_networks_have_the_published_parameters() {
    for (name, count, elements) in
        [("manifest-if-i-xl.json.gz", 775, 4_304_695_110_i64), ("manifest-if-ii-l.json.gz", 939, 1_243_277_190)]
    {
        let manifest = manifest(name);
        let published = read(&manifest.config).unwrap();
        let found = shapes(&published.network);
        assert_eq!(found, manifest.shapes, "{name}");
        assert_eq!(found.len(), count, "{name}");
        assert_eq!(found.values().map(|shape| shape.iter().product::<i64>()).sum::<i64>(), elements, "{name}");
        assert_eq!(published.sample_size, if published.network.dimensions.low_res { 256 } else { 64 });
        assert_eq!(published.network.io().size_multiple, if published.network.dimensions.low_res { 16 } else { 8 });
    }
}

/// Early configurations lack fields that later versions of diffusers wrote, and have some that mean nothing here.
#[test]
fn absent_fields_have_their_historical_defaults() {
    let Manifest { config, shapes: expected } = manifest("manifest-if-i-xl.json.gz");
    let mut early = config.as_object().unwrap().clone();
    for field in [
        "addition_embed_type_num_heads",
        "mid_block_only_cross_attention",
        "encoder_hid_dim_type",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "resnet_skip_time_act",
        "resnet_out_scale_factor",
        "class_embed_type",
        "norm_eps",
        "norm_num_groups",
        "conv_in_kernel",
        "time_embedding_type",
    ] {
        assert!(early.remove(field).is_some(), "{field}");
    }
    early.insert("only_cross_attention".to_owned(), serde_json::json!([false, false, false, false]));
    early.insert("layers_per_block".to_owned(), serde_json::json!([3, 3, 3, 3]));
    early.insert("_name_or_path".to_owned(), serde_json::json!("somewhere"));
    early.insert("a_field_of_the_future".to_owned(), serde_json::json!(null));
    early.insert("decay".to_owned(), serde_json::json!(0.9999));
    early.insert("num_class_embeds".to_owned(), serde_json::json!(7));
    early.insert("projection_class_embeddings_input_dim".to_owned(), serde_json::json!(7));
    let mut later = early.clone();
    let early = read(&early.into()).unwrap().network;
    assert_eq!(early, read(&config).unwrap().network);
    assert_eq!(shapes(&early), expected);
    // Off it changes nothing, on it may change anything.
    later.insert("a_field_of_the_future".to_owned(), serde_json::json!({"a": 1}));
    assert!(read(&later.into()).unwrap_err().to_string().contains("a_field_of_the_future"));
}

/// Fields that have one value in all published networks, and are followed all the same.
#[test]
fn fields_are_followed_that_published_networks_share() {
    let mut changed = manifest("manifest-if-i-xl.json.gz").config.as_object().unwrap().clone();
    changed.insert("mid_block_only_cross_attention".to_owned(), serde_json::json!(true));
    changed.insert("norm_eps".to_owned(), serde_json::json!(1e-3));
    let Switches { middle_self_attention, norm_eps, .. } = read(&changed.into()).unwrap().network.switches;
    assert_eq!((middle_self_attention, norm_eps), (false, 1e-3));
}

#[test]
fn configurations_of_other_models_name_what_is_not_supported() {
    let config = manifest("manifest-if-i-xl.json.gz").config;
    let changes = [
        ("down_block_types", serde_json::json!(["CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"])),
        ("down_block_types", serde_json::json!(["ResnetDownsampleBlock2D"])),
        ("up_block_types", serde_json::json!(vec!["ResnetUpsampleBlock2D"; 4])),
        ("mid_block_type", serde_json::json!("UNetMidBlock2DCrossAttn")),
        ("in_channels", serde_json::json!(4)),
        ("act_fn", serde_json::json!("mish")),
        ("cross_attention_norm", serde_json::json!(null)),
        ("encoder_hid_dim", serde_json::json!(null)),
        ("encoder_hid_dim_type", serde_json::json!("image_proj")),
        ("class_embed_type", serde_json::json!("projection")),
        ("resnet_time_scale_shift", serde_json::json!("default")),
        ("center_input_sample", serde_json::json!(true)),
        ("flip_sin_to_cos", serde_json::json!(false)),
        ("freq_shift", serde_json::json!(1)),
        ("addition_embed_type", serde_json::json!("text_image")),
        ("class_embeddings_concat", serde_json::json!(true)),
        ("time_embedding_type", serde_json::json!("fourier")),
        ("timestep_post_act", serde_json::json!("silu")),
        ("time_cond_proj_dim", serde_json::json!(256)),
        ("conv_in_kernel", serde_json::json!(1)),
        ("conv_out_kernel", serde_json::json!(1)),
        ("resnet_skip_time_act", serde_json::json!(true)),
        ("layers_per_block", serde_json::json!([3, 3])),
        ("sample_size", serde_json::json!(null)),
        ("norm_num_groups", serde_json::json!(null)),
        ("context", serde_json::json!(null)),
    ];
    for (field, value) in changes {
        let mut changed = config.as_object().unwrap().clone();
        let key = if field == "context" { "cross_attention_dim" } else { field };
        changed.insert(key.to_owned(), if field == "context" { serde_json::json!(100) } else { value });
        let error = read(&changed.into()).unwrap_err();
        assert!(matches!(&error, Error::NetworkConfig { field: named, .. } if *named == field), "{field}: {error}");
    }
}

#[test]
fn the_text_and_the_noise_level_are_asked_for() {
    let stage_1 = network("stage-1/unet", FP16);
    let error = stage_1.context(&Conditioning::default(), 1).unwrap_err();
    assert!(matches!(error, Error::EmbeddingNeeded("t5")), "{error}");
    let zeros = |shape: &[i64]| Some(Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
    let text = || Conditioning { t5: zeros(&[1, 7, 40]), ..Conditioning::default() };
    let level = Tensor::from_slice(&[250_i64]);
    let error = stage_1.context(&Conditioning { noise_level: Some(level), ..text() }, 1).unwrap_err();
    assert!(matches!(error, Error::EmbeddingNotTaken("noise_level")), "{error}");
    let with_image = Conditioning { clip_image: zeros(&[1, 4]), ..text() };
    assert!(matches!(stage_1.context(&with_image, 1), Err(Error::EmbeddingNotTaken("clip_image"))));
    let long = Conditioning { t5: zeros(&[1, 8, 40]), ..text() };
    assert!(matches!(stage_1.context(&long, 1), Err(Error::EmbeddingShape { name: "t5", .. })));
    let stage_2 = network("stage-2/unet", PLAIN);
    let with_picture = Conditioning { low_res: zeros(&[1, 3, 8, 8]), ..text() };
    let error = stage_2.context(&with_picture, 1).unwrap_err();
    assert!(matches!(error, Error::EmbeddingNeeded("noise_level")), "{error}");
}

#[test]
fn the_layout_comes_back_from_json() {
    let config = UNetConfig::from(config("stage-2/unet"));
    let text = serde_json::to_string(&config).unwrap();
    assert!(text.contains(r#""layout":{"deepfloyd":{"variance":true"#), "{text}");
    assert_eq!(serde_json::from_str::<UNetConfig>(&text).unwrap(), config);
}

/// A network in bf16 stays near the one in f32: norms, softmax and the noise embedding keep their precision.
#[test]
fn half_precision_is_near() {
    let io = tensors("unet-stage-1.safetensors");
    let config = config("stage-1/unet");
    let path = fixture("stage-1/unet").join(FP16);
    let kind = Kind::BFloat16;
    let unet = weights::load(&path, same, Device::Cpu, kind, |scope| UNet::new(scope, &config, kind)).unwrap();
    let t5 = Some(io["encoder_hidden_states"].shallow_clone());
    let context = unet.context(&Conditioning { t5, ..Conditioning::default() }, 2).unwrap();
    let out = unet.forward(&io["sample"], &io["timestep"], &context, None).unwrap();
    let scale = f64::try_from(io["out"].abs().max()).unwrap();
    assert!(difference(&out, &io["out"]) <= 5e-2 * scale);
}
