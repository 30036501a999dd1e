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
use shared::{Bars, of_stage, report, size};

/// Draws with DeepFloyd IF. Its weights are under a licence of their own, for research alone.
#[derive(Parser)]
struct Arguments {
    /// What the picture shall show.
    prompt: String,
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
    /// Where to write.
    #[arg(long, default_value = "out.png")]
    out: PathBuf,
    #[arg(long, default_value_t = 0)]
    seed: u64,
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
    /// Compute on the CPU even if there is a CUDA device.
    #[arg(long)]
    cpu: bool,
    /// Compute in f32, bf16 or f16, not in the fastest that is safe.
    #[arg(long, value_parser = precision, default_value = "auto", hide_default_value = true)]
    precision: Precision,
    /// Show which folder would run which step, and stop.
    #[arg(long)]
    plan: bool,
}

fn main() -> ExitCode {
    report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut builder = Pipeline::builder(&arguments.base).precision(arguments.precision);
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
    let (request, pipeline) = (request(arguments)?, builder.open()?);
    for plan in pipeline.plan(&request)? {
        eprintln!("{plan}");
        let stages = &pipeline.manifest().stages;
        let experts = stages.iter().find(|stage| stage.name == plan.stage).map(|stage| &stage.experts);
        for (index, expert) in experts.into_iter().flatten().enumerate() {
            eprintln!("  expert {index}: {} for sigma {}", expert.weights.display(), expert.sigma);
        }
    }
    if arguments.plan {
        return Ok(());
    }
    let generation = pipeline.generate_with(&request, &mut Bars::default())?;
    generation.images.first().ok_or("no picture was made")?.save(&arguments.out)?;
    println!("{}", arguments.out.display());
    eprintln!("text: {:.1} s", generation.encoding.as_secs_f64());
    for stage in &generation.stages {
        eprintln!("{}: {:.1} s", stage.plan.stage, stage.elapsed.as_secs_f64());
    }
    Ok(())
}

fn request(arguments: &Arguments) -> Result<Request, String> {
    let mut request = Request::new(&arguments.prompt).seed(arguments.seed);
    if let Some((width, height)) = arguments.size {
        request = request.size(width, height);
    }
    for (stage, preset) in &arguments.preset {
        request = request.schedule(stage, Schedule::Preset(*preset));
    }
    for (stage, solver) in &arguments.solver {
        request = request.solver(stage, *solver);
        if !matches!(solver, Solver::Ddpm(_)) {
            if arguments.preset.iter().any(|(other, _)| other == stage) {
                return Err(format!("a preset lists steps of the published sampler: --solver {stage}=.. has its own"));
            }
            // Above sigma 160 the table is steep and the picture lost; below 0.0064 it ends.
            request = request.schedule(stage, Schedule::Karras { min: 0.0064, max: 80.0, rho: 7.0 });
        }
    }
    for (stage, steps) in &arguments.steps {
        request = request.steps(stage, *steps);
    }
    Ok(request)
}

fn precision(text: &str) -> Result<Precision, serde_json::Error> {
    serde_json::from_value(text.into())
}

/// `LOW..=DIR` or `LOW..HIGH=DIR`.
fn expert(text: &str) -> Result<(SigmaInterval, PathBuf), String> {
    let wrong = || "expected SIGMA..=DIR or LOW..HIGH=DIR".to_owned();
    let (range, folder) = text.split_once('=').filter(|(_, folder)| !folder.is_empty()).ok_or_else(wrong)?;
    let (low, high) = range.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str, open: f64| if text.is_empty() { Ok(open) } else { text.parse().map_err(|_| wrong()) };
    let interval = SigmaInterval::new(number(low, 0.0)?, number(high, f64::INFINITY)?);
    Ok((interval.map_err(|error| error.to_string())?, PathBuf::from(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn experts_have_noise_levels_and_a_folder() {
        let interval = |low, high| SigmaInterval::new(low, high).unwrap();
        assert_eq!(expert("1.0..=IF-I-XL"), Ok((interval(1.0, f64::INFINITY), PathBuf::from("IF-I-XL"))));
        assert_eq!(expert("0.1..1.0=../a=b"), Ok((interval(0.1, 1.0), PathBuf::from("../a=b"))));
        for wrong in ["", "IF-I-XL", "1.0=IF-I-XL", "one..=IF-I-XL", "2..1=IF-I-XL", "-1..=IF-I-XL", "1..="] {
            assert!(expert(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_go_into_the_request() {
        let made = |line: &str| request(&parse(&format!("deepfloyd --base a {line} cat")).unwrap());
        let got = made("--size 384x256 --seed 7 --preset base=smart27 --solver sr-256=dpmpp-2m --steps sr-256=20");
        let expected = Request::new("cat")
            .size(384, 256)
            .seed(7)
            .schedule("base", Schedule::Preset(Preset::Smart27))
            .solver("sr-256", Solver::DpmPp2M)
            .schedule("sr-256", Schedule::Karras { min: 0.0064, max: 80.0, rho: 7.0 })
            .steps("sr-256", 20);
        assert_eq!(got, Ok(expected));
        // The published sampler under another name keeps the published noise levels.
        assert!(made("--preset base=smart27 --solver base=ddpm-fixed-small").is_ok());
        assert!(made("--preset base=smart27 --solver base=dpmpp-2m").is_err());
        for wrong in ["--preset base=smart28", "--precision f8", "--expert 1.0=b"] {
            assert!(parse(&format!("deepfloyd --base a {wrong} cat")).is_err(), "{wrong}");
        }
    }

    /// Tiny random networks through all of it: an ensemble, a second stage, the last enlargement.
    #[test]
    fn folders_become_a_picture() {
        let (folder, root) = (tempfile::tempdir().unwrap(), env!("CARGO_MANIFEST_DIR"));
        let out = folder.path().join("out.png");
        let stages = format!("{root}/ediffi-core/tests/fixtures/deepfloyd/stage");
        let line = format!(
            "deepfloyd --cpu --precision f32 --base {stages}-1 --expert 1.0..={stages}-1 --upscale {stages}-2 --final \
             {root}/ediffi-cascade/tests/fixtures/enlarger/compact.safetensors --size 48x32 --steps base=2 --steps \
             sr-32=1 --out {} apple",
            out.display()
        );
        run(&parse(&format!("{line} --plan")).unwrap()).unwrap();
        assert!(!out.exists());
        run(&parse(&line).unwrap()).unwrap();
        assert_eq!(image::image_dimensions(&out).unwrap(), (192, 128));
    }
}
