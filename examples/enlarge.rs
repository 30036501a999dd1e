//! Makes pictures larger with a network of Real-ESRGAN, or tells how well it does.
//!
//! ```text
//! cargo run --release --example enlarge -- x4.safetensors small.png large.png
//! cargo run --release --example enlarge -- x4.safetensors --compare icons/*.png
//! ```
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use ediffi::{DeviceChoice, Enlarger, Picture, Precision, Runtime};
use image::RgbImage;
use tch::{Device, Kind, Tensor};

/// Makes pictures larger.
#[derive(Parser)]
struct Arguments {
    /// The network: a safetensors file, see the example `convert_ncnn`.
    network: PathBuf,
    /// A picture and where to write it; with `--compare`, any number of pictures.
    #[arg(required = true, num_args = 1..)]
    pictures: Vec<PathBuf>,
    /// Makes each picture smaller first, and prints how near to the picture the network and a bicubic filter come, in dB.
    #[arg(long)]
    compare: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let runtime = Runtime::new(DeviceChoice::Auto, Precision::F32)?;
    let mut enlarger = Enlarger::open(&arguments.network, runtime)?;
    if !arguments.compare {
        let [from, to] = arguments.pictures.as_slice() else {
            return Err("give a picture and where to write it".into());
        };
        save(&enlarger.enlarge(&read(from)?)?, to)?;
        return Ok(());
    }
    let (mut network, mut bicubic) = (0.0, 0.0);
    for path in &arguments.pictures {
        let scale = enlarger.scale();
        let truth = read(path)?;
        let (_, _, height, width) = truth.size4()?;
        let truth = truth.narrow(2, 0, height / scale * scale).narrow(3, 0, width / scale * scale);
        let (_, _, height, width) = truth.size4()?;
        // The mean of a square of pixels, so that nothing aliases.
        let small = truth.avg_pool2d([scale, scale], [scale, scale], [0, 0], false, true, None);
        let by_network = psnr(&enlarger.enlarge(&small)?.to_device(Device::Cpu), &truth)?;
        let by_filter = psnr(&small.upsample_bicubic2d([height, width], false, None, None).clamp(-1.0, 1.0), &truth)?;
        println!("{}: network {by_network:.2} dB, bicubic {by_filter:.2} dB", path.display());
        network += by_network;
        bicubic += by_filter;
    }
    let count = arguments.pictures.len() as f64;
    println!("mean of {count}: network {:.2} dB, bicubic {:.2} dB", network / count, bicubic / count);
    Ok(())
}

/// Peak signal to noise of pictures in [-1, 1].
fn psnr(a: &Tensor, b: &Tensor) -> Result<f64, Box<dyn Error>> {
    let error = f64::try_from((a - b).square().mean(Kind::Double))?;
    Ok(10.0 * (4.0 / error).log10())
}

/// [1, 3, h, w] in [-1, 1]; what is transparent is white.
fn read(path: &Path) -> Result<Tensor, Box<dyn Error>> {
    let picture = Picture::open(path)?.into_rgb();
    let (width, height) = picture.dimensions();
    let rgb = Tensor::f_from_slice(picture.as_raw())?.f_reshape([i64::from(height), i64::from(width), 3])?;
    Ok(rgb.permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float) / 127.5 - 1.0)
}

fn save(x: &Tensor, path: &Path) -> Result<(), Box<dyn Error>> {
    let (_, _, height, width) = x.size4()?;
    let pixels = ((x + 1.0) * 127.5).round().clamp(0.0, 255.0).to_kind(Kind::Uint8).to_device(Device::Cpu);
    let bytes = Vec::<u8>::try_from(&pixels.squeeze_dim(0).permute([1, 2, 0]).contiguous().view(-1))?;
    let picture = RgbImage::from_raw(u32::try_from(width)?, u32::try_from(height)?, bytes).ok_or("too few pixels")?;
    picture.save(path)?;
    Ok(())
}
