//! Makes a safetensors file of a Real-ESRGAN network in ncnn's format, which is how its weights are found in packages.
//!
//! `cargo run --release --example convert_ncnn -- realesr-animevideov3-x4.param realesr-animevideov3-x4.bin x4.safetensors`
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use ediffi_core::weights;
use tch::{Kind, Tensor};

/// Converts a Real-ESRGAN network from ncnn's format to safetensors.
#[derive(Parser)]
struct Arguments {
    /// The layers.
    param: PathBuf,
    /// Their weights.
    bin: PathBuf,
    /// Where to write.
    out: PathBuf,
}

/// Slope of the leaky ReLU of an `RRDBNet`, as ncnn writes it.
const LEAK: &str = "-23310=1,2.000000e-01";

/// What ncnn puts before weights of 16 bits.
const HALF: u32 = 0x0130_6B47;

/// The text of a `.param` begins with this number.
const MAGIC: &str = "7767517";

/// A layer that has weights.
enum Layer {
    Convolution { outputs: i64, kernel: i64, weights: i64 },
    Slopes(i64),
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let layers = layers(&fs::read_to_string(&arguments.param)?)?;
    let bytes = fs::read(&arguments.bin)?;
    let mut rest = bytes.as_slice();
    let compact = layers.iter().any(|layer| matches!(layer, Layer::Slopes(_)));
    let convolutions = layers.iter().filter(|layer| matches!(layer, Layer::Convolution { .. })).count();
    let mut named = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let name = if compact { format!("body.{index}") } else { dense_name(index, convolutions)? };
        match *layer {
            Layer::Convolution { outputs, kernel, weights } => {
                let inputs = weights / (outputs * kernel * kernel);
                let weight = take_weights(&mut rest, weights)?.f_reshape([outputs, inputs, kernel, kernel])?;
                named.push((format!("{name}.weight"), weight.f_to_kind(Kind::Half)?));
                named.push((format!("{name}.bias"), take_floats(&mut rest, outputs)?));
            }
            Layer::Slopes(count) => named.push((format!("{name}.weight"), take_floats(&mut rest, count)?)),
        }
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes of {} are left over", rest.len(), arguments.bin.display()).into());
    }
    weights::save(&arguments.out, &named, HashMap::new())?;
    println!("{}: {} tensors", arguments.out.display(), named.len());
    Ok(())
}

/// The layers with weights, in the order in which the weights are stored.
fn layers(text: &str) -> Result<Vec<Layer>, Box<dyn Error>> {
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some(MAGIC) {
        return Err(format!("no .param of ncnn: it does not begin with {MAGIC}").into());
    }
    let mut layers = Vec::new();
    for line in lines.skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // `0=64` says that parameter 0 is 64; parameters come after the names of the inputs and outputs.
        let parameter = |key: i64| {
            let found = words.iter().filter_map(|word| word.split_once('=')).find(|(k, _)| k.parse() == Ok(key));
            found.and_then(|(_, value)| value.parse::<i64>().ok()).ok_or(format!("parameter {key} is missing: {line}"))
        };
        match words.first() {
            // Parameter 9 is a nonlinearity in the same layer: none, or a leaky ReLU.
            Some(&"Convolution")
                if parameter(5)? == 1 && (parameter(9).is_err() || parameter(9)? == 2 && words.contains(&LEAK)) =>
            {
                let (outputs, kernel, weights) = (parameter(0)?, parameter(1)?, parameter(6)?);
                layers.push(Layer::Convolution { outputs, kernel, weights });
            }
            // Only pixels that are repeated a whole number of times are part of the network.
            Some(&"Interp") if parameter(0)? != 1 => {
                return Err(
                    format!("the network's picture is made smaller again, convert the one for x4: {line}").into()
                );
            }
            Some(&"PReLU") => layers.push(Layer::Slopes(parameter(0)?)),
            Some(&("Convolution" | "InnerProduct" | "BatchNorm" | "Deconvolution" | "ConvolutionDepthWise")) => {
                return Err(format!("no network of Real-ESRGAN: {line}").into());
            }
            _ => {}
        }
    }
    Ok(layers)
}

/// The name of convolution `index` of an `RRDBNet`: blocks of three parts of five stand between the first and the last five.
fn dense_name(index: usize, convolutions: usize) -> Result<String, Box<dyn Error>> {
    let blocks = convolutions.checked_sub(6).filter(|inner| inner % 15 == 0).ok_or("no network of Real-ESRGAN")?;
    Ok(match index.checked_sub(1) {
        None => "conv_first".to_owned(),
        Some(i) if i < blocks => format!("body.{}.rdb{}.conv{}", i / 15, i / 5 % 3 + 1, i % 5 + 1),
        Some(i) => {
            let last = ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"];
            last.get(i - blocks).ok_or("no network of Real-ESRGAN")?.to_string()
        }
    })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Box<dyn Error>> {
    let (taken, left) = rest.split_at_checked(count).ok_or("the weights end too soon")?;
    *rest = left;
    Ok(taken)
}

fn take_floats(rest: &mut &[u8], count: i64) -> Result<Tensor, Box<dyn Error>> {
    Ok(Tensor::f_from_data_size(take(rest, 4 * usize::try_from(count)?)?, &[count], Kind::Float)?)
}

/// Weights with their tag: of 16 bits, filled up to a multiple of four bytes, or of 32.
fn take_weights(rest: &mut &[u8], count: i64) -> Result<Tensor, Box<dyn Error>> {
    let tag = take(rest, 4)?;
    match u32::from_le_bytes(tag.try_into()?) {
        HALF => {
            let bytes = 2 * usize::try_from(count)?;
            let taken = take(rest, bytes.next_multiple_of(4))?;
            Ok(Tensor::f_from_data_size(taken.get(..bytes).unwrap_or_default(), &[count], Kind::Half)?)
        }
        0 => take_floats(rest, count),
        other => Err(format!("weights are stored in a way that is not known: {other:#x}").into()),
    }
}
