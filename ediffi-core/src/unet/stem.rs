//! The first convolution. What it makes of the smaller picture is the same at every step: it is computed once.

use std::cell::OnceCell;

use tch::Tensor;

use crate::Result;
use crate::nn::{Conv2d, add_to, channels_last};

/// Numbers of the largest smaller pictures, all rows together, whose map is kept: one picture of 1024×1024 pixels.
const LARGEST_KEPT: usize = 3 << 20;

/// The smaller picture of a generation, enlarged.
#[derive(Debug)]
pub(super) struct LowRes {
    /// [rows, channels, h, w]
    picture: Tensor,
    /// What the first convolution makes of it, if it is kept from step to step. It may be many times as large as the picture. So those
    /// of tiles are not kept, nor is that of a very large picture, of which every expert would keep one.
    map: Option<OnceCell<Tensor>>,
}

impl LowRes {
    pub(super) fn new(picture: Tensor) -> Self {
        Self { picture, map: Some(OnceCell::new()) }
    }

    /// A part of it. The convolution sees zeros around the part, as it does around the whole.
    pub(super) fn tile(&self, top: i64, left: i64, height: i64, width: i64) -> Result<Self> {
        Ok(Self { picture: self.picture.f_narrow(2, top, height)?.f_narrow(3, left, width)?, map: None })
    }
}

/// All that a network sees of a picture: `x`, and the smaller picture beside it.
///
/// # Shapes
/// `x`: [rows, channels, h, w] → [rows, channels or twice as many, h, w]
pub(super) fn seen(x: &Tensor, low_res: Option<&LowRes>) -> Result<Tensor> {
    match low_res {
        Some(LowRes { picture, .. }) => Ok(Tensor::f_cat(&[x, picture], 1)?),
        None => Ok(x.shallow_clone()),
    }
}

/// The first feature map of `x` beside the smaller picture, by the convolution `stem` over squares of `patch` pixels. `halves` are its
/// halves over `x` and over the smaller picture; without them both are convolved together.
///
/// # Shapes
/// `x`: [rows, channels, h, w] → [rows, width, h / patch, w / patch]
pub(super) fn first_map(
    (stem, patch): (&Conv2d, i64),
    halves: Option<&[Conv2d; 2]>,
    x: Tensor,
    low_res: Option<&LowRes>,
) -> Result<Tensor> {
    // One position for each square of pixels, with its channels innermost in memory.
    let squares = |x: &Tensor| match patch {
        1 => channels_last(x),
        patch => channels_last(&x.f_pixel_unshuffle(patch)?),
    };
    let Some(LowRes { picture, map }) = low_res else { return stem.forward(&squares(&x)?) };
    let kept = map.as_ref().filter(|_| picture.numel() <= LARGEST_KEPT && !picture.requires_grad());
    // Pictures that are not alike have no sum, but an error, below.
    let Some(([noisy, smaller], kept)) = halves.zip(kept).filter(|_| picture.size() == x.size()) else {
        return stem.forward(&squares(&seen(&x, low_res)?)?);
    };
    let map = match kept.get() {
        Some(map) => map,
        None => {
            let computed = smaller.forward(&squares(picture)?)?;
            kept.get_or_init(|| computed)
        }
    };
    add_to(noisy.forward(&squares(&x)?)?, map)
}
