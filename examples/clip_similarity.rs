//! Which caption fits which picture: a table of the similarities that CLIP sees.
//!
//! `cargo run --release --example clip_similarity -- cat.png dog.jpg --caption "a cat" --caption "a dog"`
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use ediffi::{DeviceChoice, Precision, Runtime};
use ediffi_encoders::Clip;
use ediffi_encoders::clip::open_picture;
use tch::Tensor;

/// Compare pictures with captions.
#[derive(Debug, Parser)]
struct Arguments {
    /// PNG or JPEG files.
    #[arg(required = true)]
    pictures: Vec<PathBuf>,
    /// A caption; give as many as you like.
    #[arg(long = "caption", required = true)]
    captions: Vec<String>,
    /// The folder of a CLIP model with both halves (default: that of the model that EDIFFI_MODEL names, or of models/icons).
    #[arg(long)]
    model: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let model = arguments.model.map_or_else(|| ediffi::icons().map(|folder| folder.join("clip")), Ok)?;
    let clip = Clip::open(&model, Runtime::new(DeviceChoice::Auto, Precision::Auto)?)?;
    let captions: Vec<&str> = arguments.captions.iter().map(String::as_str).collect();
    let longest = clip.config().text_config.max_position_embeddings;
    let texts = clip.encode_text(&captions, longest)?;
    for (caption, lost) in captions.iter().zip(&texts.truncated) {
        if let Some(lost) = lost {
            println!("{caption}: does not fit: {lost}\n");
        }
    }
    let pictures = arguments.pictures.iter().map(|path| open_picture(path)).collect::<Result<Vec<_>, _>>()?;
    let pictures = unit(&clip.encode_image(&pictures)?)?;
    let similarities = pictures.f_matmul(&unit(&texts.pooled)?.f_transpose(0, 1)?)?;

    println!("| picture | {} |", captions.join(" | "));
    println!("|---|{}", "---|".repeat(captions.len()));
    for (row, path) in arguments.pictures.iter().enumerate() {
        let row = Vec::<f32>::try_from(&similarities.f_select(0, row as i64)?)?;
        let cells: Vec<String> = row.iter().map(|similarity| format!("{similarity:.3}")).collect();
        println!("| {} | {} |", path.display(), cells.join(" | "));
    }
    Ok(())
}

/// Embeddings of length one.
///
/// # Shapes
/// [n, width] → the same
fn unit(embeddings: &Tensor) -> Result<Tensor, tch::TchError> {
    embeddings.f_div(&embeddings.f_norm_scalaropt_dim(2.0, [-1_i64], true)?)
}
