//! `ediffi doctor`: what this machine can do, and what to do where it cannot.

use std::fs::{read_dir, read_to_string};
use std::path::Path;

use clap::Args;
use ediffi::{Device, DeviceChoice, Kind, Pipeline, Precision, Request, Runtime};
use ediffi_core::runtime::{auto_precision, cuda_devices};
use ediffi_libtorch::VERSION;
use serde_json::json;
use tch::utils;

use super::failure::Failure;
use super::model::Model;
use super::output::say;

/// Check libtorch, processor, memory and model, and say what to do where something is wrong.
#[derive(Args)]
pub(crate) struct Doctor {
    /// Write a line of JSON for each finding.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: Model,
}

/// What was found.
struct Finding {
    what: &'static str,
    found: String,
    grade: Grade,
    /// What to do.
    advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Grade {
    Good,
    /// It works, and could work better.
    Poor,
    /// Nothing can be drawn.
    Broken,
}

impl Grade {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Poor => "poor",
            Self::Broken => "broken",
        }
    }
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, found: found.into(), grade: Grade::Good, advice: None }
    }

    fn but(self, grade: Grade, advice: impl Into<String>) -> Self {
        Self { grade, advice: Some(advice.into()), ..self }
    }
}

impl Doctor {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut findings = vec![
            Finding::good("ediffi", env!("CARGO_PKG_VERSION")),
            libtorch(),
            processor(),
            threads(),
            cuda(),
            device(&self.model),
        ];
        findings.extend(self.model());
        for Finding { what, found, grade, advice } in &findings {
            let line = if self.json {
                json!({ "what": what, "found": found, "grade": grade.name(), "advice": advice }).to_string()
            } else {
                let advice = advice.as_ref().map(|advice| format!("\n{:18}-> {advice}", "")).unwrap_or_default();
                format!("{:<7} {what:<10}{found}{advice}", grade.name())
            };
            say(&line)?;
        }
        let broken: Vec<&str> =
            findings.iter().filter(|finding| finding.grade == Grade::Broken).map(|finding| finding.what).collect();
        if broken.is_empty() { Ok(()) } else { Err(format!("broken: {}", broken.join(", ")).into()) }
    }

    /// The model, and the memory that it takes.
    fn model(&self) -> Vec<Finding> {
        let broken = |error: &dyn std::fmt::Display| {
            let advice = "name a model folder with --model or the variable EDIFFI_MODEL";
            vec![Finding::good("model", error.to_string()).but(Grade::Broken, advice)]
        };
        // Whether the device can be used was found by itself; the model is looked at on the processor.
        let on_processor = || -> Result<Pipeline, Failure> {
            Ok(self.model.builder()?.device(DeviceChoice::Cpu).precision(Precision::Auto).open()?)
        };
        let pipeline = match on_processor() {
            Ok(pipeline) => pipeline,
            Err(error) => return broken(&error),
        };
        // It looks into every file of weights.
        if let Err(error) = pipeline.provenance(&Request::unconditional()) {
            return broken(&error);
        }
        let stages =
            pipeline.manifest().stages.iter().map(|stage| format!("{} {}x{}", stage.name, stage.size, stage.size));
        let found = format!("{} ({})", pipeline.folder().display(), stages.collect::<Vec<_>>().join(", "));
        vec![Finding::good("model", found), memory(weights(pipeline.folder(), 4))]
    }
}

fn libtorch() -> Finding {
    // Reaching into libtorch keeps the linker from dropping it, and makes sure that it works at all.
    utils::get_num_threads();
    let parts = [("OpenMP", utils::has_openmp()), ("MKL", utils::has_mkl()), ("oneDNN", utils::has_mkldnn())];
    let parts = parts.map(|(name, there)| format!("{} {name}", if there { "with" } else { "without" })).join(", ");
    let maps = read_to_string("/proc/self/maps").unwrap_or_default();
    let mut libraries =
        maps.lines().filter_map(|line| line.find('/').and_then(|start| line.get(start..))).map(Path::new);
    let library = libraries.find(|path| path.file_name().is_some_and(|name| name == "libtorch_cpu.so"));
    let Some(folder) = library.and_then(|path| path.parent()?.parent()) else {
        return Finding::good("libtorch", format!("from an unknown place, {parts}"));
    };
    let version = libtorch_version(folder);
    let told = version.as_deref().unwrap_or("of unknown version");
    let finding = Finding::good("libtorch", format!("{told} ({}), {parts}", folder.display()));
    match &version {
        Some(version) if !version.starts_with(VERSION) => {
            finding.but(Grade::Broken, format!("this program needs {VERSION}: `ediffi setup` installs it"))
        }
        _ => finding,
    }
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

/// Model and instructions that decide how fast networks run.
fn processor() -> Finding {
    const TELLING: [&str; 10] =
        ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", "asimd", "sve", "bf16"];
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |names: &[&str]| {
        let mut fields = info.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| names.contains(&key.trim())).map(|(_, value)| value.trim())
    };
    let model = field(&["model name", "Model"]).unwrap_or(std::env::consts::ARCH);
    let flags: Vec<&str> = field(&["flags", "Features"]).unwrap_or_default().split_whitespace().collect();
    let known = !flags.is_empty();
    let flags: Vec<&str> = TELLING.into_iter().filter(|flag| flags.contains(flag)).collect();
    let finding = Finding::good("processor", format!("{model}; {}", flags.join(" ")));
    if known && !flags.iter().any(|flag| ["avx2", "asimd"].contains(flag)) {
        return finding.but(Grade::Poor, "it has no vectors of 256 bits: pictures take several times as long");
    }
    finding
}

fn threads() -> Finding {
    let threads = usize::try_from(utils::get_num_threads()).unwrap_or(1);
    let cores = std::thread::available_parallelism().map_or(threads, usize::from);
    let finding = Finding::good("threads", format!("{threads}, for {cores} cores"));
    if threads > cores {
        finding.but(Grade::Poor, format!("more threads than cores wait for each other: set OMP_NUM_THREADS={cores}"))
    } else if threads < cores.div_ceil(2) {
        finding.but(Grade::Poor, format!("cores are idle: set OMP_NUM_THREADS={cores}, unless others need them"))
    } else {
        finding
    }
}

fn cuda() -> Finding {
    match cuda_devices() {
        Ok(count @ 1..) => Finding::good("CUDA", format!("{count} of {}", gpu_names().join(", "))),
        Ok(_) => Finding::good("CUDA", "libtorch has it, but the driver offers no device"),
        Err(reason) => {
            let finding = Finding::good("CUDA", format!("none: {reason}"));
            let advice = "a driver is there: `ediffi setup --cuda` installs libtorch's CUDA libraries";
            if Path::new("/proc/driver/nvidia").exists() { finding.but(Grade::Poor, advice) } else { finding }
        }
    }
}

/// The models that the NVIDIA driver lists, where it lists them.
fn gpu_names() -> Vec<String> {
    let folders = read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let text = folders.filter_map(|folder| read_to_string(folder.path().join("information")).ok());
    text.filter_map(|text| text.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_owned()))).collect()
}

fn device(model: &Model) -> Finding {
    match model.runtime() {
        Ok(Runtime { device, kind }) => {
            let reason = if model.chooses_precision() { auto_precision(device).1 } else { "as --precision says" };
            let device = match device {
                Device::Cpu => "the processor".to_owned(),
                Device::Cuda(index) => format!("cuda:{index}"),
                other => format!("{other:?}"),
            };
            let kind = match kind {
                Kind::BFloat16 => "bf16",
                Kind::Half => "f16",
                _ => "f32",
            };
            Finding::good("device", format!("{device} in {kind}: {reason}"))
        }
        Err(error) => Finding::good("device", error.to_string())
            .but(Grade::Broken, "name another with --device, or other numbers with --precision"),
    }
}

/// Memory beside what the weights take when all of them are in it.
fn memory(weights: u64) -> Finding {
    const GIB: f64 = (1_u64 << 30) as f64;
    let needed = weights as f64 / GIB;
    let Some((total, available)) = meminfo() else {
        return Finding::good("memory", format!("unknown; the weights have {needed:.2} GiB"));
    };
    let found = format!("{available:.1} of {total:.1} GiB are free; the weights have {needed:.2} GiB");
    let finding = Finding::good("memory", found);
    if needed * 1.2 > available {
        return finding.but(Grade::Poor, "keep one expert in memory at a time: --residency relay");
    }
    finding
}

/// Total and available memory in GiB.
fn meminfo() -> Option<(f64, f64)> {
    let info = read_to_string("/proc/meminfo").ok()?;
    let gib = |key: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(value.split_whitespace().next()?.parse::<f64>().ok()? / f64::from(1 << 20))
    };
    Some((gib("MemTotal")?, gib("MemAvailable")?))
}

/// Bytes of the files of weights in a folder, `depth` folders deep.
fn weights(folder: &Path, depth: usize) -> u64 {
    let entries = read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() && depth > 0 => weights(&entry.path(), depth - 1),
        _ if entry.path().extension().is_some_and(|ending| ending == "safetensors") => {
            std::fs::metadata(entry.path()).map_or(0, |file| file.len())
        }
        _ => 0,
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_model_is_that_of_its_weights() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/c.safetensors"), [0; 70]).unwrap();
        std::fs::write(folder.path().join("d.safetensors"), [0; 7]).unwrap();
        std::fs::write(folder.path().join("e.json"), [0; 700]).unwrap();
        assert_eq!((weights(folder.path(), 4), weights(folder.path(), 1)), (77, 7));
        assert_eq!(memory(u64::MAX).grade, if meminfo().is_some() { Grade::Poor } else { Grade::Good });
        assert_eq!(memory(0).grade, Grade::Good);
    }
}
