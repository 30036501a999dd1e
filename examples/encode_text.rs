//! Prompts to embeddings in a safetensors file, with the tokens of each prompt and how near the prompts are to each other.
//!
//! `cargo run --release --example encode_text -- "a red apple" "a green pear" --model models/icons/clip --encoder clip`
//!
//! A second run with the same prompts and the same model reads the file and loads no network.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use ediffi::{DeviceChoice, Precision, Runtime};
use ediffi_encoders::{ClipText, Encoded, EncodedClip, Padding, T5};
use tch::{Kind, Tensor};

/// Encode prompts.
#[derive(Debug, Parser)]
struct Arguments {
    /// The prompts.
    #[arg(required = true)]
    prompts: Vec<String>,
    /// The folder of the encoder (default: that of the model that EDIFFI_MODEL names, or of models/icons).
    #[arg(long)]
    model: Option<PathBuf>,
    /// Which encoder the folder holds.
    #[arg(long, default_value = "t5")]
    encoder: Encoder,
    /// Columns that each prompt is cut or filled up to.
    #[arg(long, default_value_t = 32)]
    tokens: i64,
    /// Where the embeddings are kept.
    #[arg(long, default_value = "encoded.safetensors")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Encoder {
    T5,
    Clip,
}

/// What is printed of either encoder's embeddings.
struct Shown {
    encoded: Encoded,
    /// [prompts, width]: one embedding a prompt.
    whole: Tensor,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let runtime = Runtime::new(DeviceChoice::Auto, Precision::Auto)?;
    let prompts: Vec<&str> = arguments.prompts.iter().map(String::as_str).collect();
    let model = |encoder: &str| {
        let shipped = || ediffi::icons().map(|folder| folder.join(encoder));
        arguments.model.clone().map_or_else(shipped, Ok)
    };
    let shown = match arguments.encoder {
        Encoder::T5 => t5(&arguments, &model("t5")?, &prompts, runtime)?,
        Encoder::Clip => clip(&arguments, &model("clip")?, &prompts, runtime)?,
    };
    print_tokens(&shown.encoded, &prompts);
    print_similarities(&shown.whole, &prompts)
}

/// T5 has no embedding of a whole text; the mean of its tokens stands for one.
fn t5(arguments: &Arguments, folder: &Path, prompts: &[&str], runtime: Runtime) -> Result<Shown, Box<dyn Error>> {
    let model = T5::fingerprint(folder, None)?;
    // A file that is there but holds something else is an error: it may be anything.
    let kept = arguments.out.is_file().then(|| Encoded::load(&arguments.out, &model, Padding::Zeros)).transpose()?;
    let encoded = match kept.filter(|(texts, _)| texts == prompts) {
        Some((_, encoded)) if encoded.mask.size().get(1) == Some(&arguments.tokens) => encoded,
        _ => {
            let encoded = T5::open(folder, runtime)?.encode(prompts, arguments.tokens)?;
            encoded.save(&arguments.out, &model, prompts)?;
            encoded
        }
    };
    let lengths = encoded.mask.f_sum_dim_intlist(-1, true, Kind::Float)?;
    let whole = encoded.tokens.f_sum_dim_intlist(1, false, Kind::Float)?.f_div(&lengths)?;
    Ok(Shown { encoded, whole })
}

fn clip(arguments: &Arguments, folder: &Path, prompts: &[&str], runtime: Runtime) -> Result<Shown, Box<dyn Error>> {
    let model = ClipText::fingerprint(folder, None)?;
    let kept = arguments.out.is_file().then(|| EncodedClip::load(&arguments.out, &model)).transpose()?;
    let encoded = match kept.filter(|(texts, _)| texts == prompts) {
        Some((_, encoded)) if encoded.mask.size().get(1) == Some(&arguments.tokens) => encoded,
        _ => {
            let encoded = ClipText::open(folder, runtime)?.encode(prompts, arguments.tokens)?;
            encoded.save(&arguments.out, &model, prompts)?;
            encoded
        }
    };
    let EncodedClip { tokens, pooled, mask, spans, truncated, .. } = encoded;
    Ok(Shown { encoded: Encoded { tokens, padding: Padding::Zeros, mask, spans, truncated }, whole: pooled })
}

/// The characters of each prompt that each column stands for.
fn print_tokens(encoded: &Encoded, prompts: &[&str]) {
    for ((prompt, spans), truncated) in prompts.iter().zip(&encoded.spans).zip(&encoded.truncated) {
        println!("{prompt}");
        for (column, span) in spans.iter().enumerate() {
            let Some(span) = span else { continue };
            let words: String = prompt.chars().skip(span.start).take(span.len()).collect();
            println!("  column {column:3}  characters {:3}..{:<3}  {words}", span.start, span.end);
        }
        if let Some(lost) = truncated {
            println!("  does not fit: {lost}");
        }
    }
}

/// The cosine of the angle between every two prompts.
fn print_similarities(whole: &Tensor, prompts: &[&str]) -> Result<(), Box<dyn Error>> {
    let norms = whole.f_norm_scalaropt_dim(2.0, [-1_i64], true)?;
    let units = whole.f_div(&norms)?;
    let similarities = units.f_matmul(&units.f_transpose(0, 1)?)?;
    println!("\nsimilarities");
    for (row, prompt) in prompts.iter().enumerate() {
        let row = Vec::<f32>::try_from(&similarities.f_select(0, row as i64)?)?;
        let cells: Vec<String> = row.iter().map(|similarity| format!("{similarity:6.3}")).collect();
        println!("{}  {prompt}", cells.join(" "));
    }
    Ok(())
}
