//! Draws the contact sheet of `docs/gallery.md`: a fixed list of 24 prompts, seed 1, the model's own settings.
//!
//! `cargo run --release --example gallery` writes `docs/images/gallery.png` and prints the table of the page.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

#[path = "shared/palette.rs"]
mod palette;

use std::path::PathBuf;

use clap::Parser;
use ediffi::{Pipeline, Request};
use ediffi_core::files::write_with_folders;
use image::imageops::FilterType;
use image::{Rgb, RgbImage};
use palette::indexed;

/// Objects, styles, backgrounds, counts and two-object relations, in this order.
const PROMPTS: [&str; 24] = [
    "a red apple",
    "a cat",
    "a dog, noto style",
    "a star, flat style",
    "a fish, ink style",
    "a house, noto style",
    "a tree, flat style",
    "a heart, ink style",
    "a mushroom, noto style",
    "a car, flat style",
    "an umbrella, ink style",
    "a yellow banana, flat style",
    "a sun on a blue background",
    "a cat on a yellow background, noto style",
    "a rocket on a white background, flat style",
    "a bell on a green background, ink style",
    "a sunflower on a striped background",
    "a key, noto style",
    "a strawberry, flat style",
    "two stars",
    "three apples, flat style",
    "a cat left of a dog",
    "an apple above a fish, noto style",
    "a tree next to a house, flat style",
];

/// Draw the gallery.
#[derive(Debug, Parser)]
struct Arguments {
    /// The model folder (default: that of the variable EDIFFI_MODEL, or models/icons).
    #[arg(long)]
    model: Option<PathBuf>,
    /// Where the sheet goes.
    #[arg(long, default_value = "docs/images/gallery.png")]
    out: PathBuf,
    /// Seed of every picture.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Side of a picture on the sheet.
    #[arg(long, default_value_t = 144)]
    side: u32,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let pipeline = Pipeline::open(arguments.model.clone().map_or_else(ediffi::icons, Ok)?)?;
    let (side, columns) = (arguments.side, 6);
    let rows = (PROMPTS.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(columns * (side + 4) + 4, rows * (side + 4) + 4, Rgb([128, 128, 128]));
    println!("| row, column | prompt | seconds |\n|---|---|---|");
    for (place, prompt) in (0_u32..).zip(PROMPTS) {
        let generation = pipeline.generate(&Request::new(prompt).seed(arguments.seed))?;
        let (row, column) = (place / columns, place % columns);
        if let Some(picture) = generation.images.first() {
            let small = image::imageops::resize(picture.rgb(), side, side, FilterType::Triangle);
            let corner = (i64::from(4 + column * (side + 4)), i64::from(4 + row * (side + 4)));
            image::imageops::replace(&mut sheet, &small, corner.0, corner.1);
        }
        let seconds: f64 = generation.stages.iter().map(|stage| stage.elapsed.as_secs_f64()).sum();
        println!("| {}, {} | {prompt} | {seconds:.1} |", row + 1, column + 1);
    }
    write_with_folders(&arguments.out, &indexed(&sheet)?)?;
    println!("{}", arguments.out.display());
    Ok(())
}
