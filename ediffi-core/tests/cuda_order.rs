//! A process that has computed on the CPU still finds its CUDA devices. It is a binary of its own: libtorch asks once in a process.
#![allow(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::io::Write as _;
use std::path::Path;

use ediffi_core::runtime::{DeviceChoice, Precision, Runtime, cuda_devices};
use tch::{Device, Kind, Tensor};

#[test]
fn a_pipeline_on_the_cpu_does_not_hide_cuda() {
    // What every pipeline does first.
    Runtime::new(DeviceChoice::Cpu, Precision::Auto).unwrap();
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let convolved = ones(&[1, 1, 4, 4]).conv2d(&ones(&[1, 1, 3, 3]), None::<Tensor>, [1], [1], [1], 1);
    assert_eq!(convolved.double_value(&[0, 0, 1, 1]), 9.0);
    if !Path::new("/proc/driver/nvidia/version").exists() {
        let _ = writeln!(std::io::stdout(), "skipped: cuda_order: no NVIDIA driver");
        return;
    }
    let found = cuda_devices();
    // A libtorch without its CUDA half has none to hide.
    let without = found.as_ref().is_err_and(|reason| reason.contains("torch_cuda"));
    assert!(without || found.as_ref().is_ok_and(|&count| count > 0), "{found:?}");
}
