//! The device and the precision to compute in.
#![allow(unsafe_code, reason = "loading the CUDA half of libtorch and asking the driver are foreign calls")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// In which precision networks compute. The statistics of norms, softmax, the solver's state, the embedding of the noise level (its
/// sinusoids and both linear maps), and a network's last norm and convolution are f32 in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Precision {
    /// The fastest that is safe on the device: bf16 on CUDA, which is assumed to have compute capability 8.0, and on CPUs
    /// with bf16 arithmetic; else f32.
    #[default]
    Auto,
    /// 32 bits, also in convolutions on CUDA: [`allow_tf32`] tells how to let them round.
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
    /// The CUDA half of libtorch is loaded here for every choice, where there is one: a process that computes on the CPU first would
    /// never see its CUDA devices ([`cuda_devices`]). On CUDA, cuDNN measures which of its convolutions is fastest whenever it meets a
    /// new shape.
    ///
    /// # Errors
    /// [`Error::Device`] if CUDA is asked for and cannot be used.
    pub fn new(device: DeviceChoice, precision: Precision) -> Result<Self> {
        let cuda = cuda_devices();
        let device = match device {
            DeviceChoice::Cpu => Device::Cpu,
            DeviceChoice::Auto => match cuda {
                Ok(0) => Device::Cpu,
                Ok(_) => Device::Cuda(0),
                Err(reason) => {
                    // No CUDA half is the usual case; a driver with devices that cannot be used is not.
                    if driver_devices().is_some_and(|devices| devices > 0) {
                        tracing::warn!(reason, "computing on the CPU");
                    }
                    Device::Cpu
                }
            },
            DeviceChoice::Cuda(index) => {
                let unusable = |reason| Error::Device { device: format!("cuda:{index}"), reason };
                match cuda {
                    Ok(count) if index < count => Device::Cuda(index),
                    Ok(count) => return Err(unusable(format!("there are {count} CUDA devices"))),
                    Err(reason) => return Err(unusable(reason)),
                }
            }
        };
        if device != Device::Cpu {
            Cuda::cudnn_set_benchmark(true);
        }
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

/// Whether convolutions in f32 may round their inputs to TF32 on CUDA, for the whole process: to eleven bits of 24, which devices from
/// compute capability 8.0 on multiply faster. They may not until this is called. The gradients of convolutions follow libtorch's own
/// setting, which allows it. Matrix products in f32 do not round.
pub fn allow_tf32(allow: bool) {
    TF32.store(allow, Ordering::Relaxed);
}

/// What [`allow_tf32`] has set.
#[must_use]
pub fn tf32_is_allowed() -> bool {
    TF32.load(Ordering::Relaxed)
}

static TF32: AtomicBool = AtomicBool::new(false);

/// Loads the CUDA half of libtorch, and returns the number of CUDA devices.
///
/// A linker drops that half from a program that calls none of its functions. So it is loaded here, and registers itself. One binary
/// serves machines with and without CUDA. libtorch asks once in a process whether there is a CUDA half, at the latest in the first
/// convolution on the CPU. A program that computes with `tch` before it opens a pipeline should call this first.
///
/// # Errors
/// What was looked for, and why it was not found; or that the process has computed on the CPU before, and that its driver has devices.
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
        .clone()?;
    let seen = if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 };
    if seen > 0 {
        return Ok(seen);
    }
    match driver_devices() {
        Some(there) if there > 0 => Err(too_late(there)),
        _ => Ok(seen),
    }
}

/// Why libtorch sees none of the driver's devices.
fn too_late(devices: usize) -> String {
    format!(
        "the driver has {devices}, but libtorch sees none: either the process has computed on the CPU before the CUDA half of \
         libtorch was loaded (call `ediffi_core::runtime::cuda_devices` at its start), or this libtorch needs a newer driver"
    )
}

/// The number of devices that the NVIDIA driver has, if there is one; libtorch is not asked.
fn driver_devices() -> Option<usize> {
    type Init = unsafe extern "C" fn(flags: u32) -> i32;
    type Count = unsafe extern "C" fn(count: *mut i32) -> i32;
    static DEVICES: OnceLock<Option<usize>> = OnceLock::new();
    *DEVICES.get_or_init(|| {
        let name = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
        // SAFETY: the driver's own library, which libtorch's CUDA half loads too.
        let driver = unsafe { libloading::Library::new(name) }.ok()?;
        // SAFETY: the types are those of the declarations in `cuda.h`, which have not changed since CUDA 2.
        let found = unsafe {
            Some((*driver.get::<Init>(b"cuInit\0").ok()?, *driver.get::<Count>(b"cuDeviceGetCount\0").ok()?))
        };
        // A driver that has been started stays.
        std::mem::forget(driver);
        let (init, count) = found?;
        let mut devices = 0;
        // SAFETY: `cuInit` may be called any number of times, with 0 only, and `devices` outlives the other call.
        let counted = unsafe { init(0) == 0 && count(&raw mut devices) == 0 };
        usize::try_from(devices).ok().filter(|_| counted)
    })
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
        assert!(text.contains("CUDA devices") || text.contains("torch_cuda") || text.contains("driver"), "{text}");
    }
}
