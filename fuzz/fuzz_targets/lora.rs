//! A file of LoRA: its names, its header, and merged into a text encoder.
#![no_main]

use ediffi_core::weights::{Init, Lora, LoraFile, Scope, WeightsFile};
use ediffi_encoders::clip::text_names;
use ediffi_fuzz::{Room, checked, peak, target};
use tch::{Device, Kind};

target!(run);

const TEXT: &str = "text.safetensors";

thread_local! {
    static ROOM: Room =
        Room::with(&[("ediffi-core/tests/fixtures/stable-diffusion/sd-1/text_encoder/model.safetensors", TEXT)]);
}

fn run(data: &[u8]) {
    let (path, text) = ROOM.with(|room| (room.put("lora.safetensors", data), room.path().join(TEXT)));
    let (lora, bytes) = peak(|| checked(LoraFile::open(&Lora::new(&path).scale(0.5))));
    assert!(bytes <= (1 << 16) + 256 * data.len(), "a file of {} bytes took {bytes}", data.len());
    let Some(lora) = lora else { return };
    let mut seen = 0;
    let whole = checked(lora.sample(|part| seen += part.len()));
    assert!(whole.is_none() || seen <= 256 + 8 * data.len(), "{seen} bytes of {}", data.len());
    for part in lora.parts() {
        let mut file = WeightsFile::open(&text, text_names).unwrap();
        if checked(file.change(&lora, part)).is_none() {
            continue;
        }
        let shapes: Vec<(String, Vec<i64>)> =
            file.shapes().map(|(name, shape)| (name.to_owned(), shape.iter().map(|&n| n as i64).collect())).collect();
        let merged = checked(file.build(Device::Cpu, Kind::Float, |mut scope: Scope<'_>| {
            shapes.iter().map(|(name, shape)| scope.weight(name, shape, Init::Zeros)).collect::<Result<Vec<_>, _>>()
        }));
        for (merged, (_, shape)) in merged.iter().flatten().zip(&shapes) {
            assert_eq!(&merged.size(), shape);
        }
    }
}
