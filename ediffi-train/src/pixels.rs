//! Pictures as bytes and as tensors: a byte b is the value b / 127.5 − 1.

use tch::{Kind, Tensor};

use crate::Result;

/// RGB pictures of one size, row by row, as a tensor.
///
/// # Shapes
/// → [pictures, 3, height, width] f32 in [-1, 1]
///
/// # Errors
/// Pictures that do not have 3 · `height` · `width` bytes each.
pub fn from_rgb<B: AsRef<[u8]>>(pictures: &[B], height: i64, width: i64) -> Result<Tensor> {
    let bytes: Vec<u8> = pictures.iter().flat_map(|picture| picture.as_ref().iter().copied()).collect();
    let rows = pictures.len() as i64;
    let x = Tensor::f_from_slice(&bytes)?.f_reshape([rows, height, width, 3])?.f_permute([0, 3, 1, 2])?;
    Ok(x.f_to_kind(Kind::Float)?.f_div_scalar(127.5)?.f_sub_scalar(1.0)?.f_contiguous()?)
}

/// A tensor as RGB pictures. Values outside of [-1, 1] are clamped.
///
/// # Shapes
/// `pictures`: [n, 3, h, w]
///
/// # Errors
/// A tensor that is not four-dimensional.
pub fn to_rgb(pictures: &Tensor) -> Result<Vec<Vec<u8>>> {
    let x = pictures.f_clamp(-1.0, 1.0)?.f_add_scalar(1.0)?.f_mul_scalar(127.5)?.f_round()?;
    let x = x.f_permute([0, 2, 3, 1])?.f_to_kind(Kind::Uint8)?.f_contiguous()?;
    (0..x.size4()?.0).map(|row| Ok(Vec::<u8>::try_from(x.f_select(0, row)?.f_reshape([-1])?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_way_to_a_tensor_and_back() {
        let picture: Vec<u8> = (0..48).map(|i| i * 5).collect();
        let x = from_rgb(&[&picture, &picture], 2, 8).unwrap();
        assert_eq!(x.size(), [2, 3, 2, 8]);
        // The first pixel's green.
        assert_eq!(x.double_value(&[0, 1, 0, 0]), f64::from(5.0_f32 / 127.5 - 1.0));
        assert_eq!(to_rgb(&x).unwrap(), [picture.clone(), picture]);
        assert_eq!(to_rgb(&(x * 0.0 + 9.0)).unwrap()[0], [255; 48]);
        assert!(from_rgb(&[[0; 12]], 3, 2).is_err() && to_rgb(&Tensor::from(1.0)).is_err());
    }
}
