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
    let request = request(arguments)?;
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

fn request(arguments: &Arguments) -> Result<Request, String> {
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
            if arguments.preset.iter().any(|(other, _)| other == stage) {
                return Err(format!(
                    "--preset {stage}=.. and --solver {stage}=..: a preset is a list of the published sampler's steps"
                ));
            }
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
    Ok(request)
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

    fn parse(line: &[&str]) -> Result<Arguments, String> {
        let program = std::iter::once(&"deepfloyd");
        Arguments::try_parse_from(program.chain(line)).map_err(|error| error.to_string())
    }

    fn fixture(name: &str) -> String {
        format!("{}/ediffi-core/tests/fixtures/deepfloyd/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn experts_have_noise_levels_and_a_folder() {
        let all = f64::INFINITY;
        for (text, low, high, folder) in [
            ("1.0..=IF-I-XL", 1.0, all, "IF-I-XL"),
            ("0.1..1.0=IF-I-L", 0.1, 1.0, "IF-I-L"),
            ("..0.5=../a=b", 0.0, 0.5, "../a=b"),
            ("..=x", 0.0, all, "x"),
        ] {
            let expected = (SigmaInterval::new(low, high).unwrap(), PathBuf::from(folder));
            assert_eq!(expert(text).unwrap(), expected, "{text}");
        }
        for wrong in ["", "IF-I-XL", "1.0=IF-I-XL", "one..=IF-I-XL", "2..1=IF-I-XL", "-1..=IF-I-XL", "1..="] {
            assert!(expert(wrong).is_err(), "{wrong}");
        }
        let error = parse(&["--base", "a", "--expert", "1.0=b", "a cat"]).err().unwrap();
        assert!(error.contains("expected SIGMA..=DIR or LOW..HIGH=DIR"), "{error}");
    }

    #[test]
    fn settings_go_into_the_request() {
        let arguments = parse(&[
            "--base",
            "a",
            "--size",
            "384x256",
            "--seed",
            "7",
            "--images",
            "2",
            "--negative",
            "blur",
            "--preset",
            "base=smart27",
            "--guidance",
            "base=5.5",
            "--solver",
            "sr-256=dpmpp-2m",
            "--steps",
            "sr-256=20",
            "a cat",
        ])
        .unwrap();
        let karras = Schedule::Karras { min: 0.0064, max: 80.0, rho: 7.0 };
        let expected = Request::new("a cat")
            .size(384, 256)
            .seed(7)
            .images(2)
            .negative_prompt("blur")
            .schedule("base", Schedule::Preset(Preset::Smart27))
            .guidance("base", 5.5)
            .solver("sr-256", Solver::DpmPp2M)
            .schedule("sr-256", karras)
            .steps("sr-256", 20);
        assert_eq!(request(&arguments).unwrap(), expected);
        // The published sampler under another name keeps its own noise levels.
        let tuned = parse(&["--base", "a", "--solver", "base=ddpm-fixed-small", "a cat"]).unwrap();
        let tuning = Request::new("a cat").solver("base", "ddpm-fixed-small".parse().unwrap());
        assert_eq!(request(&tuned).unwrap(), tuning);
        // A preset is the published sampler's: another solver for the same stage would drop it.
        let both = |solver| {
            request(&parse(&["--base", "a", "--preset", "base=smart27", "--solver", solver, "a cat"]).unwrap())
        };
        assert_eq!(both("base=ddpm-fixed-small").unwrap(), tuning.schedule("base", Schedule::Preset(Preset::Smart27)));
        assert!(both("sr-256=dpmpp-2m").is_ok());
        let error = both("base=dpmpp-2m").unwrap_err();
        assert!(error.contains("--preset base=.. and --solver base=.."), "{error}");
        for wrong in [&["a cat"][..], &["--base", "a"], &["--base", "a", "--preset", "base=smart28", "a cat"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Tiny random networks through all of it: an ensemble, a second stage, the last enlargement.
    #[test]
    fn folders_become_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.png");
        let enlarger =
            format!("{}/ediffi-cascade/tests/fixtures/enlarger/compact.safetensors", env!("CARGO_MANIFEST_DIR"));
        let expert = format!("1.0..={}", fixture("stage-1"));
        let (base, upscale, out_text) = (fixture("stage-1"), fixture("stage-2"), out.display().to_string());
        let mut line = vec!["--cpu", "--precision", "f32", "--base", &base, "--expert", &expert, "--upscale", &upscale];
        line.extend([
            "--final", &enlarger, "--out", &out_text, "--size", "48x32", "--steps", "base=2", "--steps", "sr-32=1",
        ]);
        line.push("a red apple");
        let plan = parse(&[&line[..], &["--plan"]].concat()).unwrap();
        run(&plan).unwrap();
        assert!(!out.exists());
        run(&parse(&line).unwrap()).unwrap();
        let picture = image::open(&out).unwrap();
        assert_eq!((picture.width(), picture.height()), (192, 128));
        let swapped = parse(&["--cpu", "--base", &upscale, "a red apple"]).unwrap();
        let error = run(&swapped).unwrap_err().to_string();
        assert!(error.contains("where a stage I (IF-I-..) is expected"), "{error}");
    }
}
