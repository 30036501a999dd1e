//! unCLIP's networks beside diffusers': every block of tiny networks, and the parameters of the full-size ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{PublishedUnClip, UnClip};
use crate::conditioning::Conditioning;
use crate::unet::{Layout as _, UNet, UNetConfig};
use crate::weights::{Table, WeightsFile};
use crate::{Error, Result};

/// What a part may be off by, in units of the spread of its output where that is above 1, and for the output of the network as it is.
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unclip").join(name)
}

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture(name)).unwrap().into_iter().collect()
}

fn decoder() -> UnClip {
    let [decoder, text_proj] = ["decoder", "text_proj"].map(|part| fixture(&format!("text/{part}/config.json")));
    PublishedUnClip::decoder(&decoder, &text_proj, 77).unwrap().network
}

fn enlarger(part: &str) -> UnClip {
    PublishedUnClip::enlarger(&fixture(&format!("text/{part}/config.json"))).unwrap().network
}

fn open(part: &str) -> WeightsFile {
    let path = fixture(&format!("text/{part}/diffusion_pytorch_model.safetensors"));
    WeightsFile::open(&path, |name| Some(name.to_owned())).unwrap()
}

fn network(part: &str, config: &UnClip, kind: Kind) -> UNet {
    let mut file = open(part);
    if part == "decoder" {
        file = file.with_part("text_proj", open("text_proj"));
    }
    file.build(Device::Cpu, kind, |scope| UNet::new(scope, config, kind)).unwrap()
}

/// The recorded embeddings; the first row has no image, and behind the ends of texts are zeros.
fn conditioning() -> Conditioning {
    let (text, io) = (tensors("prior.safetensors"), tensors("decoder.safetensors"));
    let image = io["image"].copy();
    let _ = image.narrow(0, 0, 1).zero_();
    Conditioning {
        clip_text: Some(&text["text"] * text["mask"].unsqueeze(-1).to_kind(Kind::Float)),
        clip_text_pooled: Some(text["pooled"].copy()),
        clip_image: Some(image),
        ..Conditioning::default()
    }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Compares every block of one evaluation with what stands below `prefix`.
fn check(unet: &UNet, conditioning: &Conditioning, io: &BTreeMap<String, Tensor>, prefix: &str) {
    let context = unet.context(conditioning, 2).unwrap();
    let mut seen = BTreeMap::new();
    let keep = |name: &str, h: &Tensor| {
        // The last part of a block gives what the block gives.
        let parts: Vec<&str> = name.split('.').collect();
        let block = if parts[0].ends_with("_blocks") { parts[..2].join(".") } else { parts[0].to_owned() };
        seen.insert(block, h.copy());
    };
    let out = unet.forward_tapped(&io["x"], &io["timestep"], &context, None, keep).unwrap();
    let distance = |a: &Tensor, b: &Tensor| difference(a, b) / b.std(true).double_value(&[]).max(1.0);
    let found = seen.iter().map(|(name, h)| (name, distance(h, &io[&format!("{prefix}tap.{name}")])));
    let found: Vec<_> = found.collect();
    let taps = format!("{prefix}tap.");
    assert_eq!(found.len(), io.keys().filter(|name| name.starts_with(&taps)).count(), "{found:?}");
    let all = found.iter().map(|(name, distance)| format!("{name} {distance:.1e}")).collect::<Vec<_>>().join(", ");
    assert!(found.iter().all(|(_, distance)| *distance <= TOLERANCE), "{prefix} {all}");
    let off = difference(&out, &io[&format!("{prefix}out")]);
    assert!(off <= TOLERANCE, "{prefix} the output is off by {off:.1e}");
}

#[test]
fn the_decoder_is_that_of_diffusers_block_by_block() {
    check(&network("decoder", &decoder(), Kind::Float), &conditioning(), &tensors("decoder.safetensors"), "");
}

#[test]
fn super_resolution_is_that_of_diffusers_block_by_block() {
    let io = tensors("super-res.safetensors");
    for (part, prefix) in [("super_res_first", "first."), ("super_res_last", "last.")] {
        let low_res = Some(io["low"].copy());
        let conditioning = Conditioning { low_res, ..Conditioning::default() };
        check(&network(part, &enlarger(part), Kind::Float), &conditioning, &io, prefix);
    }
}

/// The words come first here, where paint-with-words looks for them, and the tokens of the image after them.
#[test]
fn projections_are_those_of_diffusers() {
    let io = tensors("decoder.safetensors");
    let file = open("decoder").with_part("text_proj", open("text_proj"));
    let layout = decoder();
    let body = file.build(Device::Cpu, Kind::Float, |scope| layout.build(scope)).unwrap();
    let encoded = body.context.unwrap().encode(&conditioning(), 2, Kind::Float).unwrap();
    let mask = tensors("prior.safetensors")["mask"].to_kind(Kind::Float).unsqueeze(-1);
    let words = |x: &Tensor| x * &mask;
    let expected = words(&io["tokens"].narrow(1, 4, 77));
    assert!(difference(&words(&encoded.tokens.narrow(1, 0, 77)), &expected) <= TOLERANCE);
    assert!(difference(&encoded.tokens.narrow(1, 77, 4), &io["tokens"].narrow(1, 0, 4)) <= TOLERANCE);
    assert!(difference(&encoded.pooled.unwrap(), &io["added"]) <= TOLERANCE);
    assert_eq!(encoded.text_columns, 77);
    let left_out = encoded.mask.unwrap().lt(0.0).sum_dim_intlist(-1, false, Kind::Int64).flatten(0, -1);
    assert_eq!(Vec::<i64>::try_from(left_out).unwrap(), [77 - 5, 77 - 12]);
}

#[test]
fn what_a_decoder_needs_is_asked_for() {
    let unet = network("decoder", &decoder(), Kind::Float);
    let missing = |given: Conditioning| match unet.context(&given, 2) {
        Err(Error::EmbeddingNeeded(name)) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(Conditioning { clip_text: None, ..conditioning() }), "clip_text");
    assert_eq!(missing(Conditioning { clip_text_pooled: None, ..conditioning() }), "clip_text_pooled");
    // No image is an image of zeros.
    let io = tensors("decoder.safetensors");
    let out = |given: &Conditioning| {
        let context = unet.context(given, 2).unwrap();
        unet.forward(&io["x"], &io["timestep"], &context, None).unwrap()
    };
    let zeros = Some(Tensor::zeros([2, 8], (Kind::Float, Device::Cpu)));
    let none = out(&Conditioning { clip_image: None, ..conditioning() });
    assert!(none.equal(&out(&Conditioning { clip_image: zeros, ..conditioning() })));
    assert!(difference(&none, &io["out"]) > 1e-3);
    for kind in [Kind::BFloat16, Kind::Half] {
        let half = network("decoder", &decoder(), kind);
        let context = half.context(&conditioning(), 2).unwrap();
        let out = half.forward(&io["x"], &io["timestep"], &context, None).unwrap();
        assert!(difference(&out, &io["out"]) <= 5e-2 * io["out"].abs().max().double_value(&[]), "{kind:?}");
    }
}

#[test]
fn the_layout_comes_back_from_json() {
    for network in [decoder(), enlarger("super_res_first"), enlarger("super_res_last")] {
        let config = UNetConfig::from(network);
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""layout":{"unclip""#), "{text}");
        assert_eq!(serde_json::from_str::<UNetConfig>(&text).unwrap(), config);
        let changed = text.replace("image_tokens", "image_tokes");
        assert!(serde_json::from_str::<UNetConfig>(&changed).unwrap_err().to_string().contains("image_tokes"));
    }
}

fn published(name: &str) -> Value {
    let text = std::fs::read_to_string(fixture("full-size.json")).unwrap();
    let networks: Vec<Value> = serde_json::from_str(&text).unwrap();
    networks.into_iter().find(|network| network["name"] == name).unwrap()
}

/// Reads configurations that are held as values: of a decoder and its projections, or of super-resolution.
fn read(config: &Value, text_proj: Option<&Value>) -> Result<PublishedUnClip> {
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = ["config.json", "text_proj.json"].map(|name| folder.path().join(name));
    std::fs::write(&own, config.to_string()).unwrap();
    match text_proj {
        Some(text_proj) => {
            std::fs::write(&other, text_proj.to_string()).unwrap();
            PublishedUnClip::decoder(&own, &other, 77)
        }
        None => PublishedUnClip::enlarger(&own),
    }
}

/// The name that a parameter has in its own file, if it is of that.
type Named = fn(&str) -> Option<&str>;

/// Karlo's files have a header, and four bytes for each number.
#[test]
fn the_full_size_networks_have_the_published_parameters() {
    let text_proj = published("text_proj");
    let decoder = read(&published("decoder")["config"], Some(&text_proj["config"])).unwrap();
    let table = Table::of(|scope| UNet::new(scope, &decoder.network, Kind::Float)).unwrap();
    fn projections(name: &str) -> Option<&str> {
        name.strip_prefix("text_proj.")
    }
    fn whole(name: &str) -> Option<&str> {
        Some(name)
    }
    fn others(name: &str) -> Option<&str> {
        Some(name).filter(|name| !name.starts_with("text_proj."))
    }
    let count = |table: &Table, named: Named| {
        let specs: Vec<_> = table.specs().iter().filter(|spec| named(&spec.name).is_some()).collect();
        (specs.len(), specs.iter().map(|spec| spec.elements()).sum::<i64>())
    };
    let enlarger = read(&published("super_res")["config"], None).unwrap();
    let large = Table::of(|scope| UNet::new(scope, &enlarger.network, Kind::Float)).unwrap();
    let parts: [(&str, &Table, Named, Option<i64>); 3] = [
        ("decoder", &table, others, Some(3_541_838_083)),
        ("text_proj", &table, projections, None),
        ("super_res", &large, whole, Some(2_766_362_775)),
    ];
    for (name, table, named, bytes) in parts {
        let (manifest, (tensors, elements)) = (published(name), count(table, named));
        assert_eq!((json!(tensors), json!(elements)), (manifest["tensors"].clone(), manifest["parameters"].clone()));
        assert_eq!(json!(table.digest(named)), manifest["digest"], "{name}: names and shapes");
        let header = bytes.map(|bytes: i64| bytes - 4 * elements);
        assert!(header.is_none_or(|header| (0..200_000).contains(&header)), "{name}: {elements}");
    }
    assert_eq!((decoder.sample_size, enlarger.sample_size), (Some(64), Some(256)));
    let io = decoder.network.io();
    assert_eq!((io.channels, io.variance, io.low_res, io.size_multiple), (3, true, false, 8));
    assert_eq!(io.embeddings.clip_image, Some(768));
    assert!(enlarger.network.io().low_res && !enlarger.network.io().embeddings.has_text());
}

#[test]
fn configurations_of_other_models_name_what_is_not_supported() {
    let (decoder, text_proj) = (published("decoder")["config"].clone(), published("text_proj")["config"].clone());
    let levels = |kind: &str| json!(vec![kind; 4]);
    let changed = |config: &Value, key: &str, value: Value| {
        let mut changed = config.as_object().unwrap().clone();
        changed.insert(key.to_owned(), value);
        Value::from(changed)
    };
    let named = |result: Result<PublishedUnClip>, field: &str| match result {
        Err(Error::NetworkConfig { field: named, .. }) => assert_eq!(named, field),
        other => panic!("{field}: {other:?}"),
    };
    for (key, value) in [
        ("_class_name", json!("UNet2DModel")),
        ("in_channels", json!(6)),
        ("out_channels", json!(4)),
        ("block_out_channels", json!([])),
        ("down_block_types", levels("CrossAttnDownBlock2D")),
        ("down_block_types", json!(["ResnetDownsampleBlock2D"])),
        ("up_block_types", levels("ResnetUpsampleBlock2D")),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("mid_block_type", json!(null)),
        ("act_fn", json!("mish")),
        ("class_embed_type", json!("timestep")),
        ("class_embed_type", json!(null)),
        ("class_embeddings_concat", json!(true)),
        ("cross_attention_norm", json!("group_norm")),
        ("cross_attention_dim", json!(1024)),
        ("cross_attention_dim", json!([1536, 1536, 1536, 768])),
        ("encoder_hid_dim", json!(4096)),
        ("encoder_hid_dim_type", json!("text_proj")),
        ("addition_embed_type", json!("text")),
        ("attention_head_dim", json!([64, 64, 64, 32])),
        ("head_channels", json!(7)),
        ("norm", json!(7)),
        ("norm_num_groups", json!(null)),
        ("layers_per_block", json!([3, 3])),
        ("resnet_time_scale_shift", json!("spatial")),
        ("resnet_skip_time_act", json!(true)),
        ("layout", json!(0.0)),
        ("time_embedding_type", json!("fourier")),
        ("time_embedding_act_fn", json!("gelu")),
        ("time_cond_proj_dim", json!(256)),
        ("timestep_post_act", json!("silu")),
        ("time_embed_dim", json!(1024)),
        ("conv_in_kernel", json!(1)),
        ("conv_out_kernel", json!(1)),
        ("center_input_sample", json!(true)),
        ("flip_sin_to_cos", json!(false)),
        ("freq_shift", json!(1)),
        ("config.json", json!(1)),
    ] {
        let key_in_file = match key {
            "head_channels" => "attention_head_dim",
            "norm" => "norm_num_groups",
            "layout" => "resnet_out_scale_factor",
            "time_embed_dim" => "time_embedding_dim",
            "config.json" => "a_field_of_the_future",
            key => key,
        };
        named(read(&changed(&decoder, key_in_file, value), Some(&text_proj)), key);
    }
    for (key, value) in [
        ("_class_name", json!("IPAdapter")),
        ("cross_attention_dim", json!(768)),
        ("time_embed_dim", json!(320)),
        ("layout", json!(0)),
        ("context", json!(0)),
        ("config.json", json!(1)),
    ] {
        let key_in_file = match key {
            "layout" => "clip_extra_context_tokens",
            "context" => "clip_embeddings_dim",
            "config.json" => "a_field_of_the_future",
            key => key,
        };
        named(read(&decoder, Some(&changed(&text_proj, key_in_file, value))), key);
    }
    let enlarger = published("super_res")["config"].clone();
    for (key, value) in [
        ("_class_name", json!("UNet2DConditionModel")),
        ("in_channels", json!(3)),
        ("out_channels", json!(4)),
        ("act_fn", json!("gelu")),
        ("add_attention", json!(true)),
        ("add_attention", json!(null)),
        ("class_embed_type", json!("timestep")),
        ("num_class_embeds", json!(10)),
        ("mid_block_type", json!(null)),
        ("down_block_types", levels("SimpleCrossAttnDownBlock2D")),
        ("up_block_types", levels("AttnUpBlock2D")),
        ("time_embedding_type", json!("learned")),
        ("config.json", json!(1)),
    ] {
        let key_in_file = if key == "config.json" { "a_field_of_the_future" } else { key };
        named(read(&changed(&enlarger, key_in_file, value), None), key);
    }
    // What only other blocks have, and what training leaves.
    for (key, value) in [("upsample_type", json!("resnet")), ("dropout", json!(0.1)), ("num_train_timesteps", json!(9))]
    {
        assert!(read(&changed(&enlarger, key, value), None).is_ok(), "{key}");
    }
}
