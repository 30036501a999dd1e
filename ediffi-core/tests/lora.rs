//! LoRAs merged into single weights: names of all writers, alpha and where it is said, precision.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use ediffi_core::weights::{Init, Lora, LoraFile, LoraPart, Role, Scope, WeightsFile};
use ediffi_core::{Error, Result};
use tch::{Device, Kind, Tensor};

const LAYER: &str = "down_blocks.0.attentions.0.attn1.to_out.0";

/// Numbers of [rows, columns].
fn numbers(rows: i64, columns: i64, seed: f64) -> Tensor {
    (Tensor::arange(rows * columns, (Kind::Float, Device::Cpu)) * seed).sin().view([rows, columns])
}

fn write(folder: &Path, name: &str, tensors: &[(String, Tensor)]) -> PathBuf {
    let path = folder.join(name);
    Tensor::write_safetensors(tensors, &path).unwrap();
    path
}

/// A LoRA of rank 2 for the one layer, under these names of `down` and `up`.
fn lora(down: &str, up: &str) -> Vec<(String, Tensor)> {
    vec![(down.to_owned(), numbers(2, 3, 0.7)), (up.to_owned(), numbers(4, 2, 1.3))]
}

fn added() -> Tensor {
    numbers(4, 2, 1.3).matmul(&numbers(2, 3, 0.7))
}

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn weights(&self, kind: Kind) -> PathBuf {
        let weight = (numbers(4, 3, 2.1) + 1.0).to_kind(kind);
        write(self.0.path(), "weights.safetensors", &[(format!("{LAYER}.weight"), weight)])
    }

    /// The weight with a LoRA.
    fn merged(&self, weights: &Path, lora: &Lora, kind: Kind, role: Role) -> Result<Tensor> {
        let mut file = WeightsFile::open(weights, |name| Some(name.to_owned()))?;
        file.change(&LoraFile::open(lora)?, LoraPart::Network)?;
        file.build(Device::Cpu, kind, |mut scope: Scope<'_>| {
            scope.get(&format!("{LAYER}.weight"), &[4, 3], Init::Zeros, role)
        })
    }

    /// How far the weight is from one that has `factor` times the product of the matrices.
    fn off(&self, lora: &Lora, factor: f64) -> f64 {
        let merged = self.merged(&self.weights(Kind::Float), lora, Kind::Float, Role::Weight).unwrap();
        f64::try_from((merged - (numbers(4, 3, 2.1) + 1.0 + added() * factor)).abs().max()).unwrap()
    }

    fn file(&self, tensors: &[(String, Tensor)]) -> Lora {
        Lora::new(write(self.0.path(), "style.safetensors", tensors))
    }

    fn refused(&self, tensors: &[(String, Tensor)]) -> String {
        LoraFile::open(&self.file(tensors)).unwrap_err().to_string()
    }
}

#[test]
fn the_names_of_all_writers_lead_to_the_layer() {
    let room = Room::new();
    let dotted = "down_blocks.0.attentions.0.attn1";
    for (down, up) in [
        (format!("unet.{LAYER}.lora_A.weight"), format!("unet.{LAYER}.lora_B.weight")),
        (format!("{LAYER}.lora_A.default.weight"), format!("{LAYER}.lora_B.default.weight")),
        (format!("unet.{LAYER}.lora.down.weight"), format!("unet.{LAYER}.lora.up.weight")),
        (
            format!("unet.{dotted}.processor.to_out_lora.down.weight"),
            format!("unet.{dotted}.processor.to_out_lora.up.weight"),
        ),
        (
            "lora_unet_down_blocks_0_attentions_0_attn1_to_out_0.lora_down.weight".to_owned(),
            "lora_unet_down_blocks_0_attentions_0_attn1_to_out_0.lora_up.weight".to_owned(),
        ),
    ] {
        // Without any alpha it is the rank.
        assert!(room.off(&room.file(&lora(&down, &up)).scale(-0.5), -0.5) < 1e-6, "{down}");
    }
    // A folder as diffusers saves it.
    let (down, up) = (format!("unet.{LAYER}.lora_A.weight"), format!("unet.{LAYER}.lora_B.weight"));
    write(room.0.path(), "pytorch_lora_weights.safetensors", &lora(&down, &up));
    assert!(room.off(&Lora::new(room.0.path()), 1.0) < 1e-6);
}

#[test]
fn alpha_is_a_tensor_or_a_setting_of_peft() {
    let room = Room::new();
    let stem = "lora_unet_down_blocks_0_attentions_0_attn1_to_out_0";
    let mut tensors = lora(&format!("{stem}.lora_down.weight"), &format!("{stem}.lora_up.weight"));
    tensors.push((format!("{stem}.alpha"), Tensor::from(3.0_f32)));
    assert!(room.off(&room.file(&tensors), 1.5) < 1e-6);
    // What PEFT saves by itself says alpha in a file beside it, and nothing is guessed without.
    let stem = format!("base_model.model.{LAYER}");
    let own = room.file(&lora(&format!("{stem}.lora_A.weight"), &format!("{stem}.lora_B.weight")));
    let missing = LoraFile::open(&own).unwrap_err();
    assert!(matches!(&missing, Error::ReadFile { path, .. } if path.ends_with("adapter_config.json")), "{missing}");
    std::fs::write(room.0.path().join("adapter_config.json"), r#"{ "lora_alpha": 5, "r": 2 }"#).unwrap();
    assert!(room.off(&own, 2.5) < 1e-6);
    std::fs::write(room.0.path().join("adapter_config.json"), r#"{ "lora_alpha": 5, "use_dora": true }"#).unwrap();
    assert!(LoraFile::open(&own).unwrap_err().to_string().contains("`use_dora` is set"));
}

/// A change that is too small for the kind of the file beside the weight is not lost where the network computes in f32, and the sum is rounded once
/// where it does not.
#[test]
fn sums_are_of_f32() {
    let room = Room::new();
    let lora = room.file(&lora(&format!("{LAYER}.lora_A.weight"), &format!("{LAYER}.lora_B.weight"))).scale(1e-4);
    let weights = room.weights(Kind::BFloat16);
    let stored = (numbers(4, 3, 2.1) + 1.0).to_kind(Kind::BFloat16).to_kind(Kind::Float);
    let sum = &stored + added() * 1e-4;
    for (kind, role, expected) in [
        (Kind::Float, Role::Weight, sum.shallow_clone()),
        (Kind::BFloat16, Role::Weight, sum.to_kind(Kind::BFloat16)),
        (Kind::BFloat16, Role::F32, sum.shallow_clone()),
        (Kind::BFloat16, Role::Stored, sum.shallow_clone()),
    ] {
        let merged = room.merged(&weights, &lora, kind, role).unwrap();
        assert_eq!(merged.kind(), expected.kind());
        let off = (merged.to_kind(Kind::Float) - expected.to_kind(Kind::Float)).abs().max();
        assert!(f64::try_from(off).unwrap() < 1e-7, "{kind:?} {role:?}");
    }
    assert!(f64::try_from((sum - stored).abs().max()).unwrap() > 1e-5);
}

#[test]
fn what_is_said_twice_or_in_half_is_refused() {
    let room = Room::new();
    let dotted = lora(&format!("{LAYER}.lora_A.weight"), &format!("{LAYER}.lora_B.weight"));
    let mut twice = lora(&format!("{LAYER}.lora.down.weight"), &format!("{LAYER}.lora.up.weight"));
    twice.extend(lora(&format!("unet.{LAYER}.lora_A.weight"), &format!("unet.{LAYER}.lora_B.weight")));
    assert!(room.refused(&twice).contains("says again"));
    assert!(room.refused(&dotted[..1]).contains("`up` is missing"));
    assert!(room.refused(&[(format!("{LAYER}.weight"), numbers(4, 3, 1.0))]).contains("names are not those of a LoRA"));
    // Two names of one layer.
    let stem = "lora_unet_down_blocks_0_attentions_0_attn1_to_out_0";
    let mut both = lora(&format!("{stem}.lora_down.weight"), &format!("{stem}.lora_up.weight"));
    both.extend(dotted);
    let lora = room.file(&both);
    let error = room.merged(&room.weights(Kind::Float), &lora, Kind::Float, Role::Weight).unwrap_err().to_string();
    assert!(error.contains("twice") && error.contains(LAYER), "{error}");
    let text = lora_of_text();
    assert!(
        LoraFile::open(&room.file(&text).network_only()).unwrap_err().to_string().contains("nothing for the network")
    );
}

fn lora_of_text() -> Vec<(String, Tensor)> {
    lora("text_encoder.a.lora_linear_layer.down.weight", "text_encoder.a.lora_linear_layer.up.weight")
}
