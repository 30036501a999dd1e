//! Memory while a model is read: hardly more than the model itself.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; a skipped test says so")]

mod common;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use common::{CHILD, changed, child, fixture, megabytes, said};
use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{Fresh, Scope, save};
use ediffi_encoders::{T5, T5Config, T5Network};
use tch::{Device, Kind};

/// 220 MB in f32, of which no tensor is more than a fiftieth.
fn model() -> tempfile::TempDir {
    let folder = changed("t5", "config.json", |json| {
        json.replace("\"d_model\": 16", "\"d_model\": 512")
            .replace("\"d_kv\": 6", "\"d_kv\": 256")
            .replace("\"d_ff\": 24", "\"d_ff\": 1024")
            .replace("\"num_layers\": 2", "\"num_layers\": 21")
    });
    let json = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let config: T5Config = serde_json::from_str(&json).unwrap();
    let mut fresh = Fresh::new(1, Device::Cpu);
    let _ = T5Network::new(Scope::root(&mut fresh), &config, Kind::Float).unwrap();
    save(&folder.path().join("model.safetensors"), &fresh.into_named(), HashMap::new()).unwrap();
    folder
}

fn runtime(kind: &str) -> Runtime {
    let kind = if kind == "bf16" { Kind::BFloat16 } else { Kind::Float };
    Runtime { device: Device::Cpu, kind }
}

/// Opens the model that the environment names and says by how many megabytes the peak was above what the process had before.
/// It is no test of its own: the other starts it in a process of its own, whose peak is that of the loading.
#[test]
fn load_in_a_process_of_its_own() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let (kind, folder) = what.split_once(' ').unwrap();
    // What libtorch takes for itself at first use is not counted.
    T5::open(&fixture("t5"), runtime(kind)).unwrap().encode(&["a cat"], 8).unwrap();
    let before = megabytes("VmRSS").unwrap();
    let t5 = T5::open(Path::new(folder), runtime(kind)).unwrap();
    let peak = megabytes("VmHWM").unwrap();
    assert_eq!(t5.config().num_layers, 21);
    writeln!(std::io::stdout(), "says: {}", peak - before).unwrap();
}

#[test]
fn the_peak_while_loading_is_at_most_a_tenth_above_the_weights() {
    if megabytes("VmHWM").is_none() {
        eprintln!("skipped: this system does not tell the peak memory of a process");
        return;
    }
    let folder = model();
    let stored = std::fs::metadata(folder.path().join("model.safetensors")).unwrap().len() as f64 / 1e6;
    assert!(stored > 200.0, "{stored}");
    for (kind, weights) in [("f32", stored), ("bf16", stored / 2.0)] {
        let what = format!("{kind} {}", folder.path().display());
        let peak: f64 = said(&child("load_in_a_process_of_its_own", &what).output().unwrap()).parse().unwrap();
        // The lower bound is for the measure: a model that is there cannot have taken less.
        assert!(peak > 0.95 * weights && peak <= 1.1 * weights, "{kind}: {peak} MB for {weights} MB of weights");
    }
}
