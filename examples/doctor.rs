//! Shows what ediffi finds on this machine: versions, devices, precision, threads and memory.
//!
//! `cargo run --example doctor`
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::fs::{read_dir, read_to_string};
use std::path::Path;

use ediffi_core::runtime::{DeviceChoice, Precision, Runtime, auto_precision, cuda_devices};
use tch::{Device, Kind, utils};

fn main() {
    line("ediffi", env!("CARGO_PKG_VERSION"));
    line("tch", tch_version().unwrap_or("unknown"));
    line("libtorch", &format!("compiled against {}", compiled_against()));
    line("", &format!("loaded {}", loaded()));
    line("", &libtorch_parts());
    line("CPU", &cpu());
    line("CUDA", &cuda());
    match Runtime::new(DeviceChoice::Auto, Precision::Auto) {
        Ok(runtime) => {
            line("device", &format!("auto picks {}", device_name(runtime.device)));
            let (kind, reason) = auto_precision(runtime.device);
            line("precision", &format!("auto picks {}: {reason}", kind_name(kind)));
        }
        Err(error) => line("device", &format!("none can be used: {error}")),
    }
    let (inside, between) = (utils::get_num_threads(), utils::get_num_interop_threads());
    line("threads", &format!("{inside} inside one operation, {between} for operations side by side"));
    line("memory", &memory().unwrap_or_else(|| "unknown: there is no /proc/meminfo".to_owned()));
}

fn line(name: &str, value: &str) {
    println!("{name:<10} {value}");
}

/// The version in the lock file that this program was built with.
fn tch_version() -> Option<&'static str> {
    let lock = include_str!("../Cargo.lock");
    let (_, rest) = lock.split_once("name = \"tch\"\nversion = \"")?;
    rest.split('"').next()
}

/// The variables that chose the libtorch, as they stood when this program was compiled.
fn compiled_against() -> String {
    match (option_env!("LIBTORCH_USE_PYTORCH"), option_env!("LIBTORCH")) {
        (Some(_), _) => "the PyTorch of python3 (LIBTORCH_USE_PYTORCH)".to_owned(),
        (None, Some(folder)) => describe(Path::new(folder)),
        (None, None) => "the system's libtorch".to_owned(),
    }
}

/// The libtorch that the loader found for this process.
fn loaded() -> String {
    // Reaching into libtorch keeps the linker from dropping it, and makes sure that it works at all.
    utils::get_num_threads();
    let Ok(maps) = read_to_string("/proc/self/maps") else {
        return "from an unknown place: there is no /proc/self/maps".to_owned();
    };
    let library = maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let mut library = library.filter(|path| path.file_name().is_some_and(|name| name == "libtorch_cpu.so"));
    match library.next().and_then(|path| path.parent()?.parent()) {
        Some(folder) => describe(folder),
        None => "from an unknown place: no libtorch_cpu.so is mapped".to_owned(),
    }
}

/// Version and place of the libtorch in a folder.
fn describe(folder: &Path) -> String {
    let version = libtorch_version(folder).unwrap_or_else(|| "of unknown version".to_owned());
    format!("{version} ({})", folder.display())
}

/// From `build-version` (the zip) or `version.py` (the wheel).
fn libtorch_version(folder: &Path) -> Option<String> {
    if let Ok(version) = read_to_string(folder.join("build-version")) {
        return Some(version.trim().to_owned());
    }
    let python = read_to_string(folder.join("version.py")).ok()?;
    let (_, value) = python.lines().find_map(|line| line.split_once("__version__ = "))?;
    Some(value.trim_matches(['\'', '"']).to_owned())
}

fn libtorch_parts() -> String {
    let parts = [("OpenMP", utils::has_openmp()), ("MKL", utils::has_mkl()), ("oneDNN", utils::has_mkldnn())];
    parts.map(|(name, there)| format!("{} {name}", if there { "with" } else { "without" })).join(", ")
}

/// Model, number of cores, and the instructions that decide how fast networks run.
fn cpu() -> String {
    const TELLING: [&str; 10] =
        ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", "asimd", "sve", "bf16"];
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |names: &[&str]| {
        info.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| names.contains(&key.trim()))
            .map(|(_, v)| v.trim())
    };
    let model = field(&["model name", "Model"]).unwrap_or(std::env::consts::ARCH);
    let cores = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cores| cores.to_string());
    let flags: Vec<_> = field(&["flags", "Features"]).unwrap_or_default().split_whitespace().collect();
    let flags: Vec<_> = TELLING.into_iter().filter(|flag| flags.contains(flag)).collect();
    let flags = if flags.is_empty() { "features unknown".to_owned() } else { flags.join(" ") };
    format!("{model}; {cores} cores; {flags}")
}

fn cuda() -> String {
    match cuda_devices() {
        Err(reason) => format!("not available: {reason} (`cargo xtask setup --cuda` installs the CUDA libraries)"),
        Ok(0) => "not available: the CUDA half of libtorch is loaded, but the driver offers no device".to_owned(),
        Ok(count) => {
            format!("{count} device{} of {}", if count == 1 { "" } else { "s" }, gpu_names().join(", "))
        }
    }
}

/// The models that the NVIDIA driver lists, where it lists them.
fn gpu_names() -> Vec<String> {
    let folders = read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let text = folders.filter_map(|folder| read_to_string(folder.path().join("information")).ok());
    text.filter_map(|text| text.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_owned()))).collect()
}

fn memory() -> Option<String> {
    let info = read_to_string("/proc/meminfo").ok()?;
    let gib = |key: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(value.split_whitespace().next()?.parse::<f64>().ok()? / (1024.0 * 1024.0))
    };
    Some(format!("{:.1} GiB, of which {:.1} GiB are available", gib("MemTotal")?, gib("MemAvailable")?))
}

fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "the CPU".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}"),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::BFloat16 => "bf16",
        Kind::Half => "f16",
        Kind::Float => "f32",
        _ => "another kind",
    }
}
