//! Load time, encode time and memory of one encoder: the table of `docs/results/performance.md`.
//!
//! `cargo run --release -p ediffi-encoders --example encoder_times -- --model FOLDER --encoder t5 --precision bf16` prints one
//! line of JSON. `ediffi-encoders/comparison/compare.py` runs it beside `transformers` on the same files.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};
use ediffi_encoders::{ClipText, ClipVision, T5};
use tch::{Device, Kind, Tensor};

/// Time one encoder.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder of the encoder.
    #[arg(long)]
    model: PathBuf,
    /// Which encoder the folder holds, or which half of CLIP to time.
    #[arg(long)]
    encoder: Encoder,
    /// In which precision to compute.
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Whether to compute on the first CUDA device.
    #[arg(long)]
    cuda: bool,
    /// Columns of the embeddings.
    #[arg(long, default_value_t = 77)]
    tokens: i64,
    /// Threads of libtorch.
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Timed runs, of which the median is printed; one more before them is not counted.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How often the same input stands in the batch.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// The text.
    #[arg(long, default_value = "a photo of an astronaut riding a horse on the moon")]
    text: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Encoder {
    T5,
    ClipText,
    ClipImage,
}

fn precision(name: &str) -> serde_json::Result<Precision> {
    serde_json::from_value(name.into())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    tch::set_num_threads(arguments.threads);
    let device = if arguments.cuda { DeviceChoice::Cuda(0) } else { DeviceChoice::Cpu };
    let runtime = Runtime::new(device, arguments.precision)?;
    let texts = vec![arguments.text.as_str(); arguments.batch];
    let started = Instant::now();
    let (folder, tokens) = (&arguments.model, arguments.tokens);
    let times = match arguments.encoder {
        Encoder::T5 => {
            let t5 = T5::open(folder, runtime)?;
            let load = started.elapsed().as_secs_f64();
            times(load, &arguments, || Ok(t5.encode(&texts, tokens)?.tokens))?
        }
        Encoder::ClipText => {
            let clip = ClipText::open(folder, runtime)?;
            let load = started.elapsed().as_secs_f64();
            times(load, &arguments, || Ok(clip.encode(&texts, tokens)?.tokens))?
        }
        Encoder::ClipImage => {
            let clip = ClipVision::open(folder, runtime)?;
            let load = started.elapsed().as_secs_f64();
            let side = clip.config().image_size;
            let picture = || Tensor::f_zeros([3, side, side], (Kind::Uint8, Device::Cpu));
            let pictures = (0..arguments.batch).map(|_| picture()).collect::<Result<Vec<_>, _>>()?;
            times(load, &arguments, || clip.encode(&pictures))?
        }
    };
    println!("{times}");
    Ok(())
}

/// Times `encode` and says it as JSON. Memory is the greatest that the process held, after loading and in the end.
fn times(
    load: f64,
    arguments: &Arguments,
    encode: impl Fn() -> Result<Tensor, ediffi_encoders::Error>,
) -> Result<String, Box<dyn std::error::Error>> {
    let loaded = peak_memory();
    let _ = encode()?;
    let mut runs = Vec::with_capacity(arguments.runs);
    for _ in 0..arguments.runs.max(1) {
        let started = Instant::now();
        // A number of the embedding, so that a device that computes ahead has finished.
        encode()?.f_sum(Kind::Float)?.f_double_value(&[])?;
        runs.push(started.elapsed().as_secs_f64());
    }
    runs.sort_by(f64::total_cmp);
    let median = runs.get(runs.len() / 2).copied().unwrap_or_default();
    let peak = peak_memory();
    Ok(format!(r#"{{ "load_s": {load:.3}, "encode_s": {median:.5}, "loaded_mb": {loaded}, "peak_mb": {peak} }}"#))
}

/// In MB; 0 where the system does not tell.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024 / 1_000_000
}
