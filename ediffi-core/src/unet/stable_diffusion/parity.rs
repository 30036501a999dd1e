//! The network beside diffusers': every block of tiny networks, and the parameters of the full-size ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{PublishedStableDiffusion, StableDiffusion};
use crate::Error;
use crate::conditioning::Conditioning;
use crate::denoiser::denoise_with;
use crate::precondition::Velocity;
use crate::timesteps::NoiseTable;
use crate::unet::{ClipText, Layout as _, UNet, UNetConfig};
use crate::weights::{self, Table};

/// What a part may be off by, in units of the spread of its output where that is above 1, and for the output of the network as it is.
/// By this measure diffusers is off from itself by up to 6.3e-6 on these fixtures: in f64, or channels-last (`rounding.py` beside them).
///
/// Deliberate faults that a test of this file caught, and by how much the worst part was off: another epsilon in the norm before a
/// transformer (3.9e-5, the mildest) or in those of the residual blocks (7.1e-3), GELU by tanh (9.6e-4), the halves of GEGLU swapped
/// (2.6), heads for channels of a head (1.6), a transformer without its residual (4.1), the norm of another layer (2.0), queries halved
/// (1.6), numbers before the pooled text (2.5), the middle not divided (1.9), another nonlinearity of the noise embedding (0.34),
/// bilinear for repeated pixels (1.8), convolutions taken for linear maps (a file that does not fit). Not caught: frequencies divided
/// before they are multiplied, which moves the last bit of some, but of none of so few.
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stable-diffusion").join(name)
}

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture(name)).unwrap().into_iter().collect()
}

fn same(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// The pooled width of the tiny networks that take one.
fn pooled(case: &str) -> Option<i64> {
    match case {
        "unet-xl" => Some(10),
        "unet-refiner" => Some(6),
        _ => None,
    }
}

/// The dimensions of a network of the fixtures, for texts of 7 tokens as the recorded evaluations have them.
fn config(case: &str) -> StableDiffusion {
    let path = fixture(case).join("config.json");
    let mut config = PublishedStableDiffusion::read(&path, pooled(case)).unwrap().network;
    config.text = ClipText { tokens: 7, ..config.text };
    config
}

fn network(case: &str, kind: Kind) -> UNet {
    let (path, config) = (fixture(case).join("weights.safetensors"), config(case));
    weights::load(&path, same, Device::Cpu, kind, |scope| UNet::new(scope, &config, kind)).unwrap()
}

fn conditioning(io: &BTreeMap<String, Tensor>) -> Conditioning {
    let take = |name: &str| io.get(name).map(Tensor::shallow_clone);
    Conditioning {
        clip_text: take("encoder_hidden_states"),
        clip_text_pooled: take("text_embeds"),
        micro: take("time_ids"),
        ..Conditioning::default()
    }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    difference(a, b) / b.std(true).double_value(&[]).max(1.0)
}

/// Compares every block of one evaluation.
fn check(case: &str, file: &str) {
    let (unet, io) = (network(case, Kind::Float), tensors(&format!("{case}/{file}")));
    let context = unet.context(&conditioning(&io), 2).unwrap();
    let mut seen = BTreeMap::new();
    let keep = |name: &str, h: &Tensor| {
        // The last part of a block gives what the block gives.
        let parts: Vec<&str> = name.split('.').collect();
        let block = if parts[0].ends_with("_blocks") { parts[..2].join(".") } else { parts[0].to_owned() };
        seen.insert(block, h.copy());
    };
    let out = unet.forward_tapped(&io["sample"], &io["timestep"], &context, None, keep).unwrap();
    if let Some(pooled) = &context.pooled {
        seen.insert("add_embedding".to_owned(), pooled.copy());
    }
    let found: Vec<_> = seen.iter().map(|(name, h)| (name, distance(h, &io[&format!("tap.{name}")]))).collect();
    assert_eq!(found.len(), io.keys().filter(|name| name.starts_with("tap.")).count(), "{found:?}");
    let all = found.iter().map(|(name, distance)| format!("{name} {distance:.1e}")).collect::<Vec<_>>().join(", ");
    assert!(found.iter().all(|(_, distance)| *distance <= TOLERANCE), "{case}: {all}");
    let off = difference(&out, &io["out"]);
    assert!(off <= TOLERANCE, "{case}: the output is off by {off:.1e}");
}

#[test]
fn convolutions_around_transformers_are_those_of_diffusers_block_by_block() {
    check("unet-1", "io.safetensors");
    check("unet-1", "io-1.safetensors");
}

#[test]
fn linear_maps_and_heads_by_level_are_those_of_diffusers_block_by_block() {
    check("unet-2", "io.safetensors");
}

#[test]
fn depth_and_what_is_said_of_a_picture_are_those_of_diffusers_block_by_block() {
    check("unet-xl", "io.safetensors");
    check("unet-refiner", "io.safetensors");
}

#[test]
fn attention_in_the_middle_alone_is_that_of_diffusers_block_by_block() {
    check("unet-bare", "io.safetensors");
}

/// The noise tables beside it are tested in `timesteps/table.rs`.
#[test]
fn a_network_of_velocities_is_the_denoiser_of_diffusers() {
    let (unet, io) = (network("unet-2", Kind::Float), tensors("tables.safetensors"));
    let clip_text = Some(io["text"].shallow_clone());
    let context = unet.context(&Conditioning { clip_text, ..Conditioning::default() }, 1).unwrap();
    let table = NoiseTable::ScaledLinear;
    let sigma = table.sigmas()[701];
    let x = &io["x"] * 1_f64.hypot(sigma);
    let denoised = denoise_with(&Velocity::new(table), &x, sigma, |input, c_noise| {
        assert_eq!(c_noise, 701.0);
        unet.forward(input, &Tensor::from_slice(&[c_noise as f32]), &context, None)
    });
    let off = difference(&denoised.unwrap(), &io["denoised"]);
    assert!(off <= TOLERANCE, "{off:.1e}");
}

/// Reads a configuration that is held as a value.
fn read(config: &Value, pooled: Option<i64>) -> crate::Result<PublishedStableDiffusion> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    PublishedStableDiffusion::read(&path, pooled)
}

fn published(name: &str) -> Value {
    let text = std::fs::read_to_string(fixture("full-size.json")).unwrap();
    let networks: Vec<Value> = serde_json::from_str(&text).unwrap();
    networks.into_iter().find(|network| network["name"] == name).unwrap()
}

/// FNV-1a of 64 bits over the sorted names and shapes, as `make.py` computes it.
fn digest(table: &Table) -> String {
    let shape = |shape: &[i64]| shape.iter().map(i64::to_string).collect::<Vec<_>>().join("x");
    let mut lines: Vec<(&str, String)> =
        table.specs().iter().map(|spec| (spec.name.as_str(), shape(&spec.shape))).collect();
    lines.sort();
    let text: String = lines.into_iter().map(|(name, shape)| format!("{name} {shape}\n")).collect();
    let digest = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |value, byte| (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{digest:016x}")
}

#[test]
fn the_full_size_networks_have_the_published_parameters() {
    for (name, elements, sample_size, numbers) in [
        ("sd-1", 859_520_964_i64, 64, None),
        ("sd-2", 865_910_724, 96, None),
        ("sdxl-base", 2_567_463_684, 128, Some(6)),
        ("sdxl-refiner", 2_259_526_660, 128, Some(5)),
    ] {
        let manifest = published(name);
        let read = read(&manifest["config"], Some(1280)).unwrap();
        let table = Table::of(|scope| UNet::new(scope, &read.network, Kind::Float)).unwrap();
        assert_eq!((table.elements(), json!(elements)), (elements, manifest["parameters"].clone()), "{name}");
        assert_eq!(json!(table.specs().len()), manifest["tensors"], "{name}");
        assert_eq!(json!(digest(&table)), manifest["digest"], "{name}: names and shapes");
        assert_eq!(read.sample_size, sample_size, "{name}");
        let io = read.network.io();
        assert_eq!((io.channels, io.embeddings.micro), (4, numbers), "{name}");
        assert_eq!(io.embeddings.clip_text.unwrap().pooled, numbers.map(|_| 1280), "{name}");
        assert_eq!(io.size_multiple, if name == "sdxl-base" { 4 } else { 8 }, "{name}");
    }
}

#[test]
fn configurations_of_other_models_name_what_is_not_supported() {
    let xl = published("sdxl-base")["config"].clone();
    let levels = |kind: &str| json!(vec![kind; 3]);
    for (field, value) in [
        ("_class_name", json!("SD3Transformer2DModel")),
        ("in_channels", json!(9)),
        ("out_channels", json!(8)),
        ("down_block_types", levels("SimpleCrossAttnDownBlock2D")),
        ("down_block_types", json!(["DownBlock2D"])),
        ("up_block_types", levels("UpBlock2D")),
        ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("mid_block_type", json!(null)),
        ("act_fn", json!("mish")),
        ("only_cross_attention", json!([false, true, false])),
        ("class_embed_type", json!("timestep")),
        ("class_embeddings_concat", json!(true)),
        ("num_class_embeds", json!(1000)),
        ("num_attention_heads", json!([5, 10, 20])),
        ("encoder_hid_dim", json!(4096)),
        ("encoder_hid_dim_type", json!("text_proj")),
        ("addition_embed_type", json!("image")),
        ("addition_time_embed_dim", json!(null)),
        ("addition_time_embed_dim", json!(255)),
        ("projection_class_embeddings_input_dim", json!(null)),
        ("projection_class_embeddings_input_dim", json!(2815)),
        ("projection_class_embeddings_input_dim", json!(1280)),
        ("transformer_layers_per_block", json!([1, [2, 2], 10])),
        ("transformer_layers_per_block", json!([1, 2])),
        ("reverse_transformer_layers_per_block", json!([[1], [1], [1]])),
        ("attention_head_dim", json!([5, 10])),
        ("cross_attention_dim", json!([2048, 2048, 1024])),
        ("resnet_time_scale_shift", json!("scale_shift")),
        ("time_cond_proj_dim", json!(256)),
        ("time_embedding_type", json!("fourier")),
        ("attention_type", json!("gated")),
        ("downsample_padding", json!(0)),
        ("dual_cross_attention", json!(true)),
        ("conv_in_kernel", json!(1)),
        ("conv_out_kernel", json!(1)),
        ("center_input_sample", json!(true)),
        ("flip_sin_to_cos", json!(false)),
        ("freq_shift", json!(1)),
        ("resnet_out_scale_factor", json!(1.5)),
        ("resnet_skip_time_act", json!(true)),
        ("time_embedding_act_fn", json!("gelu")),
        ("timestep_post_act", json!("silu")),
        ("sample_size", json!(null)),
        ("norm_num_groups", json!(null)),
        ("heads", json!(7)),
        ("groups", json!(7)),
        ("depth", json!([1, 2, 0])),
        ("config.json", json!(1)),
    ] {
        let mut changed = xl.as_object().unwrap().clone();
        let key = match field {
            "heads" => "attention_head_dim",
            "groups" => "norm_num_groups",
            "depth" => "transformer_layers_per_block",
            "config.json" => "a_field_of_the_future",
            field => field,
        };
        changed.insert(key.to_owned(), value);
        // 255 cosines and sines do not share out what is left; nor is there another number of them that does.
        let named_field = if field == "addition_time_embed_dim" && changed[field].is_i64() {
            "projection_class_embeddings_input_dim"
        } else {
            field
        };
        let named_field = if field == "out_channels" { "in_channels" } else { named_field };
        let error = read(&changed.into(), Some(1280)).unwrap_err();
        assert!(
            matches!(&error, Error::NetworkConfig { field: named, .. } if *named == named_field),
            "{field}: {error}"
        );
    }
    let without = read(&xl, None).unwrap_err();
    assert!(matches!(without, Error::NetworkConfig { field: "addition_embed_type", .. }), "{without}");
}

/// Early files lack what later versions wrote, and have keys that mean nothing here.
#[test]
fn absent_fields_have_their_defaults() {
    let xl = published("sdxl-base")["config"].clone();
    let mut early = xl.as_object().unwrap().clone();
    for field in ["conv_in_kernel", "norm_eps", "mid_block_type", "upcast_attention", "layers_per_block", "act_fn"] {
        assert!(early.remove(field).is_some(), "{field}");
    }
    for (field, value) in [
        ("only_cross_attention", json!([false, false, false])),
        ("layers_per_block", json!([2, 2, 2])),
        ("_name_or_path", json!("somewhere")),
        ("optimization_step", json!(470_000)),
        ("decay", json!(0.9999)),
        ("inv_gamma", json!(1.0)),
        ("min_decay", json!(0.0)),
        ("power", json!(0.75)),
        ("update_after_step", json!(0)),
        ("use_ema_warmup", json!(false)),
        ("cross_attention_norm", json!("layer_norm")),
        ("mid_block_only_cross_attention", json!(true)),
        ("a_field_of_the_future", json!(null)),
    ] {
        early.insert(field.to_owned(), value);
    }
    let (early, now) = (read(&early.into(), Some(1280)).unwrap(), read(&xl, Some(1280)).unwrap());
    assert_eq!(early, now);
}

#[test]
fn text_and_numbers_are_asked_for() {
    let zeros = |shape: &[i64]| Some(Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
    let refiner = network("unet-refiner", Kind::Float);
    let all = || Conditioning {
        clip_text: zeros(&[1, 7, 6]),
        clip_text_pooled: zeros(&[1, 6]),
        micro: zeros(&[1, 5]),
        ..Conditioning::default()
    };
    assert!(refiner.context(&all(), 1).is_ok());
    let missing = |given: Conditioning| match refiner.context(&given, 1) {
        Err(Error::EmbeddingNeeded(name)) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(Conditioning { clip_text: None, ..all() }), "clip_text");
    assert_eq!(missing(Conditioning { clip_text_pooled: None, ..all() }), "clip_text_pooled");
    assert_eq!(missing(Conditioning { micro: None, ..all() }), "micro");
    let six = Conditioning { micro: zeros(&[1, 6]), ..all() };
    assert!(matches!(refiner.context(&six, 1), Err(Error::EmbeddingShape { name: "micro", .. })));
    // Stable Diffusion 1 would ignore them.
    let first = network("unet-1", Kind::Float);
    let error = first.context(&Conditioning { clip_text_pooled: None, ..all() }, 1).unwrap_err();
    assert!(matches!(error, Error::EmbeddingNotTaken("micro")), "{error}");
    let error = first.context(&Conditioning { micro: None, ..all() }, 1).unwrap_err();
    assert!(matches!(error, Error::EmbeddingNotTaken("clip_text_pooled")), "{error}");
}

#[test]
fn the_layout_comes_back_from_json() {
    for case in ["unet-1", "unet-refiner"] {
        let config = UNetConfig::from(config(case));
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""layout":"stable-diffusion""#), "{text}");
        assert_eq!(serde_json::from_str::<UNetConfig>(&text).unwrap(), config);
    }
    let text = serde_json::to_string(&UNetConfig::from(config("unet-1"))).unwrap();
    let changed = text.replace(r#""groups":2"#, r#""groups":2,"gruops":2"#);
    assert!(serde_json::from_str::<UNetConfig>(&changed).unwrap_err().to_string().contains("gruops"));
}

/// A network in half precision stays near the one in f32; where it says so, f16 attends in f32.
#[test]
fn half_precision_is_near() {
    for case in ["unet-2", "unet-xl"] {
        let io = tensors(&format!("{case}/io.safetensors"));
        for kind in [Kind::BFloat16, Kind::Half] {
            let unet = network(case, kind);
            let context = unet.context(&conditioning(&io), 2).unwrap();
            let keys = context.keys_values.iter().flatten().next().unwrap().keys.kind();
            let upcast = case == "unet-2" && kind == Kind::Half;
            assert_eq!(keys, if upcast { Kind::Float } else { kind }, "{case}");
            let out = unet.forward(&io["sample"], &io["timestep"], &context, None).unwrap();
            let (off, size) = (difference(&out, &io["out"]), io["out"].abs().max().double_value(&[]));
            assert!(off <= 5e-2 * size, "{case} in {kind:?}: {off:.1e} of {size:.1e}");
        }
    }
}
