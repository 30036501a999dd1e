//! *Plainness*: how many bytes a picture takes over those of its render. 1 is a render; what is ragged, blotchy or noisy takes
//! more, and what is blurred away takes less.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::RgbImage;

use super::views::{SMALL, reduced};

/// Bytes of a picture that is averaged to 256 × 256 pixels, with 16 levels a channel (the upper four bits, one byte each, RGB,
/// rows from the top), compressed by zlib at its best.
pub fn bytes(picture: &RgbImage) -> std::io::Result<f64> {
    let levels: Vec<u8> = reduced(picture, SMALL).into_raw().into_iter().map(|channel| channel >> 4).collect();
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&levels)?;
    Ok(encoder.finish()?.len() as f64)
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use train_icons::dice::Dice;

    use super::*;

    #[test]
    fn nothing_takes_next_to_nothing_and_noise_its_entropy() {
        let plain = RgbImage::from_pixel(1024, 1024, Rgb([250, 10, 99]));
        let none = bytes(&plain).unwrap();
        // Less than 1/500 of the 196 608 bytes.
        assert!(none < 400.0, "{none}");
        // Sixteen levels, all equally likely, are four bits a channel: half of the bytes, and nothing compresses that. zlib wastes a little on
        // repetitions that it finds by chance.
        let mut dice = Dice::new(1, 2, 3);
        let mut noise = RgbImage::new(256, 256);
        noise.pixels_mut().for_each(|pixel| pixel.0 = std::array::from_fn(|_| (dice.unit() * 256.0) as u8));
        let most = bytes(&noise).unwrap();
        let entropy = 256.0 * 256.0 * 3.0 / 2.0;
        assert!(most > entropy && most < 1.2 * entropy, "{most} {entropy}");
        // Where a share of the pixels is noise, that share of its bytes is taken.
        let mut part = RgbImage::from_pixel(256, 256, Rgb([250, 10, 99]));
        (0..64).for_each(|y| (0..256).for_each(|x| part.put_pixel(x, y, *noise.get_pixel(x, y))));
        let quarter = bytes(&part).unwrap();
        assert!((quarter / most - 0.25).abs() < 0.02, "{quarter} {most}");
        assert_eq!(bytes(&part).unwrap() / quarter, 1.0);
        // Less than a level is nothing.
        let faint = RgbImage::from_fn(1024, 1024, |x, y| Rgb([244 + ((x / 4 + y / 4) % 8) as u8, 10, 99]));
        assert_eq!(bytes(&faint).unwrap(), none);
    }
}
