//! T5 in f16, whose numbers leave the range of f16 in the large models.
//!
//! What each test is there to notice:
//!
//! | fault | test |
//! |---|---|
//! | `wo` held or applied in f16 | `products_beyond_the_range_of_f16_go_through_wo_in_f32` |
//! | no clamp after `wi_0`, `wi_1` or `wi` | `what_overflows_before_wo_is_clamped` |
//! | no clamp after the attention | `what_overflows_in_the_attention_is_clamped` |
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{TEXTS, config, copy, devices, difference, networks, tensors};
use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{load, save};
use ediffi_encoders::{Error, T5, T5Config, T5Network, t5};
use tch::{Device, Kind, Tensor};

/// A copy of the T5 of the fixtures with the layers named `layers` multiplied.
fn scaled(name: impl AsRef<Path>, layers: &[(&str, f64)]) -> tempfile::TempDir {
    let folder = copy(&name);
    let mut tensors = tensors(&name);
    for (name, x) in &mut tensors {
        let layer = name.rsplit('.').nth(1);
        if let Some((_, factor)) = layers.iter().find(|(scaled, _)| layer == Some(scaled)) {
            let _ = x.g_mul_scalar_(*factor);
        }
    }
    save(&folder.path().join("model.safetensors"), &tensors, HashMap::new()).unwrap();
    folder
}

fn encode(folder: &tempfile::TempDir, device: Device, kind: Kind) -> Result<Tensor, Error> {
    let runtime = Runtime { device, kind };
    Ok(T5::open(folder.path(), runtime)?.encode(&TEXTS, 16)?.tokens)
}

#[test]
fn products_beyond_the_range_of_f16_go_through_wo_in_f32() {
    // Either the products that `wo` is applied to are beyond 65504, or its weights, or both.
    for layers in [[("wi_0", 500.0), ("wi_1", 500.0), ("wo", 1e6)], [("wi_0", 2e3), ("wi_1", 2e3), ("wo", 1e-6)]] {
        let folder = scaled("t5", &layers);
        let exact = encode(&folder, Device::Cpu, Kind::Float).unwrap();
        for device in devices() {
            let found = difference(&encode(&folder, device, Kind::Half).unwrap(), &exact);
            assert!(found < 0.02, "{layers:?} on {device:?}: {found}");
        }
    }
}

#[test]
fn what_overflows_before_wo_is_clamped() {
    for layers in [[("wi_0", 6e4), ("wi_1", 1.0)], [("wi_0", 1.0), ("wi_1", 6e4)], [("wi_0", 6e4), ("wi_1", 6e4)]] {
        let folder = scaled("t5", &layers);
        for device in devices() {
            // It says itself where a number is not finite.
            let _ = encode(&folder, device, Kind::Half).unwrap();
        }
    }
    // The first T5 has no gate, and no tokenizer in these fixtures.
    let networks = networks();
    let folder = scaled(networks.path().join("t5-relu"), &[("wi", 6e4)]);
    let config: T5Config = config(folder.path());
    let build = |scope: ediffi_core::weights::Scope<'_>| T5Network::new(scope, &config, Kind::Half);
    let network = load(folder.path(), t5::names, Device::Cpu, Kind::Half, build).unwrap();
    let ids = Tensor::arange(12, (Kind::Int64, Device::Cpu)).reshape([2, 6]);
    let encoded = network.forward(&ids, &ids.ge(0)).unwrap();
    assert_eq!(encoded.isfinite().all().int64_value(&[]), 1);
}

#[test]
fn what_overflows_in_the_attention_is_clamped() {
    for device in devices() {
        let _ = encode(&scaled("t5", &[("o", 3000.0), ("v", 3000.0)]), device, Kind::Half).unwrap();
    }
}
