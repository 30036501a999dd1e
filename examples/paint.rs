//! Paint-with-words: a picture of coloured regions and a small JSON file that says which colour is which phrase become a
//! picture, and an overlay that shows the regions, the tokens they took, and the result side by side.
//!
//! ```sh
//! cargo run --release --example paint -- examples/paint/canvas.png examples/paint/regions.json --overlay overlay.png
//! ```
//!
//! `regions.json` is an example of that file. An entry may also have a `weight`, an `occurrence` (`{"nth": 2}`,
//! `{"span": {"start": 0, "end": 5}}`) and a range of noise levels, `"sigma": [1.0, null]`; the palette a `background` and a `tolerance`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

#[path = "shared/bars.rs"]
mod bars;
#[path = "shared/palette.rs"]
mod palette;
#[path = "shared/report.rs"]
mod report;
#[path = "shared/sheet.rs"]
mod sheet;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use bars::Bars;
use clap::Parser;
use ediffi::{
    Binding, Canvas, ColourReading, GeneratedImage, Palette, Picture, Pipeline, Request, Strength, region_colour,
};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use report::report;
use serde::Deserialize;
use sheet::Sheet;

/// Side of a picture on the overlay, and the space between, in pixels.
const PANEL: u32 = 256;
const GAP: u32 = 12;

/// Draw what is painted.
#[derive(Debug, Parser)]
struct Arguments {
    /// A picture in which each region has a colour of its own, on white or on nothing.
    canvas: PathBuf,
    /// Which colour is which phrase, in JSON.
    regions: PathBuf,
    /// The model folder (default: that of the variable EDIFFI_MODEL, or models/icons).
    #[arg(long)]
    model: Option<PathBuf>,
    /// Where the picture goes.
    #[arg(long, default_value = "out.png")]
    out: PathBuf,
    /// Where the overlay goes: canvas, tokens, the picture, and the same seed without paint.
    #[arg(long)]
    overlay: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop after this stage.
    #[arg(long)]
    last_stage: Option<String>,
}

/// What the JSON file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Regions {
    prompt: String,
    palette: Palette,
    #[serde(default)]
    strength: Strength,
}

fn main() -> ExitCode {
    report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Regions { prompt, palette, strength } = serde_json::from_str(&std::fs::read_to_string(&arguments.regions)?)?;
    let ColourReading { canvas, unmatched, .. } =
        Canvas::from_transparent(&Picture::open(&arguments.canvas)?.into_rgba(), &palette)?;
    for colour in &unmatched.colours {
        eprintln!("{:?} is near no colour of the palette: {} pixels", colour.colour, colour.pixels);
    }
    let canvas = canvas.with_strength(strength)?;
    let mut plain = Request::new(prompt).seed(arguments.seed);
    if let Some(stage) = &arguments.last_stage {
        plain = plain.last_stage(stage);
    }
    let request = plain.clone().canvas(canvas.clone());
    let pipeline = Pipeline::open(arguments.model.clone().map_or_else(ediffi::icons, Ok)?)?;
    let bindings = pipeline.bindings(&request)?;
    for binding in &bindings {
        println!("{}: {}", binding.phrase, tokens(binding).join("; "));
    }
    let draw = |request: &Request| -> Result<GeneratedImage, Box<dyn Error>> {
        let generation = pipeline.generate_with(request, &mut Bars::default())?;
        Ok(generation.images.into_iter().next().ok_or("no picture was made")?)
    };
    let painted = draw(&request)?;
    painted.save(&arguments.out)?;
    println!("{}", arguments.out.display());
    if let Some(path) = &arguments.overlay {
        overlay(&canvas, &bindings, [painted.rgb(), draw(&plain)?.rgb()])?.save(path)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// What a region took from each encoder: `t5 2, 3: red · apple`.
fn tokens(binding: &Binding) -> Vec<String> {
    let of = |bound: &ediffi::BoundTokens| {
        let numbers = bound.tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let pieces = if numbers.is_empty() { "cut off".to_owned() } else { bound.pieces.join(" · ") };
        format!("{} {numbers}: {pieces}", bound.encoder)
    };
    binding.encoders.iter().map(of).collect()
}

fn overlay(canvas: &Canvas, bindings: &[Binding], pictures: [&RgbImage; 2]) -> Result<Sheet, Box<dyn Error>> {
    let [painted, unpainted] = pictures;
    let left = |column: u32| GAP + column * (PANEL + GAP);
    let mut sheet = Sheet::new(left(4), PANEL + 4 * GAP)?;
    sheet.place(&canvas.preview(), left(0), GAP, PANEL);
    let mut line = GAP;
    for (index, binding) in bindings.iter().enumerate() {
        sheet.place(&RgbImage::from_pixel(1, 1, Rgb(region_colour(index))), left(1), line + 3, GAP);
        line = sheet.words(&binding.phrase, (left(1) + 18, line), PANEL - 18, 15, [0; 3])?;
        for tokens in tokens(binding) {
            line = sheet.words(&tokens, (left(1) + 18, line), PANEL - 18, 12, [90; 3])?;
        }
        line += GAP / 2;
    }
    sheet.place(&outlined(canvas, painted), left(2), GAP, PANEL);
    sheet.place(unpainted, left(3), GAP, PANEL);
    for (column, caption) in (0..).zip(["canvas", "tokens", "with paint", "the same seed without"]) {
        sheet.words(caption, (left(column), PANEL + GAP + 4), PANEL, 14, [90; 3])?;
    }
    Ok(sheet)
}

/// The picture with the edges of the regions in their colours.
fn outlined(canvas: &Canvas, picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let scaled = |side: u32| (side * PANEL / width.max(height)).max(1);
    let mut out = resize(picture, scaled(width), scaled(height), FilterType::Triangle);
    let regions = resize(&canvas.preview(), out.width(), out.height(), FilterType::Nearest);
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        let (here, near) = (regions.get_pixel(x, y), regions.get_pixel(x.saturating_sub(2), y.saturating_sub(2)));
        if here != near {
            *pixel = if *here == Rgb([u8::MAX; 3]) { *near } else { *here };
        }
    }
    out
}
