//! A palette as JSON, and behind a zero byte the pixels of a picture: its width, then red, green and blue.
#![no_main]

use ediffi::{Canvas, Palette, RgbImage};
use ediffi_fuzz::{checked, peak, target};

target!(run);

fn run(data: &[u8]) {
    let (text, picture) = data.split_at(data.iter().position(|&byte| byte == 0).unwrap_or(data.len()));
    let Ok(palette) = serde_json::from_slice::<Palette>(text) else { return };
    assert_eq!(serde_json::from_str::<Palette>(&serde_json::to_string(&palette).unwrap()).unwrap(), palette);
    let [_, width, pixels @ ..] = picture else { return };
    let (width, pixels) = (u32::from(*width), &pixels[..pixels.len().min(3 << 12)]);
    let height = (pixels.len() as u32 / 3).checked_div(width).unwrap_or(0);
    let pixels = pixels[..3 * (width * height) as usize].to_vec();
    let picture = RgbImage::from_raw(width, height, pixels).unwrap();
    let (read, bytes) = peak(|| checked(Canvas::from_colours(&picture, &palette)));
    assert!(bytes <= (1 << 20) + 64 * data.len(), "a canvas of {} bytes took {bytes}", data.len());
    let Some(read) = read else { return };
    let json = serde_json::to_string(&read.canvas).unwrap();
    assert!(
        serde_json::from_str::<Canvas>(&json).unwrap() == read.canvas,
        "a canvas comes back as another one: {json}"
    );
}
