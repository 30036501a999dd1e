//! Decoding tile by tile, for pictures that would need too much memory as a whole.

use tch::{Kind, Tensor};

use super::config::AutoencoderConfig;
use super::decoder::Decoder;
use crate::Result;

/// How the tiles of a latent lie, in positions of the latent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiles {
    /// Side of a tile.
    side: i64,
    /// How far apart two tiles begin; they overlap by the rest of the side.
    step: i64,
}

impl Tiles {
    /// A quarter of a tile overlaps with the next one.
    fn new(side: i64) -> Self {
        let side = side.max(1);
        Self { side, step: side - side / 4 }
    }

    /// Where the tiles of a side of `length` begin, and how long they are.
    fn of(self, length: i64) -> impl Iterator<Item = (i64, i64)> + Clone {
        let starts = (0..).map(move |index| index * self.step).take_while(move |&start| start < length);
        starts.map(move |start| (start, self.side.min(length - start)))
    }
}

/// The shortest side of a tile, in positions of a latent. Smaller tiles see too little of a picture, and there would be too many.
const SHORTEST: i64 = 8;

impl AutoencoderConfig {
    /// The tiles of latents: as large as the pictures of the training, but of 8 latents at least, and of [`WHOLE`](Self::WHOLE) pixels at most.
    fn tiling(&self) -> Tiles {
        let multiple = self.size_multiple();
        Tiles::new((self.sample_size / multiple).max(SHORTEST).min(Self::WHOLE / multiple))
    }

    /// Into how many tiles [`Decoder::decode_tiled`] cuts latents of this height and width.
    #[must_use]
    pub fn tiles(&self, height: i64, width: i64) -> usize {
        let tiles = self.tiling();
        if height <= tiles.side && width <= tiles.side {
            return 1;
        }
        tiles.of(height).count() * tiles.of(width).count()
    }
}

impl Decoder {
    /// As [`decode`](Self::decode), in tiles of the size of [`AutoencoderConfig::sample_size`](super::AutoencoderConfig::sample_size), from 8
    /// latents to [`AutoencoderConfig::WHOLE`](super::AutoencoderConfig::WHOLE) pixels, that overlap by a quarter and fade into each other (diffusers' `enable_tiling`). Norms and attention of a tile see the tile alone, so the
    /// picture is not quite that of [`decode`](Self::decode). What fits into one tile is decoded at once.
    ///
    /// `before` is called before each tile with the number of those that are done and of all; its error ends the decoding.
    ///
    /// # Shapes
    /// As [`decode`](Self::decode).
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and those of `before`.
    pub fn decode_tiled(&self, latents: &Tensor, mut before: impl FnMut(usize, usize) -> Result<()>) -> Result<Tensor> {
        let multiple = self.config().size_multiple();
        let tiles = self.config().tiling();
        let (height, width) = match *latents.size().as_slice() {
            [_, _, height, width] if height > tiles.side || width > tiles.side => (height, width),
            _ => {
                before(0, 1)?;
                return self.decode(latents);
            }
        };
        let (rows, columns) = (tiles.of(height), tiles.of(width));
        let all = rows.clone().count() * columns.clone().count();
        let (fade, step) = ((tiles.side - tiles.step) * multiple, tiles.step * multiple);
        let (mut done, mut above, mut bands) = (0, Vec::new(), Vec::new());
        for (top, tall) in rows {
            let mut row: Vec<Tensor> = Vec::new();
            for (column, (left, wide)) in columns.clone().enumerate() {
                before(done, all)?;
                let mut tile = self.decode(&latents.f_narrow(2, top, tall)?.f_narrow(3, left, wide)?)?;
                if let Some(above) = above.get(column) {
                    tile = faded(above, tile, 2, fade)?;
                }
                if let Some(left) = row.last() {
                    tile = faded(left, tile, 3, fade)?;
                }
                row.push(tile);
                done += 1;
            }
            let own = |tile: &Tensor| -> Result<Tensor> {
                let (_, _, height, width) = tile.size4()?;
                Ok(tile.f_narrow(2, 0, height.min(step))?.f_narrow(3, 0, width.min(step))?)
            };
            let parts = row.iter().map(own).collect::<Result<Vec<_>>>()?;
            bands.push(Tensor::f_cat(&parts, 3)?);
            above = row;
        }
        Ok(Tensor::f_cat(&bands, 2)?)
    }
}

/// `tile`, whose first lines along `axis` come out of the last lines of `before` by as many even steps.
fn faded(before: &Tensor, tile: Tensor, axis: i64, lines: i64) -> Result<Tensor> {
    let length = |x: &Tensor| x.size().get(usize::try_from(axis).unwrap_or(0)).copied().unwrap_or(0);
    let lines = lines.min(length(before)).min(length(&tile));
    if lines < 1 {
        return Ok(tile);
    }
    let ramp = Tensor::f_arange(lines, (Kind::Float, tile.device()))?.f_div_scalar(lines as f64)?;
    let ramp = if axis == 2 { ramp.f_unsqueeze(1)? } else { ramp };
    let (last, mut first) = (before.f_narrow(axis, length(before) - lines, lines)?, tile.f_narrow(axis, 0, lines)?);
    let mixed = last.f_lerp_tensor(&first, &ramp)?;
    first.f_copy_(&mixed)?;
    Ok(tile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_side_and_overlap_by_a_quarter() {
        let tiles = |side, length| Tiles::new(side).of(length).collect::<Vec<_>>();
        assert_eq!(tiles(8, 14), [(0, 8), (6, 8), (12, 2)]);
        assert_eq!(tiles(8, 8), [(0, 8), (6, 2)]);
        assert_eq!(tiles(6, 11), [(0, 6), (5, 6), (10, 1)]);
        assert_eq!(tiles(1, 3), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(tiles(0, 2), [(0, 1), (1, 1)]);
    }

    /// A file may say any size.
    #[test]
    fn tiles_are_neither_tiny_nor_too_large_to_decode() {
        let tiles = |sample_size, side| {
            AutoencoderConfig { sample_size, ..AutoencoderConfig::stable_diffusion() }.tiles(side, side)
        };
        assert_eq!(tiles(512, 64), 1);
        assert_eq!(tiles(512, 65), 4);
        assert_eq!(tiles(1 << 20, 128), 1);
        assert_eq!(tiles(1 << 20, 129), tiles(1024, 129));
        assert_eq!(tiles(1, 128), 22 * 22);
    }

    #[test]
    fn the_first_lines_fade_in() {
        let zeros = Tensor::zeros([1, 1, 4, 3], (Kind::Float, tch::Device::Cpu));
        let ones = || zeros.ones_like();
        let column = |x: Tensor| Vec::<f64>::try_from(x.narrow(3, 0, 1).flatten(0, -1)).unwrap();
        assert_eq!(column(faded(&zeros, ones(), 2, 2).unwrap()), [0.0, 0.5, 1.0, 1.0]);
        assert_eq!(column(faded(&zeros, ones(), 3, 2).unwrap()), [0.0; 4]);
        assert_eq!(column(faded(&zeros, ones(), 2, 0).unwrap()), [1.0; 4]);
    }
}
