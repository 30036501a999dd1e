//! A file of weights: its header, every tensor of it, and as the network of an enlarger.
#![no_main]

use ediffi::Enlarger;
use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};
use ediffi_core::weights::{Init, Scope, Table, WeightsFile};
use ediffi_fuzz::{Room, checked, peak, target};
use tch::{Device, Kind};

target!(run);

thread_local! {
    static ROOM: Room = Room::new();
}

fn run(data: &[u8]) {
    let path = ROOM.with(|room| room.put("weights.safetensors", data));
    let (file, bytes) = peak(|| checked(WeightsFile::open(&path, |name| Some(name.to_owned()))));
    assert!(bytes <= (1 << 16) + 128 * data.len(), "a file of {} bytes took {bytes}", data.len());
    let Some(file) = file else { return };
    let mut seen = 0;
    let whole = checked(file.sample(|_| true, |part| seen += part.len()));
    assert!(whole.is_none() || seen <= 256 + 8 * data.len(), "{seen} bytes of {}", data.len());
    let shapes: Vec<(String, Vec<i64>)> =
        file.shapes().map(|(name, shape)| (name.to_owned(), shape.iter().map(|&n| n as i64).collect())).collect();
    let _ = checked(file.check(&Table::default()));
    let _ = checked(file.build(Device::Cpu, Kind::Float, |mut scope: Scope<'_>| {
        for (name, shape) in &shapes {
            scope.weight(name, shape, Init::Zeros)?;
        }
        Ok(())
    }));
    let runtime = Runtime::new(DeviceChoice::Cpu, Precision::F32).unwrap();
    let (enlarger, bytes) = peak(|| checked(Enlarger::open(&path, runtime)));
    assert!(bytes <= (8 << 20) + 128 * data.len(), "an enlarger of {} bytes took {bytes}", data.len());
    assert!(enlarger.is_none_or(|enlarger| enlarger.scale() >= 1));
}
