//! From the pixels of a stage to those of a file.

use image::RgbImage;
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

#[cfg(test)]
mod tests {
    use super::*;

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
