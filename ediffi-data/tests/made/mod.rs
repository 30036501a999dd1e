//! Pictures that the tests render, in the layouts that are read.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, RgbImage};
use image_webp::{ColorType, WebPEncoder};

/// A file of a picture, and what is said of it.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// Its path in a folder, without the ending.
    pub(crate) stem: String,
    pub(crate) ending: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) caption: String,
}

impl Made {
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.stem, self.ending)
    }
}

/// Picture `number`, of a size of its own.
pub(crate) fn pixels(number: u32) -> RgbImage {
    let (width, height) = (20 + number % 5 * 4, 16 + number % 3 * 8);
    RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 9) as u8, (y * 9) as u8, (number * 40) as u8]))
}

/// `count` pictures: PNG, JPEG and WebP in turn.
pub(crate) fn pictures(count: u32) -> Vec<Made> {
    let made = |number: u32| {
        let pixels = pixels(number);
        let ending = ["png", "jpg", "webp"][number as usize % 3];
        let mut bytes = Vec::new();
        match ending {
            "webp" => {
                WebPEncoder::new(&mut bytes).encode(&pixels, pixels.width(), pixels.height(), ColorType::Rgb8).unwrap()
            }
            _ => {
                let format = if ending == "png" { ImageFormat::Png } else { ImageFormat::Jpeg };
                DynamicImage::from(pixels).write_to(&mut Cursor::new(&mut bytes), format).unwrap();
            }
        }
        Made { stem: format!("{number:04}"), ending, bytes, caption: format!("picture {number}, \"quoted\"") }
    };
    (0..count).map(made).collect()
}

/// Writes the pictures into a folder, without what is said of them.
pub(crate) fn write(folder: &Path, made: &[Made]) {
    for made in made {
        let path = folder.join(made.name());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &made.bytes).unwrap();
    }
}

/// Writes the pictures into a folder, each with a text beside it.
pub(crate) fn folder(folder: &Path, pictures: &[Made]) {
    write(folder, pictures);
    for made in pictures {
        fs::write(folder.join(format!("{}.txt", made.stem)), format!("{}\n", made.caption)).unwrap();
    }
}

/// Writes a tar file of these files.
pub(crate) fn tar(path: &Path, files: &[(String, Vec<u8>)]) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.finish().unwrap();
}

/// Writes the pictures as a shard, captions in JSON for every other.
pub(crate) fn shard(path: &Path, pictures: &[Made]) {
    let mut files = Vec::new();
    for (number, made) in pictures.iter().enumerate() {
        files.push((made.name(), made.bytes.clone()));
        let json = serde_json::json!({ "caption": made.caption, "width": 3 }).to_string();
        files.push(match number % 2 {
            0 => (format!("{}.json", made.stem), json.into_bytes()),
            _ => (format!("{}.txt", made.stem), made.caption.clone().into_bytes()),
        });
        files.push((format!("{}.cls", made.stem), b"3".to_vec()));
    }
    tar(path, &files);
}

/// The error, where the value cannot be printed.
pub(crate) fn error<T, E>(result: Result<T, E>) -> E {
    result.map(|_| ()).unwrap_err()
}
