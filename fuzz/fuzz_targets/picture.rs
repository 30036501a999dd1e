//! A picture, PNG or JPEG, from anyone: as it is, and as the reference of a style.
#![no_main]

use ediffi::{Picture, StyleImage};
use ediffi_fuzz::{checked, peak, target};

target!(run);

/// Larger pictures take too long to be decoded for every input; `attacks/` has some.
const PIXELS: u64 = 1 << 20;

fn run(data: &[u8]) {
    let (size, bytes) = peak(|| checked(Picture::size_of(data)));
    assert!(bytes <= (1 << 20) + 16 * data.len(), "the header of {} bytes took {bytes}", data.len());
    if size.is_some_and(|(width, height)| u64::from(width) * u64::from(height) > PIXELS) {
        return;
    }
    let (read, bytes) = peak(|| checked(Picture::from_bytes(data)));
    assert!(bytes <= (64 << 20) + 16 * data.len(), "a small picture took {bytes}");
    let Some(picture) = read else { return };
    assert_eq!(Some(picture.size()), size, "the header says another size");
    assert_eq!(picture.clone().into_rgba().dimensions(), picture.size());
    assert_eq!(picture.clone().into_mask().dimensions(), picture.size());
    let rgb = picture.into_rgb();
    let Some(style) = checked(StyleImage::from_bytes(data)) else { return };
    if rgb.width().min(rgb.height()) <= ediffi::STYLE_SIDE {
        assert!(style.pixels().unwrap() == rgb, "a small style has other pixels than its picture");
    }
    let json = serde_json::to_string(&style).unwrap();
    assert!(serde_json::from_str::<StyleImage>(&json).unwrap() == style, "a style comes back as another one");
}
