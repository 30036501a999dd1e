//! How fast are JPEG files decoded on one core, and how fast are batches of them made?
//!
//! ```text
//! cargo run --release -p ediffi-data --example decode [SIDE [QUALITY [FOLDER]]]
//! ```
//! Renders photograph-like pictures (SIDE × SIDE, 1024 without), writes them as JPEG (of quality 90 without), and prints MB (10⁶ bytes) a second of
//! files and of RGB pixels. With FOLDER the files stay there, for `decode_pillow.py FOLDER`, which reads them by Pillow.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ediffi_data::{Folder, Loader, LoaderSettings};
use ediffi_train::batch::BatchSource;
use ediffi_train::dataset::Dataset;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

/// Pictures, and how often each is decoded.
const PICTURES: u32 = 8;
const TURNS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let given = |place| std::env::args().nth(place);
    let side: u32 = given(1).map_or(Ok(1024), |side| side.parse())?;
    let quality: u8 = given(2).map_or(Ok(90), |quality| quality.parse())?;
    let temporary = tempfile::tempdir()?;
    let folder = given(3).map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    fs::create_dir_all(&folder)?;
    let mut files = 0;
    for number in 0..PICTURES {
        let path = folder.join(format!("{number}.jpg"));
        let mut file = BufWriter::new(File::create(&path)?);
        JpegEncoder::new_with_quality(&mut file, quality).encode_image(&render(number, side))?;
        file.into_inner()?.sync_all()?;
        files += fs::metadata(&path)?.len();
        fs::write(path.with_extension("txt"), "rendered")?;
    }
    let data = Folder::open(&folder)?;
    let begin = Instant::now();
    let mut pixels = 0;
    for index in (0..data.len()).cycle().take(data.len() * TURNS) {
        pixels += data.sample(index)?.pixels.len();
    }
    let seconds = begin.elapsed().as_secs_f64();
    let rate = |bytes: f64, seconds: f64| bytes / seconds / 1e6;
    let read = (files * TURNS as u64) as f64;
    println!("{side}x{side}, {:.2} bits a pixel", files as f64 * 8.0 / f64::from(PICTURES) / f64::from(side * side));
    println!(
        "decoded on one core: {:.1} MB/s of JPEG, {:.1} MB/s of pixels",
        rate(read, seconds),
        rate(pixels as f64, seconds)
    );

    let settings = LoaderSettings {
        batch: PICTURES as usize,
        side: side.div_ceil(4),
        random_crop: true,
        threads: 1,
        ..LoaderSettings::default()
    };
    let loader = Loader::new(Arc::new(data), settings)?;
    let begin = Instant::now();
    (0..TURNS as u64).try_for_each(|number| loader.batch(number).map(drop))?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("with resizing to a quarter, cutting and batching: {:.1} MB/s of JPEG", rate(read, seconds));
    Ok(())
}

/// Smooth waves and a texture that grows to one side: about the bits a pixel of a photograph.
fn render(number: u32, side: u32) -> RgbImage {
    let mut state = number.wrapping_mul(0x9e37_79b9) | 1;
    RgbImage::from_fn(side, side, |x, y| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let grain = (f64::from(state >> 24) - 127.5) * f64::from(x) / f64::from(side) / 8.0;
        let wave = |fast: f64| {
            (f64::from(x + number * 7) / fast).sin() * (f64::from(y) / fast / 1.3).cos() * 90.0 + 127.5 + grain
        };
        image::Rgb([wave(40.0), wave(23.0), wave(71.0)].map(|level| level.clamp(0.0, 255.0) as u8))
    })
}
