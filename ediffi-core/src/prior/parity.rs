//! The prior beside diffusers', layer by layer, and the parameters of the full-size one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{Prior, PriorConfig};
use crate::Error;
use crate::conditioning::Conditioning;
use crate::weights::{self, Table};

/// What a layer may be off by. All numbers are near 1.
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unclip").join(name)
}

fn config() -> PriorConfig {
    PriorConfig::read_published(&fixture("text/prior/config.json")).unwrap()
}

fn network(kind: Kind) -> Prior {
    let (path, config) = (fixture("text/prior/diffusion_pytorch_model.safetensors"), config());
    let same = |name: &str| Some(name.to_owned());
    weights::load(&path, same, Device::Cpu, kind, |scope| Prior::new(scope, &config, kind)).unwrap()
}

fn recorded() -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture("prior.safetensors")).unwrap().into_iter().collect()
}

/// The recorded texts with zeros behind their ends, where the recorded ones have something that diffusers masks.
fn conditioning(io: &BTreeMap<String, Tensor>) -> Conditioning {
    let text = &io["text"] * io["mask"].unsqueeze(-1).to_kind(Kind::Float);
    Conditioning { clip_text: Some(text), clip_text_pooled: Some(io["pooled"].copy()), ..Conditioning::default() }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn every_layer_is_that_of_diffusers() {
    let (prior, io) = (network(Kind::Float), recorded());
    let context = prior.context(&conditioning(&io), 2).unwrap();
    let mut off = Vec::new();
    let compare = |index: usize, h: &Tensor| off.push(difference(h, &io[&format!("tap.transformer_blocks.{index}")]));
    let out = prior.forward_tapped(&io["x"], &io["timestep"], &context, compare).unwrap();
    assert_eq!(off.len(), 2);
    off.push(difference(&out, &io["out"]));
    off.push(difference(&prior.finish(&io["out"]).unwrap(), &io["finished"]));
    assert!(off.iter().all(|off| *off <= TOLERANCE), "{off:.1?}");
}

/// A row is the same in any batch, and a text behind whose end there is nothing is not the one that goes on.
#[test]
fn texts_end_where_zeros_begin() {
    let (prior, io) = (network(Kind::Float), recorded());
    let both = conditioning(&io);
    let run = |conditioning: &Conditioning, first: i64, rows: i64| {
        let context = prior.context(conditioning, rows).unwrap();
        let part = |name: &str| io[name].narrow(0, first, rows);
        prior.forward(&part("x"), &part("timestep"), &context).unwrap()
    };
    let together = run(&both, 0, 2);
    for row in 0..2 {
        assert!(difference(&run(&both.rows(row, 1).unwrap(), row, 1), &together.narrow(0, row, 1)) < 1e-6);
    }
    let longer = Conditioning { clip_text: Some(io["text"].copy()), ..both.shallow_clone() };
    assert!(difference(&run(&longer, 0, 2), &together) > 1e-2);
    let half = network(Kind::BFloat16);
    let context = half.context(&both, 2).unwrap();
    let out = half.forward(&io["x"], &io["timestep"], &context).unwrap();
    assert!(difference(&out, &io["out"]) < 5e-2 * io["out"].abs().max().double_value(&[]));
    assert!(matches!(prior.forward(&io["x"], &io["timestep"], &context), Err(Error::ForeignContext)));
    let missing = Conditioning { clip_text_pooled: None, ..both };
    assert!(matches!(prior.context(&missing, 2), Err(Error::EmbeddingNeeded("clip_text_pooled"))));
}

fn read(config: &Value) -> crate::Result<PriorConfig> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    PriorConfig::read_published(&path)
}

fn published() -> Value {
    let text = std::fs::read_to_string(fixture("full-size.json")).unwrap();
    let networks: Vec<Value> = serde_json::from_str(&text).unwrap();
    networks.into_iter().find(|network| network["name"] == "prior").unwrap()
}

fn whole(name: &str) -> Option<&str> {
    Some(name)
}

/// Karlo's file of it has 4 088 157 585 bytes: a header, and four for each number.
#[test]
fn the_full_size_prior_has_the_published_parameters() {
    let manifest = published();
    let config = read(&manifest["config"]).unwrap();
    let table = Table::of(|scope| Prior::new(scope, &config, Kind::Float)).unwrap();
    assert_eq!(json!(table.elements()), manifest["parameters"]);
    assert_eq!(json!(table.specs().len()), manifest["tensors"]);
    assert!((0..100_000).contains(&(4_088_157_585 - 4 * table.elements())), "{}", table.elements());
    assert_eq!(json!(table.digest(whole)), manifest["digest"], "names and shapes");
}

#[test]
fn what_other_priors_have_is_named() {
    let own = published()["config"].clone();
    assert_eq!(read(&json!({})).unwrap(), read(&own).unwrap(), "the defaults are those of Karlo");
    for (field, value) in [
        ("_class_name", json!("WuerstchenPrior")),
        ("additional_embeddings", json!(3)),
        ("added_emb_type", json!(null)),
        ("embedding_proj_norm_type", json!("layer")),
        ("encoder_hid_proj_type", json!(null)),
        ("norm_in_type", json!("layer")),
        ("time_embed_act_fn", json!("mish")),
        ("time_embed_dim", json!(1024)),
        ("clip_embed_dim", json!(1024)),
        ("num_layers", json!(0)),
        ("num_attention_heads", json!(0)),
        ("embedding_dim", json!(-1)),
        ("config.json", json!(1)),
    ] {
        let mut changed = own.as_object().unwrap().clone();
        let key = if field == "config.json" { "a_field_of_the_future" } else { field };
        changed.insert(key.to_owned(), value);
        let error = read(&changed.into()).unwrap_err();
        assert!(matches!(&error, Error::NetworkConfig { field: named, .. } if *named == field), "{field}: {error}");
    }
}
