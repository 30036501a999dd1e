//! Pictures as users have them.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use ediffi_encoders::{Error, PICTURE_SIDE, Picture, PictureError, clip};
use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};

/// The pictures of `fixtures/pictures/make.py`, unpacked.
fn pictures() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pictures/pictures.tar.gz");
    let packed = std::fs::File::open(path).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(packed)).unpack(folder.path()).unwrap();
    folder
}

/// The farthest that a level is from what Pillow reads.
fn difference(folder: &Path, name: &str) -> u8 {
    let stem = name.split('.').next().unwrap();
    let read = Picture::open(folder.join(name)).unwrap();
    let bytes = std::fs::read(folder.join(name)).unwrap();
    assert_eq!(Picture::size_of(&bytes).unwrap(), read.size(), "{name}");
    let expected = Picture::open(folder.join(format!("{stem}.rgb.png"))).unwrap();
    let (read, expected) = (read.into_rgb(), expected.into_rgb());
    assert_eq!(read.dimensions(), expected.dimensions(), "{name}");
    let apart = read.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b));
    apart.max().unwrap()
}

/// As `ImageOps.exif_transpose` has them. Decoders of JPEG differ by rounding.
#[test]
fn a_picture_stands_as_its_exif_data_say() {
    let pictures = pictures();
    let difference = |name: &str| difference(pictures.path(), name);
    for orientation in 1..=8 {
        let (jpeg, png) = (format!("turned-{orientation}.jpg"), format!("turned-png-{orientation}.png"));
        assert!(difference(&jpeg) <= 2, "{jpeg}: {}", difference(&jpeg));
        assert_eq!(difference(&png), 0, "{png}");
    }
    // CLIP reads it the same way.
    let tensor = clip::open_picture(&pictures.path().join("turned-6.jpg")).unwrap();
    assert_eq!(tensor.size(), [3, 32, 16]);
}

#[test]
fn every_kind_of_picture_looks_as_in_a_browser() {
    let pictures = pictures();
    for (name, most) in [
        ("cmyk.jpg", 3),
        ("progressive.jpg", 2),
        ("grey.jpg", 2),
        ("deep.png", 0),
        ("palette.png", 1),
        ("grey-key.png", 0),
        ("clear.png", 1),
    ] {
        let found = difference(pictures.path(), name);
        assert!(found <= most, "{name}: {found}");
    }
}

fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn deep_and_transparent_pixels_become_bytes_on_a_ground() {
    let read = |bytes: &[u8]| Picture::from_bytes(bytes).unwrap();
    let deep = png(ImageBuffer::from_pixel(1, 1, Rgb([65535_u16, 257, 32768])));
    assert_eq!(read(&deep).into_rgb().get_pixel(0, 0).0, [255, 1, 128]);
    let deep = png(ImageBuffer::from_pixel(1, 1, Rgba([65535_u16, 0, 0, 32896])));
    assert_eq!(read(&deep).into_rgb().get_pixel(0, 0).0, [255, 127, 127]);
    assert_eq!(read(&deep).into_rgba().get_pixel(0, 0).0, [255, 0, 0, 128]);
    // A mask: white is inside, and what is transparent is outside, whatever its colour.
    for (level, alpha, inside) in [(255_u8, 255, 255), (255, 0, 0), (0, 255, 0), (255, 128, 128), (128, 128, 64)] {
        let mask = read(&png(ImageBuffer::from_pixel(1, 1, LumaA([level, alpha])))).into_mask();
        assert_eq!(mask.get_pixel(0, 0).0, [inside], "{level} {alpha}");
    }
    assert_eq!(read(&png(ImageBuffer::from_pixel(1, 1, Luma([77_u8])))).into_mask().get_pixel(0, 0).0, [77]);
}

/// A PNG of one bit a pixel, all of one colour, as a small file that stands for many pixels.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().unwrap();
    let mut stream = writer.stream_writer().unwrap();
    let row = vec![0; width.div_ceil(8) as usize];
    (0..height).for_each(|_| std::io::Write::write_all(&mut stream, &row).unwrap());
    stream.finish().unwrap();
    writer.finish().unwrap();
    bytes
}

/// Files of a few kilobytes that took gigabytes to read. The header tells, so the pixels may as well be damaged.
#[test]
fn a_picture_that_is_too_large_is_refused_by_its_header() {
    for (width, height) in [(20_000, 20_000), (12_837, 16_407), (PICTURE_SIDE, 8_192)] {
        let whole = bomb(width, height);
        assert!(whole.len() < 100_000);
        for bytes in [&whole[..], &whole[..60]] {
            let error = Picture::from_bytes(bytes).unwrap_err();
            assert!(matches!(error, PictureError::Memory { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(&format!("{width}x{height}")) && text.contains("536870912"), "{text}");
            assert!(Picture::size_of(bytes).is_err());
        }
    }
    let long = bomb(524_321, 21);
    assert!(matches!(Picture::from_bytes(&long), Err(PictureError::Side { width: 524_321, height: 21 })));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.png");
    std::fs::write(&path, long).unwrap();
    let error = clip::open_picture(&path).unwrap_err();
    assert!(matches!(error, Error::PictureFile { .. }) && error.to_string().contains("524321x21"), "{error}");
    // A large one that is within the limit is read.
    assert_eq!(Picture::from_bytes(&bomb(PICTURE_SIDE, 64)).unwrap().size(), (PICTURE_SIDE, 64));
    // A file of nothing but length.
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    assert!(clip::open_picture(&path).unwrap_err().to_string().contains("1073741824 bytes"));
}

/// A JPEG says its size in two bytes a side; the decoder holds all its frequencies where it is progressive.
#[test]
fn a_jpeg_that_is_too_large_is_refused_by_its_header() {
    let mut bytes = std::fs::read(pictures().path().join("progressive.jpg")).unwrap();
    let frame = bytes.array_windows().position(|marker| *marker == [0xff, 0xc2]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0x60, 0, 0x60, 0]);
    assert!(matches!(Picture::from_bytes(&bytes), Err(PictureError::Memory { width: 0x6000, height: 0x6000, .. })));
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0, 1]);
    assert!(matches!(Picture::from_bytes(&bytes), Err(PictureError::Side { .. })));
}

/// Whatever decoders a program has compiled in.
#[test]
fn other_formats_are_refused_by_their_first_bytes() {
    for bytes in [&b"GIF89a\x01\x00\x01\x00\x00\x00\x00"[..], b"II*\x00\x08\x00\x00\x00", b"no picture"] {
        assert!(matches!(Picture::from_bytes(bytes), Err(PictureError::Format)), "{bytes:?}");
    }
}
