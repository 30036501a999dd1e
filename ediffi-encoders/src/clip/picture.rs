//! Pictures as tensors.

use std::path::Path;

use image::DynamicImage;
use tch::Tensor;

use crate::{Error, Picture, Result};

/// Reads a picture from a PNG or JPEG file, whatever the name of the file: see [`Picture`](crate::Picture). What is transparent is
/// white.
///
/// # Shapes
/// → [3, height, width] u8
///
/// # Errors
/// [`Error::PictureFile`] if the file is missing, no picture, damaged, or too large.
pub fn open_picture(path: &Path) -> Result<Tensor> {
    let picture = Picture::open(path)?.into_rgb();
    rgb8(picture.as_raw(), picture.width() as usize, picture.height() as usize)
}

/// Makes a tensor of a decoded picture. Transparency is ignored, as in `transformers`; grey becomes three equal channels.
///
/// # Shapes
/// → [3, height, width], u8; f32 in [0, 1] for pictures of more than 8 bits a channel
///
/// # Errors
/// [`Error::PictureBytes`] for a picture without pixels.
pub fn picture(image: &DynamicImage) -> Result<Tensor> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    match image {
        DynamicImage::ImageLuma8(_)
        | DynamicImage::ImageLumaA8(_)
        | DynamicImage::ImageRgb8(_)
        | DynamicImage::ImageRgba8(_) => rgb8(image.to_rgb8().as_raw(), width, height),
        _ => {
            let pixels = image.to_rgb32f();
            channels_first(pixels.as_raw(), width, height)
        }
    }
}

/// Makes a tensor of the bytes of an RGB picture, row by row.
///
/// # Shapes
/// → [3, height, width] u8
///
/// # Errors
/// [`Error::PictureBytes`] unless there are 3 · `width` · `height` bytes, and at least one.
pub fn rgb8(bytes: &[u8], width: usize, height: usize) -> Result<Tensor> {
    channels_first(bytes, width, height)
}

fn channels_first<T: tch::kind::Element>(values: &[T], width: usize, height: usize) -> Result<Tensor> {
    let expected = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
    if values.is_empty() || expected != Some(values.len()) {
        return Err(Error::PictureBytes { bytes: values.len(), width, height });
    }
    let rows = Tensor::f_from_slice(values)?.f_reshape([height as i64, width as i64, 3])?;
    Ok(rows.f_permute([2, 0, 1])?.f_contiguous()?)
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Rgb, Rgb32FImage, RgbaImage};
    use tch::Kind;

    use super::*;

    #[test]
    fn bytes_become_channels_and_a_wrong_number_of_them_is_an_error() {
        let picture = rgb8(&[1, 2, 3, 4, 5, 6], 2, 1).unwrap();
        assert_eq!(picture.size(), [3, 1, 2]);
        assert_eq!(Vec::<i64>::try_from(picture.flatten(0, -1).to_kind(Kind::Int64)).unwrap(), [1, 4, 2, 5, 3, 6]);
        for (bytes, width, height) in [(5, 2, 1), (0, 0, 4), (6, usize::MAX, 2)] {
            assert!(matches!(rgb8(&vec![0; bytes], width, height), Err(Error::PictureBytes { .. })));
        }
    }

    #[test]
    fn pictures_of_any_channels_and_depth_become_rgb() {
        let values = |x: &Tensor| Vec::<f32>::try_from(x.flatten(0, -1).to_kind(Kind::Float)).unwrap();
        let grey = picture(&GrayImage::from_raw(2, 1, vec![7, 9]).unwrap().into()).unwrap();
        assert_eq!((grey.kind(), values(&grey)), (Kind::Uint8, vec![7.0, 9.0, 7.0, 9.0, 7.0, 9.0]));
        let clear = picture(&RgbaImage::from_raw(1, 1, vec![1, 2, 3, 0]).unwrap().into()).unwrap();
        assert_eq!(values(&clear), [1.0, 2.0, 3.0]);
        let deep = picture(&Rgb32FImage::from_pixel(1, 1, Rgb([0.25, 0.5, 1.0])).into()).unwrap();
        assert_eq!((deep.kind(), values(&deep)), (Kind::Float, vec![0.25, 0.5, 1.0]));
        assert!(matches!(picture(&RgbaImage::new(0, 3).into()), Err(Error::PictureBytes { .. })));
    }

    #[test]
    fn files_that_are_no_pictures_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cat.png");
        assert!(matches!(open_picture(&path), Err(Error::PictureFile { .. })));
        std::fs::write(&path, "no picture").unwrap();
        assert!(open_picture(&path).unwrap_err().to_string().contains("cat.png"));
        GrayImage::new(3, 2).save(&path).unwrap();
        assert_eq!(open_picture(&path).unwrap().size(), [3, 2, 3]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(open_picture(&path), Err(Error::PictureFile { .. })));
    }
}
