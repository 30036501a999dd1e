//! From a prompt to a picture, with progress bars.
//!
//! `cargo run --release --example generate -- "a red apple left of a cat" --seed 7 --out apple.png`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

mod shared;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ediffi::{DeviceChoice, Edit, EditPicture, Pipeline, Precision, Provenance, Request, Residency, StyleImage};
use shared::{Bars, of_stage, report, size};

/// Draws what a prompt says.
#[derive(Parser)]
struct Arguments {
    /// What the picture shall show.
    #[arg(required_unless_present = "again")]
    prompt: Option<String>,
    /// What it shall be guided away from.
    #[arg(long, value_name = "PROMPT")]
    negative: Option<String>,
    /// A picture made earlier: its request is run again, with the other options in place of its own.
    #[arg(long, value_name = "PNG", conflicts_with = "prompt")]
    again: Option<PathBuf>,
    /// The model folder (default: that of the variable EDIFFI_MODEL, or models/icons).
    #[arg(long)]
    model: Option<PathBuf>,
    /// Where to write. Of several images, each gets its number before the ending.
    #[arg(long, default_value = "out.png")]
    out: PathBuf,
    /// The seed of the first image; the others follow.
    #[arg(long)]
    seed: Option<u64>,
    /// How many images.
    #[arg(long)]
    images: Option<usize>,
    /// Width and height in pixels, as 1024x768.
    #[arg(long, value_parser = size)]
    size: Option<(u32, u32)>,
    /// A picture to begin with, in place of noise: see `--redraw` and `--mask`.
    #[arg(long, value_name = "IMAGE")]
    edit: Option<PathBuf>,
    /// How much of that picture is drawn anew, from 0 to 1 (default: 0.7, or 1 with a mask).
    #[arg(long, value_name = "SHARE", requires = "edit")]
    redraw: Option<f64>,
    /// What of that picture is drawn anew: white. All else stays.
    #[arg(long, value_name = "IMAGE", requires = "edit")]
    mask: Option<PathBuf>,
    /// The first stage to run. One of super-resolution enlarges the picture of `--edit`.
    #[arg(long, value_name = "STAGE")]
    first_stage: Option<String>,
    /// The last stage to run.
    #[arg(long, value_name = "STAGE")]
    last_stage: Option<String>,
    /// A preset of the model, as fast.
    #[arg(long)]
    preset: Option<String>,
    /// Steps of a stage, as base=30.
    #[arg(long, value_name = "STAGE=N", value_parser = of_stage::<usize>)]
    steps: Vec<(String, usize)>,
    /// Guidance of a stage, as base=6.0; 1 is none.
    #[arg(long, value_name = "STAGE=SCALE", value_parser = of_stage::<f64>)]
    guidance: Vec<(String, f64)>,
    /// A picture whose style to take.
    #[arg(long, value_name = "IMAGE")]
    style: Option<PathBuf>,
    /// How much of the style, from 0.
    #[arg(long, default_value_t = 1.0, requires = "style")]
    strength: f64,
    /// Leave the end of a prompt that is too long unread.
    #[arg(long)]
    truncate: bool,
    /// Compute on the CPU even if there is a CUDA device.
    #[arg(long)]
    cpu: bool,
    /// Compute in 32 bits even where 16 would be faster.
    #[arg(long)]
    f32: bool,
    /// Keep no more than one expert in memory.
    #[arg(long)]
    relay: bool,
    /// Show which expert ran which step, and how long it took.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let request = request(arguments)?;
    let mut builder = Pipeline::builder(arguments.model.clone().map_or_else(ediffi::icons, Ok)?);
    if arguments.cpu {
        builder = builder.device(DeviceChoice::Cpu);
    }
    if arguments.f32 {
        builder = builder.precision(Precision::F32);
    }
    if arguments.relay {
        builder = builder.residency(Residency::Relay);
    }
    let pipeline = builder.open()?;
    // Pictures of earlier versions do not say what made them.
    if let Some(made) = arguments.again.as_ref().and_then(|picture| Provenance::from_png(picture).ok()) {
        for difference in made.differences(&pipeline.provenance(&request)?) {
            eprintln!("another picture may come out: {difference}");
        }
    }
    let generation = pipeline.generate_with(&request, &mut Bars::default())?;
    for (index, image) in generation.images.iter().enumerate() {
        let path = numbered(&arguments.out, index, generation.images.len());
        image.save(&path)?;
        println!("{}", path.display());
    }
    if arguments.verbose {
        eprintln!("encoders: {:.2} s", generation.encoding.as_secs_f64());
        for stage in &generation.stages {
            eprintln!("{}\n{:.2} s", stage.plan, stage.elapsed.as_secs_f64());
        }
    }
    Ok(())
}

fn request(arguments: &Arguments) -> Result<Request, ediffi::Error> {
    let mut request = match (&arguments.again, &arguments.prompt) {
        (Some(picture), _) => Request::from_png(picture)?,
        (None, prompt) => Request::new(prompt.clone().unwrap_or_default()),
    };
    if let Some(negative) = &arguments.negative {
        request = request.negative_prompt(negative);
    }
    if let Some(style) = &arguments.style {
        request = request.style_with_strength(StyleImage::open(style)?, arguments.strength);
    }
    if let Some((width, height)) = arguments.size {
        request = request.size(width, height);
    }
    if let Some(picture) = &arguments.edit {
        let mut edit = Edit::new(EditPicture::open(picture)?);
        edit.strength = arguments.redraw;
        edit.mask = arguments.mask.as_ref().map(EditPicture::open).transpose()?;
        request = request.edit(edit);
    }
    if let Some(stage) = &arguments.first_stage {
        request = request.first_stage(stage);
    }
    if let Some(stage) = &arguments.last_stage {
        request = request.last_stage(stage);
    }
    if let Some(preset) = &arguments.preset {
        request = request.preset(preset);
    }
    for (stage, steps) in &arguments.steps {
        request = request.steps(stage, *steps);
    }
    for (stage, scale) in &arguments.guidance {
        request = request.guidance(stage, *scale);
    }
    let (seed, images) = (arguments.seed.unwrap_or(request.seed), arguments.images.unwrap_or(request.images));
    let truncate = arguments.truncate || request.truncate;
    Ok(request.seed(seed).images(images).truncate(truncate))
}

/// `out.png` of one image, `out-1.png`, `out-2.png`, ... of several.
fn numbered(path: &Path, index: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ending) = (part(path.file_stem()), part(path.extension()));
    let ending = if ending.is_empty() { ending } else { format!(".{ending}") };
    path.with_file_name(format!("{stem}-{}{ending}", index + 1))
}
