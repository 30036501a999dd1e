//! Paint-with-words: a picture of coloured regions and a small JSON file that says which colour is which phrase become a
//! picture, and an overlay that shows the regions, the tokens they took, and the result side by side.
//!
//! ```sh
//! cargo run --release --example paint -- examples/paint/canvas.png examples/paint/regions.json --overlay overlay.png
//! ```
//!
//! The JSON file:
//!
//! ```json
//! {
//!   "prompt": "a red apple and a cat",
//!   "palette": { "entries": [
//!     { "colour": [214, 60, 60], "phrase": "red apple" },
//!     { "colour": [60, 90, 214], "phrase": "cat", "weight": 1.5, "sigma": [1.0, null] } ] },
//!   "strength": { "weight": 0.8 }
//! }
//! ```
//!
//! `weight`, `occurrence` (`{"nth": 2}`, `{"span": {"start": 0, "end": 5}}`), `sigma`, `strength`, and the palette's
//! `background` (white) and `tolerance` may be left out.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

#[path = "shared/bars.rs"]
mod bars;
#[path = "shared/report.rs"]
mod report;
#[path = "shared/sheet.rs"]
mod sheet;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bars::Bars;
use clap::Parser;
use ediffi::{Binding, Canvas, ColourReading, Palette, Pipeline, Request, Strength, region_colour};
use image::{Rgb, RgbImage};
use report::report;
use serde::Deserialize;
use sheet::Sheet;

/// Side of a picture on the overlay, and the space between.
const PANEL: u32 = 256;
const GAP: u32 = 12;

/// Draw what is painted.
#[derive(Debug, Parser)]
struct Arguments {
    /// A picture in which each region has a colour of its own, on white.
    canvas: PathBuf,
    /// Which colour is which phrase, in JSON.
    regions: PathBuf,
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    model: PathBuf,
    /// Where the picture goes.
    #[arg(long, default_value = "out.png")]
    out: PathBuf,
    /// Where the overlay goes, if there shall be one.
    #[arg(long)]
    overlay: Option<PathBuf>,
    /// Show on the overlay what the same request draws without paint, too.
    #[arg(long, requires = "overlay")]
    unpainted: bool,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How strongly the paint acts (w' of the paper), in place of what the JSON file says.
    #[arg(long)]
    weight: Option<f64>,
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
    let (canvas, prompt) = read(arguments)?;
    let mut plain = Request::new(prompt).seed(arguments.seed);
    if let Some(stage) = &arguments.last_stage {
        plain = plain.last_stage(stage);
    }
    let request = plain.clone().canvas(canvas.clone());
    let pipeline = Pipeline::open(&arguments.model)?;
    let bindings = pipeline.bindings(&request)?;
    for binding in &bindings {
        println!("{}: {}", binding.phrase, tokens(binding).join("; "));
    }
    let draw = |request: &Request| -> Result<RgbImage, Box<dyn Error>> {
        let generation = pipeline.generate_with(request, &mut Bars::default())?;
        let image = generation.images.first().ok_or("no picture was made")?;
        if request.canvas.is_some() {
            image.save(&arguments.out)?;
            println!("{}", arguments.out.display());
        }
        Ok(image.rgb().clone())
    };
    let painted = draw(&request)?;
    if let Some(path) = &arguments.overlay {
        let unpainted = if arguments.unpainted { Some(draw(&plain)?) } else { None };
        overlay(&request.prompt, &canvas, &bindings, &painted, unpainted.as_ref())?.save(path)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The canvas and the prompt. What of the picture could not be read is said.
fn read(arguments: &Arguments) -> Result<(Canvas, String), Box<dyn Error>> {
    let named = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let (canvas, regions) = (&arguments.canvas, &arguments.regions);
    let text = std::fs::read_to_string(regions).map_err(|error| named(regions, &error))?;
    let Regions { prompt, palette, mut strength } =
        serde_json::from_str(&text).map_err(|error| named(regions, &error))?;
    let picture = image::open(canvas).map_err(|error| named(canvas, &error))?.into_rgb8();
    let ColourReading { canvas: painted, unmatched, stray } =
        Canvas::from_colours(&picture, &palette).map_err(|error| named(canvas, &error))?;
    let hex = |[red, green, blue]: [u8; 3]| format!("#{red:02x}{green:02x}{blue:02x}");
    if unmatched.pixels > 0 {
        eprintln!("{}: {} pixels are near no colour of the palette:", canvas.display(), unmatched.pixels);
    }
    for colour in &unmatched.colours {
        eprintln!("  {} {} times, first at {:?}", hex(colour.colour), colour.pixels, colour.first);
    }
    for stray in &stray {
        eprintln!("  {} single pixels of `{}`, first at {:?}", stray.pixels, stray.phrase, stray.places.first());
    }
    if let Some(weight) = arguments.weight {
        strength.weight = weight;
    }
    Ok((painted.with_strength(strength).map_err(|error| named(regions, &error))?, prompt))
}

/// What a region took from each encoder: `t5 2 to 4 (red, app, le)`.
fn tokens(binding: &Binding) -> Vec<String> {
    let of = |bound: &ediffi::BoundTokens| {
        let numbers = bound.tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let pieces = bound.pieces.join(" · ");
        if numbers.is_empty() {
            format!("{}: cut off", bound.encoder)
        } else {
            format!("{} {numbers}: {pieces}", bound.encoder)
        }
    };
    binding.encoders.iter().map(of).collect()
}

fn overlay(
    prompt: &str,
    canvas: &Canvas,
    bindings: &[Binding],
    painted: &RgbImage,
    unpainted: Option<&RgbImage>,
) -> Result<Sheet, Box<dyn Error>> {
    const BLACK: [u8; 3] = [0; 3];
    let columns = 3 + u32::from(unpainted.is_some());
    let left = |column: u32| GAP + column * (PANEL + GAP);
    let mut sheet = Sheet::new(left(columns), PANEL + 6 * GAP)?;
    sheet.words(prompt, (GAP, GAP / 2), columns * PANEL, 16, BLACK)?;
    let top = 3 * GAP;
    sheet.place(&canvas.preview(), left(0), top, PANEL);
    let mut line = top;
    for (index, binding) in bindings.iter().enumerate() {
        let swatch = RgbImage::from_pixel(GAP, GAP, Rgb(region_colour(index)));
        sheet.place(&swatch, left(1), line + 3, GAP);
        line = sheet.words(&binding.phrase, (left(1) + 18, line), PANEL - 18, 15, BLACK)?;
        for tokens in tokens(binding) {
            line = sheet.words(&tokens, (left(1) + 18, line), PANEL - 18, 12, [90; 3])?;
        }
        line += GAP / 2;
    }
    sheet.place(&outlined(canvas, painted), left(2), top, PANEL);
    if let Some(unpainted) = unpainted {
        sheet.place(unpainted, left(3), top, PANEL);
    }
    let captions = ["canvas", "tokens", "with paint", "the same seed without"];
    for (column, caption) in (0..columns).zip(captions) {
        sheet.words(caption, (left(column), top + PANEL + 4), PANEL, 14, [90; 3])?;
    }
    Ok(sheet)
}

/// The picture at the overlay's size, with the edges of the regions in their colours.
fn outlined(canvas: &Canvas, picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longest = width.max(height).max(1);
    let (width, height) = ((width * PANEL / longest).max(1), (height * PANEL / longest).max(1));
    let mut out = image::imageops::resize(picture, width, height, image::imageops::FilterType::Triangle);
    for (index, region) in canvas.regions().iter().enumerate() {
        let inside = |x: u32, y: u32| {
            let (column, row) = (x * canvas.width() / width, y * canvas.height() / height);
            let place = row as usize * canvas.width() as usize + column as usize;
            region.mask.levels().get(place).is_some_and(|&level| level >= 128)
        };
        // Two pixels wide, so that it is seen.
        let edge = |x: u32, y: u32| {
            let near = |at: u32, end: u32| [at.saturating_sub(2), at, (at + 2).min(end - 1)];
            inside(x, y) && near(x, width).iter().any(|&x| near(y, height).iter().any(|&y| !inside(x, y)))
        };
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).filter(|&(x, y)| edge(x, y)) {
            out.put_pixel(x, y, Rgb(region_colour(index)));
        }
    }
    out
}
