//! From the pixels of a stage to those of a file, and back.

use image::{GrayImage, RgbImage};
use tch::{Kind, Tensor};

use crate::Result;

/// The nearest 8-bit pixels; values beyond [-1, 1] are cut.
///
/// # Shapes
/// `image`: [3, h, w] → h rows of w pixels
pub(crate) fn to_rgb(image: &Tensor) -> Result<RgbImage> {
    let (channels, height, width) = image.size3()?;
    let levels =
        image.f_to_kind(Kind::Float)?.f_add_scalar(1.0)?.f_mul_scalar(127.5)?.f_round()?.f_clamp(0.0, 255.0)?;
    let rows = levels.f_to_kind(Kind::Uint8)?.f_permute([1, 2, 0])?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0_u8; rows.numel()];
    let count = bytes.len();
    rows.f_copy_data(&mut bytes, count)?;
    let sides = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
    RgbImage::from_raw(sides.0, sides.1, bytes).filter(|_| channels == 3).ok_or_else(|| {
        let (expected, got) = (vec![3, height, width], image.size());
        ediffi_core::Error::DenoisedShape { sigma: 0.0, expected, got }.into()
    })
}

/// Pixels as a stage has them: the inverse of [`to_rgb`].
///
/// # Shapes
/// h rows of w pixels → [1, 3, h, w] f32 in [-1, 1]
pub(crate) fn of_rgb(image: &RgbImage) -> Result<Tensor> {
    let levels = planes(image.as_raw(), 3, image.dimensions())?;
    Ok(levels.f_div_scalar(127.5)?.f_sub_scalar(1.0)?)
}

/// A mask as a stage has it: 1 where it is white.
///
/// # Shapes
/// h rows of w pixels → [1, 1, h, w] f32 in [0, 1]
pub(crate) fn of_mask(mask: &GrayImage) -> Result<Tensor> {
    Ok(planes(mask.as_raw(), 1, mask.dimensions())?.f_div_scalar(255.0)?)
}

/// # Shapes
/// h rows of w pixels → [1, channels, h, w] f32
fn planes(bytes: &[u8], channels: i64, (width, height): (u32, u32)) -> Result<Tensor> {
    let rows = Tensor::f_from_slice(bytes)?.f_view([1, height.into(), width.into(), channels])?;
    Ok(rows.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?.f_contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_levels_come_back() {
        let image = RgbImage::from_fn(256, 2, |x, y| image::Rgb([x as u8, 255 - x as u8, y as u8]));
        assert_eq!(to_rgb(&of_rgb(&image).unwrap().get(0)).unwrap(), image);
        let mask = of_mask(&GrayImage::from_raw(2, 1, vec![0, 255]).unwrap()).unwrap();
        assert_eq!(
            (mask.size(), mask.double_value(&[0, 0, 0, 0]), mask.double_value(&[0, 0, 0, 1])),
            (vec![1, 1, 1, 2], 0.0, 1.0)
        );
    }

    #[test]
    fn pixels_are_rounded_and_cut() {
        // Two pixels side by side: [-1, 0, 1] and [-2, 0.5, 9].
        let image = Tensor::from_slice(&[-1.0_f32, -2.0, 0.0, 0.5, 1.0, 9.0]).view([3, 1, 2]);
        let pixels = to_rgb(&image).unwrap();
        // 0 -> 127.5, which is rounded to the even neighbour.
        assert_eq!(pixels.dimensions(), (2, 1));
        assert_eq!((pixels.get_pixel(0, 0).0, pixels.get_pixel(1, 0).0), ([0, 128, 255], [0, 191, 255]));
    }
}
