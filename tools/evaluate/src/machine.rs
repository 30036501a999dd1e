//! What computed: named in every table, as times mean nothing without it.

use crate::model::Model;

/// Processor, cores, precision and workers, in words.
pub fn describe(model: &Model) -> String {
    let runtime = model.pipeline.runtime();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{:?} ({}, {cores} cores), {:?}, {} workers", runtime.device, processor(), runtime.kind, model.workers)
}

/// What the system calls the processor, and whether it has the instructions that matter here.
#[must_use]
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = |key: &str| {
        let found = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split_once(':'));
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let flags = line("flags");
    let has = |flag: &str| flags.split_whitespace().any(|other| other == flag);
    let bf16 = if has("amx_bf16") {
        " with AMX"
    } else if has("avx512_bf16") {
        " with AVX-512 BF16"
    } else if has("avx512f") {
        " with AVX-512"
    } else if has("avx2") {
        " with AVX2"
    } else {
        ""
    };
    let model = line("model name");
    format!("{}{bf16}", if model.is_empty() { std::env::consts::ARCH } else { &model })
}
