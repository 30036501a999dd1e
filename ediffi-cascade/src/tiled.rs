//! Evaluating a network tile by tile.
//!
//! A stage blends its tiles at every evaluation of the denoiser, not once at the end: each noisy tile is denoised, the
//! estimates are blended, and the solver goes on with the whole. So every solver works, and a seam cannot grow, because the
//! next step starts from one picture (MultiDiffusion, Bar-Tal et al. 2023, for a sampler that averages its steps). The
//! enlarger makes a single evaluation.
//!
//! The result is exactly that of the whole picture for everything in a network that looks no further than the tiles' margin
//! ([`tiling`](crate::tiling)).
//!
//! What looks further sees a tile instead of the picture: self-attention, and the statistics of group norms. Tiles of the
//! size of the training crops (256 for eDiff-I's 1024 stage, appendix A) have the statistics that the network was
//! trained with. A network with [norms over positions](ediffi_core::nn::Norm::Position) and without self-attention has
//! neither.

use ediffi_core::Result;
use ediffi_core::window::Window;
use tch::Tensor;

use crate::tiling::{Span, Tiling, TilingError};

/// A rectangle of the picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) top: i64,
    pub(crate) left: i64,
    pub(crate) height: i64,
    pub(crate) width: i64,
}

impl Area {
    /// The same in fractions of a picture of this size.
    pub(crate) fn window(self, height: i64, width: i64) -> Window {
        let part =
            |from: i64, length: i64, whole: i64| (from as f64 / whole as f64, (from + length) as f64 / whole as f64);
        let (top, bottom) = part(self.top, self.height, height);
        let (left, right) = part(self.left, self.width, width);
        Window { top, bottom, left, right }
    }

    fn scaled(self, scale: i64) -> Self {
        let Self { top, left, height, width } = self;
        Self { top: scale * top, left: scale * left, height: scale * height, width: scale * width }
    }

    fn of(self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_narrow(2, self.top, self.height)?.f_narrow(3, self.left, self.width)?)
    }
}

/// How one picture is cut.
#[derive(Debug)]
pub(crate) struct TileGrid {
    tiles: Vec<GridTile>,
}

/// One tile.
#[derive(Debug)]
struct GridTile {
    /// What the network sees.
    seen: Area,
    /// What is used of it.
    used: Area,
    /// How much each used pixel weighs, [height, width].
    weights: Vec<f64>,
}

impl TileGrid {
    /// The tiles of a picture whose tiles must have sides that are multiples of `multiple`; all see equally much.
    pub(crate) fn new(
        tiling: Tiling,
        height: i64,
        width: i64,
        multiple: i64,
    ) -> std::result::Result<Self, TilingError> {
        let pixels = |n: i64| usize::try_from(n).unwrap_or(0);
        let (height, width, multiple) = (pixels(height), pixels(width), pixels(multiple).max(1));
        let (down, across) = (tiling.spans(height, multiple)?, tiling.spans(width, multiple)?);
        if height == 0 || width == 0 {
            return Err(TilingError::EmptyImage { height, width });
        }
        let tile = |row: &Span, column: &Span| GridTile {
            seen: area((row.start, column.start), (row.length, column.length)),
            used: area((row.used, column.used), (row.weights.len(), column.weights.len())),
            weights: row.weights.iter().flat_map(|r| column.weights.iter().map(move |c| r * c)).collect(),
        };
        Ok(Self { tiles: down.iter().flat_map(|row| across.iter().map(move |column| tile(row, column))).collect() })
    }

    /// How many tiles there are.
    pub(crate) fn len(&self) -> usize {
        self.tiles.len()
    }

    /// `compute` for every tile, blended. It gets a tile of `x` and where that lies, and gives the tile at `scale` times its
    /// height and width, with any number of channels.
    ///
    /// # Shapes
    /// `x`: [n, channels, height, width] of the picture that the grid was made for → [n, .., scale height, scale width]
    pub(crate) fn evaluate(
        &self,
        x: &Tensor,
        scale: i64,
        mut compute: impl FnMut(&Tensor, Area) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for GridTile { seen, used, weights } in &self.tiles {
            let computed = compute(&seen.of(x)?, *seen)?;
            let inner = Area { top: used.top - seen.top, left: used.left - seen.left, ..*used };
            let inner = inner.scaled(scale).of(&computed)?;
            let weights = Tensor::f_from_slice(weights)?
                .f_reshape([used.height, 1, used.width, 1])?
                .f_expand([used.height, scale, used.width, scale], false)?
                .f_reshape([scale * used.height, scale * used.width])?
                .f_to_device(x.device())?
                .f_to_kind(x.f_kind()?)?;
            let sum = match &mut sum {
                Some(sum) => sum,
                None => {
                    let (n, _, height, width) = x.size4()?;
                    let shape = [n, inner.size4()?.1, scale * height, scale * width];
                    sum.insert(Tensor::f_zeros(shape, (x.f_kind()?, x.device()))?)
                }
            };
            let _ = used.scaled(scale).of(sum)?.f_add_(&inner.f_mul(&weights)?)?;
        }
        match sum {
            Some(sum) => Ok(sum),
            None => Ok(x.f_zeros_like()?),
        }
    }
}

fn area((top, left): (usize, usize), (height, width): (usize, usize)) -> Area {
    Area { top: top as i64, left: left as i64, height: height as i64, width: width as i64 }
}

#[cfg(test)]
mod tests {
    use ediffi_core::noise::NoiseSource;
    use ediffi_core::seed::Noise;
    use proptest::prelude::*;

    use super::*;

    fn picture(height: i64, width: i64) -> Tensor {
        Noise::new(&[1, 2], 0).normal(&[2, 3, height, width]).unwrap()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        f64::try_from((a - b).abs().max()).unwrap()
    }

    /// Blurs over a square of side `2 radius + 1`, zeros outside: as far as a convolution looks.
    fn local(x: &Tensor, radius: i64) -> Result<Tensor> {
        let side = 2 * radius + 1;
        let weights = Noise::new(&[3], 9).normal(&[1, 3, 3, side, side])?.f_squeeze()?;
        Ok(x.f_conv2d(&weights, None::<Tensor>, [1], [radius], [1], 1)?.f_tanh()?)
    }

    #[test]
    fn what_looks_no_further_than_the_margin_is_exact() {
        let x = picture(88, 72);
        // Overlap 32: a margin of 8 at each side.
        let grid = TileGrid::new(Tiling { tile: 48, overlap: 32 }, 88, 72, 8).unwrap();
        let whole = |radius| local(&x, radius).unwrap();
        let tiled = |radius| grid.evaluate(&x, 1, |tile, _| local(tile, radius)).unwrap();
        assert!(difference(&whole(8), &tiled(8)) < 2e-6);
        // One pixel more, and the edges of the tiles show.
        assert!(difference(&whole(9), &tiled(9)) > 1e-3);
    }

    #[test]
    fn all_tiles_have_one_size_and_a_small_picture_is_one_of_them() {
        let sizes = |height, width| {
            let grid = TileGrid::new(Tiling { tile: 64, overlap: 32 }, height, width, 8).unwrap();
            let mut sizes = Vec::new();
            let _ = grid
                .evaluate(&picture(height, width), 1, |tile, area| {
                    assert_eq!(tile.size(), [2, 3, area.height, area.width]);
                    sizes.push((area.height, area.width));
                    Ok(tile.shallow_clone())
                })
                .unwrap();
            assert_eq!(sizes.len(), grid.len());
            sizes
        };
        assert_eq!(sizes(64, 48), [(64, 48)]);
        assert_eq!(sizes(64, 72), [(64, 64), (64, 64)]);
        assert_eq!(sizes(128, 64), [(64, 64); 3]);
    }

    /// Convolutions of radius 6 at twice the size look 3 pixels of the small picture far.
    #[test]
    fn tiles_may_come_out_larger() {
        let x = picture(56, 40);
        let enlarged = |x: &Tensor| {
            let (_, _, height, width) = x.size4()?;
            local(&x.f_upsample_nearest2d([2 * height, 2 * width], None, None)?, 6)
        };
        let grid = TileGrid::new(Tiling { tile: 24, overlap: 12 }, 56, 40, 1).unwrap();
        let tiled = grid.evaluate(&x, 2, |tile, _| enlarged(tile)).unwrap();
        assert!(difference(&enlarged(&x).unwrap(), &tiled) < 2e-6);
    }

    #[test]
    fn tilings_that_do_not_fit_are_errors() {
        let grid = |tile, overlap, side| TileGrid::new(Tiling { tile, overlap }, side, side, 8).err();
        assert_eq!(grid(0, 0, 64), Some(TilingError::EmptyTile));
        assert_eq!(grid(60, 8, 64), Some(TilingError::NotMultiple { what: "tile", value: 60, multiple: 8 }));
        assert_eq!(grid(16, 16, 64), Some(TilingError::Overlap { tile: 16, overlap: 16 }));
        assert_eq!(grid(16, 8, -8), Some(TilingError::EmptyImage { height: 0, width: 0 }));
    }

    proptest! {
        /// Blending what is not changed gives it back.
        #[test]
        fn the_weights_add_up_to_one(
            (height, width) in (1_i64..12, 1_i64..12),
            (tile, overlap) in (1_usize..8).prop_flat_map(|tile| (Just(tile), 0..tile)),
            multiple in prop::sample::select(vec![1_i64, 2, 4]),
        ) {
            let (height, width) = (height * multiple, width * multiple);
            let tiling = Tiling { tile: tile * multiple as usize, overlap: overlap * multiple as usize };
            let x = picture(height, width);
            let grid = TileGrid::new(tiling, height, width, multiple).unwrap();
            let same = grid
                .evaluate(&x, 1, |piece, area| {
                    assert!([area.top, area.left, area.height, area.width].iter().all(|n| n % multiple == 0));
                    Ok(piece.shallow_clone())
                })
                .unwrap();
            prop_assert!(difference(&x, &same) < 1e-5);
        }
    }
}
