//! What test suites share. Other crates include this file by its path.

use std::io::Write as _;
use std::sync::Once;

use ediffi_core::runtime::cuda_devices;
use tch::Device;

/// The CPU, and the first CUDA device where there is one. Where there is none, the suite says so once.
pub(crate) fn devices() -> Vec<Device> {
    static SAID: Once = Once::new();
    if cuda_devices().is_ok_and(|count| count > 0) {
        return vec![Device::Cpu, Device::Cuda(0)];
    }
    SAID.call_once(|| {
        // `print!` would be captured.
        let _ = writeln!(std::io::stdout(), "skipped: {}: no CUDA device", env!("CARGO_CRATE_NAME"));
    });
    vec![Device::Cpu]
}
