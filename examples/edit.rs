//! Edits a picture in four ways, side by side: the picture of `docs/editing.md`.
//!
//! `cargo run --release --example edit -- --out docs/images/editing.png`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

#[path = "shared/palette.rs"]
mod palette;
#[path = "shared/report.rs"]
mod report;
#[path = "shared/sheet.rs"]
mod sheet;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ediffi::{Edit, EditPicture, Pipeline, Request, RgbImage};
use image::Rgb;
use report::report;
use sheet::Sheet;

/// Pixels of a picture on the sheet, and between two.
const CELL: u32 = 192;
const GAP: u32 = 8;

const PROMPT: &str = "a red apple left of a cat, noto style";
const OTHER: &str = "a red apple left of a mushroom, noto style";

/// Edits a picture in four ways.
#[derive(Parser)]
struct Arguments {
    /// The model folder (default: that of the variable EDIFFI_MODEL, or models/icons).
    #[arg(long)]
    model: Option<PathBuf>,
    /// Where to write.
    #[arg(long, default_value = "editing.png")]
    out: PathBuf,
    /// The seed of every picture.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

fn main() -> ExitCode {
    report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let pipeline = Pipeline::open(arguments.model.clone().map_or_else(ediffi::icons, Ok)?)?;
    let draw = |request: Request| -> Result<RgbImage, Box<dyn Error>> {
        let generation = pipeline.generate(&request.seed(arguments.seed))?;
        Ok(generation.images.first().ok_or("no picture was made")?.rgb().clone())
    };
    let small = |request: Request| draw(request.last_stage("sr256"));
    let edit = |picture: &RgbImage| Ok::<_, ediffi::Error>(Edit::new(EditPicture::new(picture)?));

    let (picture, sketch) = (small(Request::new(PROMPT))?, sketch());
    let mask = RgbImage::from_fn(256, 256, |x, _| Rgb([if x < 128 { 0 } else { 255 }; 3]));
    let inpainted = small(Request::new(OTHER).edit(edit(&picture)?.mask(EditPicture::new(&mask)?)))?;
    let tiny = draw(Request::new(PROMPT).last_stage("base"))?;
    let enlarged = small(Request::new(PROMPT).first_stage("sr256").edit(edit(&tiny)?))?;
    let redrawn = |strength| small(Request::new(PROMPT).edit(edit(&sketch)?.strength(strength)));
    let rows = [
        [
            ("drawn: apple, cat".to_owned(), picture),
            ("mask: white is redrawn".to_owned(), mask),
            ("inpainted: mushroom".to_owned(), inpainted),
            ("64 pixels".to_owned(), tiny),
            ("enlarged to 256".to_owned(), enlarged),
        ],
        [
            ("a sketch".to_owned(), sketch.clone()),
            ("strength 0.4".to_owned(), redrawn(0.4)?),
            ("strength 0.55".to_owned(), redrawn(0.55)?),
            ("strength 0.7".to_owned(), redrawn(0.7)?),
            ("strength 0.85".to_owned(), redrawn(0.85)?),
        ],
    ];
    let place = |index: usize, step: u32| GAP + index as u32 * (step + GAP);
    let mut sheet = Sheet::new(place(5, CELL), place(2, CELL + 24))?;
    for (row, pictures) in rows.iter().enumerate() {
        for (column, (words, picture)) in pictures.iter().enumerate() {
            let (x, y) = (place(column, CELL), place(row, CELL + 24));
            sheet.words(words, (x, y), CELL, 14, [0; 3])?;
            sheet.place(picture, x, y + 24, CELL);
        }
    }
    sheet.save(&arguments.out)?;
    println!("{}", arguments.out.display());
    Ok(())
}

/// A red circle, and an orange one with ears.
fn sketch() -> RgbImage {
    let within =
        |x: u32, y: u32, (cx, cy): (i64, i64), r: i64| (i64::from(x) - cx).pow(2) + (i64::from(y) - cy).pow(2) < r * r;
    RgbImage::from_fn(256, 256, |x, y| {
        if within(x, y, (70, 140), 48) {
            Rgb([210, 40, 40])
        } else if within(x, y, (184, 140), 52) || within(x, y, (150, 92), 22) || within(x, y, (218, 92), 22) {
            Rgb([240, 180, 60])
        } else {
            Rgb([255; 3])
        }
    })
}
