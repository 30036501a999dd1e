//! Style from reference pictures: a grid with a row for each prompt, and a column for each reference beside one without.
//!
//! ```sh
//! cargo run --release --example style -- --prompt "a cat" --prompt "a tree" \
//!     examples/style/noto.png examples/style/flat.png examples/style/ink.png --out grid.png
//! ```
//!
//! A reference is a picture, or the embedding of one that `--keep FOLDER` wrote in an earlier run. `--mean` adds a column
//! for the mean of all references.
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
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bars::Bars;
use clap::Parser;
use ediffi::{Pipeline, Request, Style, StyleEmbedding, StyleImage, StyleSource};
use image::RgbImage;
use report::report;
use sheet::Sheet;

/// Side of a picture on the grid, and the space between.
const CELL: u32 = 144;
const GAP: u32 = 8;

/// Draw prompts in the styles of pictures.
#[derive(Debug, Parser)]
struct Arguments {
    /// Pictures, or embeddings of them (`.safetensors`).
    #[arg(required = true)]
    references: Vec<PathBuf>,
    /// What to draw; can be given several times.
    #[arg(long, required = true)]
    prompt: Vec<String>,
    /// The model folder (default: that of the variable EDIFFI_MODEL, or models/icons).
    #[arg(long)]
    model: Option<PathBuf>,
    /// Where the grid goes.
    #[arg(long, default_value = "grid.png")]
    out: PathBuf,
    /// How much of the style to take: 0 none, 1 as the model was trained to.
    #[arg(long, default_value_t = 1.0)]
    strength: f64,
    /// Add a column for the mean of all references.
    #[arg(long)]
    mean: bool,
    /// Write the embedding of each reference into this folder.
    #[arg(long)]
    keep: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop after this stage.
    #[arg(long)]
    last_stage: Option<String>,
}

/// A column of the grid.
struct Column {
    name: String,
    picture: Option<RgbImage>,
    style: Option<Style>,
}

fn main() -> ExitCode {
    report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let pipeline = Pipeline::open(arguments.model.clone().map_or_else(ediffi::icons, Ok)?)?;
    let columns = columns(&pipeline, arguments)?;
    let request = |prompt: &String, style: Option<&Style>| {
        let mut request = Request::new(prompt).seed(arguments.seed);
        if let Some(style) = style {
            request = request.style_with_strength(style.clone(), arguments.strength);
        }
        match &arguments.last_stage {
            Some(stage) => request.last_stage(stage),
            None => request,
        }
    };
    // All that is wrong is said before anything is drawn.
    for prompt in &arguments.prompt {
        columns.iter().try_for_each(|column| pipeline.validate(&request(prompt, column.style.as_ref())))?;
    }
    let place = |index: usize| GAP + index as u32 * (CELL + GAP);
    let (across, down) = (place(columns.len() + 1), place(arguments.prompt.len() + 1));
    let mut sheet = Sheet::new(across, down + 3 * GAP)?;
    for (index, column) in columns.iter().enumerate() {
        sheet.words(&column.name, (place(index + 1), GAP), CELL, 14, [90; 3])?;
        if let Some(picture) = &column.picture {
            sheet.place(picture, place(index + 1), 4 * GAP, CELL - GAP);
        }
    }
    for (row, prompt) in arguments.prompt.iter().enumerate() {
        let top = place(row + 1) + 3 * GAP;
        sheet.words(prompt, (GAP, top + CELL / 3), CELL - GAP, 14, [0; 3])?;
        for (index, column) in columns.iter().enumerate() {
            let generation = pipeline.generate_with(&request(prompt, column.style.as_ref()), &mut Bars::default())?;
            let image = generation.images.first().ok_or("no picture was made")?;
            sheet.place(image.rgb(), place(index + 1), top, CELL);
        }
    }
    sheet.save(&arguments.out)?;
    println!("{}", arguments.out.display());
    Ok(())
}

fn columns(pipeline: &Pipeline, arguments: &Arguments) -> Result<Vec<Column>, Box<dyn Error>> {
    let mut columns = vec![Column { name: "no reference".to_owned(), picture: None, style: None }];
    for path in &arguments.references {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (source, picture) = reference(path)?;
        if let Some(folder) = &arguments.keep {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            let kept = folder.join(format!("{name}.safetensors"));
            pipeline.encode_style(source.clone())?.save(&kept)?;
            println!("{}", kept.display());
        }
        columns.push(Column { name, picture, style: Some(source.into()) });
    }
    if arguments.mean {
        let all = columns.iter().filter_map(|column| column.style.as_ref()?.references.first());
        let style = Style::mean(all.map(|reference| (reference.source.clone(), 1.0)));
        columns.push(Column { name: "mean of all".to_owned(), picture: None, style: Some(style) });
    }
    Ok(columns)
}

/// A reference, and the picture if it is one.
fn reference(path: &Path) -> Result<(StyleSource, Option<RgbImage>), Box<dyn Error>> {
    if path.extension().is_some_and(|ending| ending == "safetensors") {
        return Ok((StyleEmbedding::load(path)?.into(), None));
    }
    let image = StyleImage::open(path)?;
    let picture = image.pixels()?;
    Ok((image.into(), Some(picture)))
}
