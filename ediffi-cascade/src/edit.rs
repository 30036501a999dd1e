//! A picture that is edited: what a run begins with, and what of it stays.

use ediffi_core::denoiser::Estimate;
use ediffi_core::{Error, Result};
use tch::{Device, Kind, Tensor};

use crate::low_res::bicubic;

/// A picture to be edited, for a run that begins with the first stage.
///
/// The first stage adds noise to the picture in place of beginning with noise alone ([`StagePlan::with_strength`] says how much): image to
/// image (Meng et al. 2022, `SDEdit`). With a mask, every estimate of every stage that runs is the given picture where the mask is 0:
/// inpainting. So at each noise level the solver has there what it would have on the way to the picture, and in the end the picture itself.
///
/// [`StagePlan::with_strength`]: crate::StagePlan::with_strength
#[derive(Debug, Clone, Copy)]
pub struct Edit<'a> {
    /// The picture, [1 or pictures, channels, h, w] in [-1, 1] at any size. Each stage sees it scaled to its own.
    pub picture: &'a Tensor,
    /// What is drawn anew, [1 or pictures, 1, h, w] at any size: 1 where it is, 0 where the picture stays, values between for a soft
    /// edge. Without one everything is.
    pub mask: Option<&'a Tensor>,
}

/// An [`Edit`] at the size and on the device of a stage. What is one row is shared by all pictures.
#[derive(Debug)]
pub(crate) struct Given {
    /// [1 or pictures, channels, height, width]
    picture: Tensor,
    mask: Option<Masked>,
}

/// What is drawn anew, and what stays.
#[derive(Debug)]
struct Masked {
    /// [1 or pictures, 1, height, width]
    mask: Tensor,
    /// (1 − mask) · picture, [1 or pictures, channels, height, width]: the same in every evaluation.
    kept: Tensor,
}

impl Edit<'_> {
    /// What is wrong with the shapes, for this many pictures of this many channels.
    pub(crate) fn problem(&self, pictures: i64, channels: i64) -> Option<(&'static str, String)> {
        let wrong = |input, x: &Tensor, channels: i64| match *x.size().as_slice() {
            [rows, c, h, w] if (rows == 1 || rows == pictures) && c == channels && h > 0 && w > 0 => None,
            ref got => {
                Some((input, format!("its shape is {got:?}, expected [1 or {pictures}, {channels}, height, width]")))
            }
        };
        let mask = || self.mask.and_then(|mask| wrong("edit.mask", mask, 1));
        wrong("edit.picture", self.picture, channels).or_else(mask)
    }

    /// Picture and mask for a stage that draws pictures of this size.
    pub(crate) fn given(&self, height: i64, width: i64, device: Device) -> Result<Given> {
        let scaled = |x: &Tensor| -> Result<Tensor> {
            Ok(scaled(&x.f_to_kind(Kind::Float)?, height, width)?.f_to_device(device)?)
        };
        let picture = scaled(self.picture)?;
        let masked = |mask: &Tensor| -> Result<Masked> {
            let mask = scaled(mask)?.f_clamp(0.0, 1.0)?;
            let kept = picture.f_mul(&mask.f_neg()?.f_add_scalar(1.0)?)?;
            Ok(Masked { mask, kept })
        };
        let mask = self.mask.map(masked).transpose()?;
        Ok(Given { picture, mask })
    }
}

impl Given {
    /// The rows of a batch. Nothing is copied.
    pub(crate) fn rows(&self, first: i64, pictures: i64) -> Result<Self> {
        let part = |x: &Tensor| -> Result<Tensor> {
            let all = x.size4()?.0 == 1;
            Ok(if all { x.f_expand([pictures, -1, -1, -1], false)? } else { x.f_narrow(0, first, pictures)? })
        };
        let masked = |Masked { mask, kept }: &Masked| Ok::<_, Error>(Masked { mask: part(mask)?, kept: part(kept)? });
        Ok(Self { picture: part(&self.picture)?, mask: self.mask.as_ref().map(masked).transpose()? })
    }

    /// The picture.
    pub(crate) fn picture(&self) -> &Tensor {
        &self.picture
    }

    /// What noise is added to at the start, if `all` steps are made or only some: with a mask and all steps, nothing is there of the
    /// picture where it is drawn anew.
    pub(crate) fn start(&self, all: bool) -> Result<Tensor> {
        match self.mask.as_ref().filter(|_| all) {
            Some(Masked { kept, .. }) => Ok(kept.shallow_clone()),
            None => Ok(self.picture.shallow_clone()),
        }
    }

    /// The estimate, with the given picture where nothing is drawn anew: there it is the picture to the last bit.
    pub(crate) fn keep(&self, estimate: Estimate) -> Result<Estimate> {
        let Some(Masked { mask, kept }) = &self.mask else { return Ok(estimate) };
        let drawn = estimate.denoised.f_to_kind(Kind::Float)?.f_mul(mask)?;
        Ok(Estimate { denoised: drawn.f_add(kept)?, ..estimate })
    }
}

/// A picture at another size: the mean over the pixels that fall together where it becomes smaller, else as super-resolution
/// [enlarges](crate::low_res::enlarge).
///
/// # Shapes
/// `x`: [n, channels, h, w] → [n, channels, height, width]
fn scaled(x: &Tensor, height: i64, width: i64) -> Result<Tensor> {
    let (_, _, h, w) = x.size4()?;
    if (h, w) == (height, width) {
        return Ok(x.shallow_clone());
    }
    let smaller = x.f_adaptive_avg_pool2d([height.min(h), width.min(w)])?;
    if height > h || width > w { bicubic(&smaller, height, width) } else { Ok(smaller) }
}

#[cfg(test)]
mod tests {
    use ediffi_core::noise::NoiseSource;
    use ediffi_core::seed::Noise;

    use super::*;

    fn picture(height: i64, width: i64) -> Tensor {
        Noise::new(&[1], 0).normal(&[1, 3, height, width]).unwrap().tanh()
    }

    #[test]
    fn a_smaller_picture_is_the_mean_of_its_pixels_and_an_equal_one_itself() {
        let x = picture(4, 8);
        assert!(scaled(&x, 4, 8).unwrap().equal(&x));
        let half = scaled(&x, 2, 4).unwrap();
        let corner = x.narrow(2, 0, 2).narrow(3, 6, 2).mean_dim([2_i64, 3].as_slice(), false, Kind::Float);
        assert!((half.narrow(2, 0, 1).narrow(3, 3, 1).reshape([1, 3]) - corner).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(scaled(&x, 8, 4).unwrap().size(), [1, 3, 8, 4]);
        let grey = Tensor::full([1, 3, 4, 4], 0.25, (Kind::Float, Device::Cpu));
        assert!((scaled(&grey, 6, 9).unwrap() - 0.25).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn a_mask_keeps_the_picture_to_the_last_bit_and_draws_the_rest() {
        let (x, drawn) = (picture(4, 4), picture(4, 4) * 7.0);
        let mut mask = Tensor::zeros([1, 1, 4, 4], (Kind::Float, Device::Cpu));
        let _ = mask.narrow(3, 0, 2).fill_(1.0);
        let _ = mask.narrow(3, 2, 1).fill_(0.25);
        let edit = Edit { picture: &x, mask: Some(&mask) };
        assert_eq!(edit.problem(2, 3), None);
        let given = edit.given(4, 4, Device::Cpu).unwrap().rows(0, 2).unwrap();
        let both = Tensor::cat(&[&drawn, &drawn], 0);
        let kept = given.keep(both.into()).unwrap().denoised;
        assert_eq!(kept.size(), [2, 3, 4, 4]);
        for row in 0..2 {
            let row = kept.narrow(0, row, 1);
            assert!(row.narrow(3, 0, 2).equal(&drawn.narrow(3, 0, 2)) && row.narrow(3, 3, 1).equal(&x.narrow(3, 3, 1)));
            let soft = drawn.narrow(3, 2, 1) * 0.25 + x.narrow(3, 2, 1) * 0.75;
            assert!((row.narrow(3, 2, 1) - soft).abs().max().double_value(&[]) < 1e-6);
        }
        mask = Tensor::zeros([1, 3, 4, 4], (Kind::Float, Device::Cpu));
        let (input, reason) = Edit { picture: &x, mask: Some(&mask) }.problem(2, 3).unwrap();
        assert!(input == "edit.mask" && reason.contains("[1, 3, 4, 4]"), "{reason}");
        assert_eq!(Edit { picture: &x, mask: None }.problem(2, 4).unwrap().0, "edit.picture");
    }
}
