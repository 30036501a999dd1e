//! The device and the precision to compute in.
#![allow(unsafe_code, reason = "loading the CUDA half of libtorch is a foreign call")]

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tch::{Cuda, Device, Kind};

use crate::{Error, Result};

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

/// In which precision networks compute. The statistics of norms, softmax, the solver's state, and the embedding of the noise
/// level (its sinusoids and both linear maps) are f32 in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Precision {
    /// The fastest that is safe on the device: bf16 on CUDA, which is assumed to have compute capability 8.0, and on CPUs
    /// with bf16 arithmetic; else f32.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// bfloat16: 16 bits with the range of f32.
    Bf16,
    /// IEEE half precision: 16 bits with a small range, which T5 may leave.
    F16,
}

/// A device, and the kind of weights and activations on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Runtime {
    /// Where to compute.
    pub device: Device,
    /// Kind of weights and activations.
    pub kind: Kind,
}

impl Runtime {
    /// Chooses device and precision where they are `Auto`.
    ///
    /// # Errors
    /// [`Error::Device`] if CUDA is asked for and cannot be used.
    pub fn new(device: DeviceChoice, precision: Precision) -> Result<Self> {
        let device = match device {
            DeviceChoice::Cpu => Device::Cpu,
            DeviceChoice::Auto => cuda_devices().ok().filter(|&n| n > 0).map_or(Device::Cpu, |_| Device::Cuda(0)),
            DeviceChoice::Cuda(index) => {
                let unusable = |reason| Error::Device { device: format!("cuda:{index}"), reason };
                match cuda_devices() {
                    Ok(count) if index < count => Device::Cuda(index),
                    Ok(count) => return Err(unusable(format!("the driver offers {count} CUDA devices"))),
                    Err(reason) => return Err(unusable(reason)),
                }
            }
        };
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
            Precision::Auto => auto_precision(device).0,
        };
        Ok(Self { device, kind })
    }
}

/// The kind that [`Precision::Auto`] picks on a device, and why.
#[must_use]
pub fn auto_precision(device: Device) -> (Kind, &'static str) {
    match device {
        Device::Cuda(_) => (
            Kind::BFloat16,
            "CUDA devices from compute capability 8.0 on compute in bf16; ask for F16 or F32 on older ones",
        ),
        _ if cpu_has_bf16() => (Kind::BFloat16, "the CPU multiplies in bf16 (AMX or AVX-512 BF16)"),
        _ => (Kind::Float, "the CPU has no bf16 arithmetic (no AMX, no AVX-512 BF16)"),
    }
}

/// Whether the CPU has bf16 dot products: AMX, or AVX-512 BF16.
#[must_use]
pub fn cpu_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // Leaf 7: sub-leaf 0 EDX bit 22 is AMX-BF16, sub-leaf 1 EAX bit 5 is AVX512_BF16 (Intel SDM, CPUID).
        let leaf = |sub| std::arch::x86_64::__cpuid_count(7, sub);
        std::is_x86_feature_detected!("avx512f") && (leaf(0).edx >> 22 & 1 == 1 || leaf(1).eax >> 5 & 1 == 1)
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Loads the CUDA half of libtorch, and returns the number of CUDA devices.
///
/// A linker drops that half from a program that calls none of its functions. So it is loaded here, when a CUDA device is
/// first asked for, and registers itself. One binary serves machines with and without CUDA.
///
/// # Errors
/// What was looked for, and why it was not found.
pub fn cuda_devices() -> std::result::Result<usize, String> {
    static LOADED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let name = libloading::library_filename("torch_cuda");
            // SAFETY: libtorch's own library, whose initialisers register its kernels and have no other preconditions.
            match unsafe { libloading::Library::new(&name) } {
                Ok(library) => {
                    // It stays for the rest of the process: its kernels are registered from now on.
                    std::mem::forget(library);
                    Ok(())
                }
                Err(error) => {
                    let cause =
                        std::error::Error::source(&error).map(|source| format!(" ({source})")).unwrap_or_default();
                    Err(format!("{} cannot be loaded: {error}{cause}", name.to_string_lossy()))
                }
            }
        })
        .clone()
        .map(|()| if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_had() {
        let runtime = Runtime::new(DeviceChoice::Cpu, Precision::F32).unwrap();
        assert_eq!(runtime, Runtime { device: Device::Cpu, kind: Kind::Float });
        let auto = Runtime::new(DeviceChoice::Cpu, Precision::Auto).unwrap();
        assert_eq!(auto.kind == Kind::BFloat16, cpu_has_bf16());
    }

    /// No machine has this many; where there is no CUDA at all, the reason is the library's.
    #[test]
    fn cuda_that_is_not_there_is_an_error_that_says_what_was_looked_for() {
        let error = Runtime::new(DeviceChoice::Cuda(4096), Precision::Auto).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("device cuda:4096 cannot be used: "), "{text}");
        assert!(text.contains("CUDA devices") || text.contains("torch_cuda"), "{text}");
    }
}
