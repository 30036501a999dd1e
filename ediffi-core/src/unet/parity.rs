//! eDiff-I's layouts beside independent PyTorch networks, part by part: where a fault is. `tests/ediffi.rs` compares whole
//! evaluations, and says what the tolerance means.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::{UNet, UNetConfig};
use crate::conditioning::Conditioning;
use crate::{files, weights};

/// As in `tests/ediffi.rs`.
const TOLERANCE: f64 = 8e-6;

/// The parts of one evaluation, in the order of the network, and by how much each is off.
fn distances(case: &str) -> Vec<(String, f64)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ediffi").join(case);
    let config: UNetConfig = files::read_json(&folder.join("config.json")).unwrap();
    let names = |name: &str| Some(name.to_owned());
    let build = |scope: weights::Scope<'_>| UNet::new(scope, &config, Kind::Float);
    let unet = weights::load(&folder.join("weights.safetensors"), names, Device::Cpu, Kind::Float, build).unwrap();
    let mut io: BTreeMap<_, _> = Tensor::read_safetensors(folder.join("io.safetensors")).unwrap().into_iter().collect();
    let conditioning = Conditioning {
        t5: io.remove("t5"),
        clip_text: io.remove("clip_text"),
        clip_text_pooled: io.remove("clip_text_pooled"),
        clip_image: io.remove("clip_image"),
        low_res: io.remove("low_res"),
        micro: None,
        noise_level: None,
    };
    let context = unet.context(&conditioning, 2).unwrap();
    let mut found = Vec::new();
    let mut compare = |name: &str, h: &Tensor| {
        let expected = &io[&format!("part.{name}")];
        assert_eq!(h.size(), expected.size(), "{name}");
        found.push((name.to_owned(), (h - expected).abs().max().double_value(&[])));
    };
    if let Some(pooled) = &context.pooled {
        compare("pooled", pooled);
    }
    let _ = unet.forward_tapped(&io["x"], &io["c_noise"], &context, None, compare).unwrap();
    assert_eq!(found.len(), io.keys().filter(|name| name.starts_with("part.")).count(), "{found:?}");
    found
}

#[test]
fn every_part_is_that_of_the_papers() {
    for case in ["adm", "adm-patch", "efficient", "efficient-patch"] {
        let found = distances(case);
        for (name, distance) in &found {
            assert!(*distance <= TOLERANCE, "{case}: {name} is off by {distance:.1e}: {found:.1?}");
        }
    }
}
