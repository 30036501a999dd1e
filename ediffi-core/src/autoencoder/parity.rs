//! Encoder and decoder beside diffusers', block by block, and names and shapes of the full-size networks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{AttentionWeights, AutoencoderConfig, Decoder, Encoder};
use crate::Error;
use crate::weights::Table;

/// What a layer may be off by, in units of the spread of its output where that is above 1: a few rounding errors of f32.
///
/// Deliberate faults that a test of this file caught, and by how much a part was off: another epsilon in the second norms (5.0e-5, the
/// mildest), zeros appended at the top and on the left (4.6), no 1×1 convolution after the encoder (3.9) or before the decoder (3.6),
/// two heads for one (0.44), keys and values swapped (1.4), the variance for the deviation (0.91), no shift (5.8e-2), tiles that fade
/// the other way (2.3).
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stable-diffusion").join(name)
}

/// A tiny network of the fixtures, and what diffusers computes with it.
struct Case {
    name: &'static str,
    config: AutoencoderConfig,
    io: BTreeMap<String, Tensor>,
}

impl Case {
    fn new(name: &'static str) -> Self {
        let config = AutoencoderConfig::read_published(&fixture(name).join("config.json")).unwrap();
        let io = Tensor::read_safetensors(fixture(name).join("io.safetensors")).unwrap();
        Self { name, config, io: io.into_iter().collect() }
    }

    fn weights(&self) -> PathBuf {
        fixture(self.name).join("weights.safetensors")
    }

    fn encoder(&self, kind: Kind) -> Encoder {
        Encoder::load(&self.weights(), &self.config, Device::Cpu, kind).unwrap()
    }

    fn decoder(&self, kind: Kind) -> Decoder {
        Decoder::load(&self.weights(), &self.config, Device::Cpu, kind).unwrap()
    }

    /// Compares the blocks of `half` with those of the fixtures, all of them.
    fn check(&self, half: &str, seen: &[(String, Tensor)]) {
        let mut last = BTreeMap::new();
        for (name, h) in seen {
            // The last layer of a block gives what the block gives.
            let parts: Vec<&str> = name.split('.').collect();
            let block = if parts[0].ends_with("_blocks") { parts[..2].join(".") } else { parts[0].to_owned() };
            last.insert(format!("{half}.tap.{block}"), h);
        }
        let expected = self.io.keys().filter(|name| name.starts_with(&format!("{half}.tap."))).count();
        assert_eq!(last.len(), expected, "{}: {:?}", self.name, last.keys());
        for (name, h) in last {
            self.near(&name, h, &self.io[&name]);
        }
    }

    fn near(&self, name: &str, found: &Tensor, expected: &Tensor) {
        assert_eq!(found.size(), expected.size(), "{}: {name}", self.name);
        let spread = expected.std(true).double_value(&[]).max(1.0);
        let off = (found - expected).abs().max().double_value(&[]) / spread;
        assert!(off <= TOLERANCE, "{}: {name} is off by {off:.1e}", self.name);
    }
}

/// Old names, weights as convolutions, no attention and no 1×1 convolutions around, other channels and scales among them.
const CASES: [&str; 4] = ["vae", "vae-old-names", "vae-convolutions", "vae-without"];

#[test]
fn pictures_become_the_latents_of_diffusers_block_by_block() {
    for case in CASES.map(Case::new) {
        let mut seen = Vec::new();
        let tap = |name: &str, h: &Tensor| seen.push((name.to_owned(), h.copy()));
        let moments = case.encoder(Kind::Float).encode_tapped(&case.io["picture"], tap).unwrap();
        case.check("encoder", &seen);
        case.near("mean", &moments.mean, &case.io["mean"]);
        case.near("log_variance", &moments.log_variance, &case.io["log_variance"]);
        case.near("drawn", &moments.draw(&case.io["noise"]).unwrap(), &case.io["drawn"]);
    }
}

#[test]
fn latents_become_the_pictures_of_diffusers_block_by_block() {
    for case in CASES.map(Case::new) {
        let scaled = case.config.scaled(&case.io["latent"]).unwrap();
        case.near("unscaled", &case.config.unscaled(&scaled).unwrap(), &case.io["latent"]);
        let mut seen = Vec::new();
        let tap = |name: &str, h: &Tensor| seen.push((name.to_owned(), h.copy()));
        let decoded = case.decoder(Kind::Float).decode_tapped(&scaled, tap).unwrap();
        case.check("decoder", &seen);
        case.near("decoded", &decoded, &case.io["decoded"]);
    }
}

#[test]
fn tiles_fade_into_each_other_as_those_of_diffusers() {
    let case = Case::new("vae");
    let (decoder, latent) = (case.decoder(Kind::Float), case.config.scaled(&case.io["tiled_latent"]).unwrap());
    let mut heard = Vec::new();
    let before = |done, all| {
        heard.push((done, all));
        Ok(())
    };
    let tiled = decoder.decode_tiled(&latent, before).unwrap();
    case.near("tiled", &tiled, &case.io["tiled"]);
    assert_eq!(heard, (0..6).map(|done| (done, 6)).collect::<Vec<_>>());
    let small = case.config.scaled(&case.io["latent"]).unwrap();
    assert_eq!(decoder.decode_tiled(&small, |_, _| Ok(())).unwrap(), decoder.decode(&small).unwrap());
    // An observer stops it between two tiles.
    let stop = |done, _| if done == 2 { Err(Error::Cancelled) } else { Ok(()) };
    assert!(matches!(decoder.decode_tiled(&latent, stop), Err(Error::Cancelled)));
    let three = latent.narrow(1, 0, 3);
    assert!(matches!(decoder.decode_tiled(&three, |_, _| Ok(())), Err(Error::AutoencoderInput { .. })));
}

/// Where f16 overflows, the network computes in f32; bf16 has the range.
#[test]
fn precision_is_that_of_the_model_unless_it_overflows() {
    let case = Case::new("vae");
    assert!(case.config.force_upcast);
    let calm = AutoencoderConfig { force_upcast: false, ..case.config.clone() };
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float] {
        let upcast = if kind == Kind::Half { Kind::Float } else { kind };
        assert_eq!((case.config.precision(kind), calm.precision(kind)), (upcast, kind));
    }
    let scaled = case.config.scaled(&case.io["latent"]).unwrap();
    case.near("f16", &case.decoder(Kind::Half).decode(&scaled).unwrap(), &case.io["decoded"]);
    let rough = case.decoder(Kind::BFloat16).decode(&scaled).unwrap();
    let (off, size) = ((&rough - &case.io["decoded"]).abs().max(), case.io["decoded"].abs().max());
    assert_eq!(rough.kind(), Kind::Float);
    assert!((1e-5..5e-2).contains(&(off / size).double_value(&[])));
}

#[test]
fn a_huge_log_variance_is_bounded() {
    let case = Case::new("vae");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let mut weights = Tensor::read_safetensors(case.weights()).unwrap();
    for (_, bias) in weights.iter_mut().filter(|(name, _)| name == "quant_conv.bias") {
        // The second half is that of the logarithms.
        *bias = Tensor::from_slice(&[0.0_f32, 0.0, 0.0, 0.0, -1e3, 1e3, 0.0, 0.0]);
    }
    Tensor::write_safetensors(&weights, &path).unwrap();
    let encoder = Encoder::load(&path, &case.config, Device::Cpu, Kind::Float).unwrap();
    let found = encoder.encode(&case.io["picture"]).unwrap().log_variance;
    let channel = |index| found.narrow(1, index, 1);
    assert_eq!((channel(0).max().double_value(&[]), channel(1).min().double_value(&[])), (-30.0, 20.0));
    assert!(channel(2).abs().max().double_value(&[]) < 20.0);
}

#[test]
fn other_shapes_are_refused() {
    let case = Case::new("vae");
    let (encoder, decoder) = (case.encoder(Kind::Float), case.decoder(Kind::Float));
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    for shape in [&[1, 4, 8, 8][..], &[3, 8, 8], &[]] {
        let error = encoder.encode(&zeros(shape)).unwrap_err();
        assert!(matches!(error, Error::AutoencoderInput { what: "pictures", channels: 3, .. }), "{error}");
    }
    for shape in [&[1, 3, 8, 8][..], &[4, 8, 8]] {
        let error = decoder.decode(&zeros(shape)).unwrap_err();
        assert!(matches!(error, Error::AutoencoderInput { what: "latents", channels: 4, .. }), "{error}");
    }
    let error = encoder.encode(&zeros(&[1, 3, 8, 7])).unwrap_err();
    assert!(matches!(error, Error::ImageSize { width: 7, height: 8, multiple: 2 }), "{error}");
    assert_eq!(encoder.config().size_multiple(), 2);
    assert_eq!(AutoencoderConfig::stable_diffusion().size_multiple(), 8);
}

/// Each half wants all that is its own, and nothing that has no place.
#[test]
fn a_file_of_another_network_is_refused() {
    let case = Case::new("vae");
    for wrong in [
        AutoencoderConfig { quant_conv: false, post_quant_conv: false, ..case.config.clone() },
        AutoencoderConfig { middle_attention: false, ..case.config.clone() },
        AutoencoderConfig { blocks: 2, ..case.config.clone() },
    ] {
        let refused = |error: Error| assert!(matches!(error, Error::Weights { .. }), "{error}");
        refused(Encoder::load(&case.weights(), &wrong, Device::Cpu, Kind::Float).unwrap_err());
        refused(Decoder::load(&case.weights(), &wrong, Device::Cpu, Kind::Float).unwrap_err());
    }
}

/// Reads a configuration that is held as a value.
fn read(config: &Value) -> crate::Result<AutoencoderConfig> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    AutoencoderConfig::read_published(&path)
}

#[test]
fn the_full_size_networks_have_the_published_parameters() {
    let text = std::fs::read_to_string(fixture("full-size.json")).unwrap();
    let networks: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for network in networks.iter().filter(|network| network["name"].as_str().unwrap().starts_with("vae")) {
        let config = read(&network["config"]).unwrap();
        let [encoder, decoder] = [
            Table::of(|scope| Encoder::new(scope, &config, AttentionWeights::Matrices, Kind::Float)).unwrap(),
            Table::of(|scope| Decoder::new(scope, &config, AttentionWeights::Convolutions, Kind::Float)).unwrap(),
        ];
        let count = encoder.specs().len() + decoder.specs().len();
        assert_eq!(json!(count), network["tensors"]);
        assert_eq!(encoder.elements() + decoder.elements(), 83_653_863);
        assert_eq!(network["parameters"], 83_653_863);
        let xl = network["name"] == "vae-sdxl";
        let expected = AutoencoderConfig::stable_diffusion();
        let (scaling_factor, sample_size) = if xl { (0.13025, 1024) } else { (0.18215, 512) };
        assert_eq!(config, AutoencoderConfig { scaling_factor, sample_size, ..expected });
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn configurations_of_other_autoencoders_name_what_is_not_supported() {
    let networks: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(fixture("full-size.json")).unwrap()).unwrap();
    let published = &networks.iter().find(|network| network["name"] == "vae-sd").unwrap()["config"];
    for (field, value) in [
        ("_class_name", json!("AutoencoderTiny")),
        ("latents_mean", json!([0.1, 0.2, 0.3, 0.4])),
        ("latents_std", json!([0.1, 0.2, 0.3, 0.4])),
        ("act_fn", json!("mish")),
        ("down_block_types", json!(["DownEncoderBlock2D"])),
        ("down_block_types", json!(vec!["AttnDownEncoderBlock2D"; 4])),
        ("up_block_types", json!(vec!["AttnUpDecoderBlock2D"; 4])),
        ("out_channels", json!(4)),
        ("latent_channels", json!(0)),
        ("layers_per_block", json!(0)),
        ("block_out_channels", json!([128, 256, 512, 500])),
        ("norm_num_groups", json!(0)),
        ("scaling_factor", json!(0)),
        ("sample_size", json!(-1)),
        ("config.json", json!(null)),
    ] {
        let mut changed = published.as_object().unwrap().clone();
        match field {
            "config.json" => changed.insert("up_block_out_channels".to_owned(), json!([1])),
            field => changed.insert(field.to_owned(), value),
        };
        let error = read(&changed.into()).unwrap_err();
        assert!(matches!(&error, Error::NetworkConfig { field: named, .. } if *named == field), "{field}: {error}");
    }
    let mut changed = published.as_object().unwrap().clone();
    for (field, value) in [("shift_factor", json!(0.1)), ("latents_mean", json!(null)), ("_name_or_path", json!("x"))] {
        changed.insert(field.to_owned(), value);
    }
    assert_eq!(read(&changed.into()).unwrap(), AutoencoderConfig { shift_factor: 0.1, ..read(published).unwrap() });
    // Fields that have one value in all published ones.
    let mut changed = published.as_object().unwrap().clone();
    for (field, value) in [("force_upcast", json!(false)), ("in_channels", json!(4)), ("out_channels", json!(4))] {
        changed.insert(field.to_owned(), value);
    }
    let expected = AutoencoderConfig { force_upcast: false, picture_channels: 4, ..read(published).unwrap() };
    assert_eq!(read(&changed.into()).unwrap(), expected);
    let config = read(published).unwrap();
    assert!(AutoencoderConfig { shift_factor: f64::NAN, ..config.clone() }.validate().is_err());
    assert!(AutoencoderConfig { channels: Vec::new(), ..config }.validate().is_err());
}
