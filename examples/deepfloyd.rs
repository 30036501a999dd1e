//! Draws with published weights: DeepFloyd IF's folders as they were downloaded. See `docs/deepfloyd.md`.
//!
//! ```text
//! cargo run --release --example deepfloyd -- --base IF-I-M-v1.0 --expert '1.0..=IF-I-XL-v1.0' --upscale IF-II-M-v1.0 \
//!     "a photo of a corgi puppy in a teacup" --preset base=smart27 --preset sr-256=super27
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

mod shared;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ediffi::{DeviceChoice, Pipeline, Precision, Preset, Request, Schedule, SigmaInterval, Solver};
use shared::{Bars, numbered, of_stage, report, size};

/// Draws with DeepFloyd IF. Its weights are under a licence of their own, for research alone.
#[derive(Parser)]
struct Arguments {
    /// What the picture shall show.
    prompt: String,
    /// What it shall be guided away from.
    #[arg(long, value_name = "PROMPT")]
    negative: Option<String>,
    /// The folder of a stage I.
    #[arg(long, value_name = "DIR")]
    base: PathBuf,
    /// Another stage I and the noise levels it works at: from 1.0 up, or between 0.1 and 1.0 as `0.1..1.0=DIR`.
    #[arg(long, value_name = "SIGMA..=DIR", value_parser = expert)]
    expert: Vec<(SigmaInterval, PathBuf)>,
    /// The folder of a stage II.
    #[arg(long, value_name = "DIR")]
    upscale: Option<PathBuf>,
    /// A Real-ESRGAN network (safetensors) that enlarges the finished picture.
    #[arg(long = "final", value_name = "FILE")]
    enlarger: Option<PathBuf>,
    /// Where to write. Of several images, each gets its number before the ending.
    #[arg(long, default_value = "out.png")]
    out: PathBuf,
    /// The seed of the first image; the others follow.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many images.
    #[arg(long, default_value_t = 1)]
    images: usize,
    /// Width and height in pixels, before the last enlargement, as 384x256.
    #[arg(long, value_parser = size)]
    size: Option<(u32, u32)>,
    /// A published list of steps for a stage, as base=smart27.
    #[arg(long, value_name = "STAGE=NAME", value_parser = of_stage::<Preset>)]
    preset: Vec<(String, Preset)>,
    /// Steps of a stage, as base=50.
    #[arg(long, value_name = "STAGE=N", value_parser = of_stage::<usize>)]
    steps: Vec<(String, usize)>,
    /// Another solver than the published one for a stage, as base=dpmpp-2m; its noise levels are EDM's, from 80 down.
    #[arg(long, value_name = "STAGE=NAME", value_parser = of_stage::<Solver>)]
    solver: Vec<(String, Solver)>,
    /// Guidance of a stage, as base=7.0; 1 is none.
    #[arg(long, value_name = "STAGE=SCALE", value_parser = of_stage::<f64>)]
    guidance: Vec<(String, f64)>,
    /// How much noise goes into the small picture before it is enlarged: a timestep below 1000.
    #[arg(long, value_name = "TIMESTEP", default_value_t = 250)]
    noise_level: usize,
    /// Give the prompt to T5 as it is, but for capital letters.
    #[arg(long)]
    raw_caption: bool,
    /// Compute on the CPU even if there is a CUDA device.
    #[arg(long)]
    cpu: bool,
    /// Compute in this precision, not in the fastest that is safe.
    #[arg(long, value_parser = ["f32", "bf16", "f16"])]
    precision: Option<String>,
    /// Show which folder would run which step, and stop.
    #[arg(long)]
    plan: bool,
}

fn main() -> ExitCode {
    report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut builder =
        Pipeline::builder(&arguments.base).clean_captions(!arguments.raw_caption).noise_level(arguments.noise_level);
    for (interval, folder) in &arguments.expert {
        builder = builder.expert(*interval, folder);
    }
    if let Some(folder) = &arguments.upscale {
        builder = builder.stage(folder);
    }
    if let Some(file) = &arguments.enlarger {
        builder = builder.enlarger(file);
    }
    if arguments.cpu {
        builder = builder.device(DeviceChoice::Cpu);
    }
    let precision = match arguments.precision.as_deref() {
        Some("f32") => Precision::F32,
        Some("bf16") => Precision::Bf16,
        Some("f16") => Precision::F16,
        _ => Precision::Auto,
    };
    let pipeline = builder.precision(precision).open()?;
    let request = request(arguments);
    for plan in pipeline.plan(&request)? {
        let stages = &pipeline.manifest().stages;
        let experts = stages.iter().find(|stage| stage.name == plan.stage).map(|stage| &stage.experts);
        eprintln!("{plan}");
        for (index, expert) in experts.into_iter().flatten().enumerate() {
            eprintln!("  expert {index}: {} for sigma {}", expert.weights.display(), expert.sigma);
        }
    }
    if arguments.plan {
        return Ok(());
    }
    let generation = pipeline.generate_with(&request, &mut Bars::default())?;
    for (index, image) in generation.images.iter().enumerate() {
        let path = numbered(&arguments.out, index, generation.images.len());
        image.save(&path)?;
        println!("{}", path.display());
    }
    eprintln!("text: {:.1} s", generation.encoding.as_secs_f64());
    for stage in &generation.stages {
        eprintln!("{}: {:.1} s", stage.plan.stage, stage.elapsed.as_secs_f64());
    }
    Ok(())
}

fn request(arguments: &Arguments) -> Request {
    let mut request = Request::new(&arguments.prompt).seed(arguments.seed).images(arguments.images);
    if let Some(negative) = &arguments.negative {
        request = request.negative_prompt(negative);
    }
    if let Some((width, height)) = arguments.size {
        request = request.size(width, height);
    }
    for (stage, preset) in &arguments.preset {
        request = request.schedule(stage, Schedule::Preset(*preset));
    }
    for (stage, solver) in &arguments.solver {
        request = request.solver(stage, *solver);
        if !matches!(solver, Solver::Ddpm(_)) {
            // Above sigma 160 the table is steep and the picture lost; below 0.0064 it ends.
            request = request.schedule(stage, Schedule::Karras { min: 0.0064, max: 80.0, rho: 7.0 });
        }
    }
    for (stage, steps) in &arguments.steps {
        request = request.steps(stage, *steps);
    }
    for (stage, scale) in &arguments.guidance {
        request = request.guidance(stage, *scale);
    }
    request
}

/// `LOW..=DIR` or `LOW..HIGH=DIR`.
fn expert(text: &str) -> Result<(SigmaInterval, PathBuf), String> {
    let wrong = || "expected SIGMA..=DIR or LOW..HIGH=DIR".to_owned();
    let (range, folder) = text.split_once('=').ok_or_else(wrong)?;
    let (low, high) = range.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str, open: f64| if text.is_empty() { Ok(open) } else { text.parse().map_err(|_| wrong()) };
    let interval = SigmaInterval::new(number(low, 0.0)?, number(high, f64::INFINITY)?);
    Ok((interval.map_err(|error| error.to_string())?, PathBuf::from(folder)))
}
