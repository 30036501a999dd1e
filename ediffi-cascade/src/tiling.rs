//! Geometry of tiles: how a picture is cut into overlapping tiles, and how their results are blended.
//!
//! A stage whose feature maps do not fit in memory runs tile by tile. Tiles overlap, and where they do their results are
//! mixed with weights that fall off towards the tile's edge, so that no seam shows. The weights of all tiles add up to one
//! at every pixel. They are separable: the weight of pixel (y, x) is `rows[y] * columns[x]`.
//!
//! This module knows no tensors; it is sums of pixels only.

use serde::{Deserialize, Serialize};

/// Why a picture cannot be tiled as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TilingError {
    /// The tile has no pixels.
    #[error("the side of a tile is 0")]
    EmptyTile,
    /// Tiles that overlap by their whole side would never move on.
    #[error("tiles of {tile} pixels cannot overlap by {overlap}: the overlap must be smaller than the tile")]
    Overlap {
        /// Side of a tile.
        tile: usize,
        /// Pixels shared by neighbours.
        overlap: usize,
    },
    /// The network cannot work on this tile or this step between tiles.
    #[error("the {what} is {value} pixels, it must be a multiple of {multiple}")]
    NotMultiple {
        /// `tile` or `overlap`.
        what: &'static str,
        /// Its value.
        value: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// The picture has no pixels.
    #[error("a picture of {height}x{width} has nothing to tile")]
    EmptyImage {
        /// Height of the picture.
        height: usize,
        /// Width of the picture.
        width: usize,
    },
}

/// How a picture is cut: square tiles of one size, with neighbours that share at least `overlap` pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiling {
    /// Side of a tile in pixels.
    pub tile: usize,
    /// The fewest pixels that two neighbours share; smaller than the tile.
    pub overlap: usize,
}

/// One tile: a rectangle of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// First row.
    pub y: usize,
    /// First column.
    pub x: usize,
    /// Number of rows.
    pub h: usize,
    /// Number of columns.
    pub w: usize,
}

/// A tile with its blend weights; pixel (row, column) of the tile weighs `rows[row] * columns[column]`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedTile {
    /// Where the tile lies.
    pub tile: Tile,
    /// One factor for each row of the tile, above 0 and at most 1.
    pub rows: Vec<f64>,
    /// One factor for each column of the tile, above 0 and at most 1.
    pub columns: Vec<f64>,
}

impl Tiling {
    /// Checks the tiling for a network whose inputs must have sides that are multiples of `multiple` (1 for any side).
    ///
    /// # Errors
    /// [`TilingError::EmptyTile`], [`TilingError::Overlap`], [`TilingError::NotMultiple`] if the tile or the overlap is not a
    /// multiple.
    pub fn check(&self, multiple: usize) -> Result<(), TilingError> {
        let &Self { tile, overlap } = self;
        if tile == 0 {
            return Err(TilingError::EmptyTile);
        }
        if overlap >= tile {
            return Err(TilingError::Overlap { tile, overlap });
        }
        for (what, value) in [("tile", tile), ("overlap", overlap)] {
            // A multiple of nothing is taken as no wish.
            if !value.is_multiple_of(multiple.max(1)) {
                return Err(TilingError::NotMultiple { what, value, multiple });
            }
        }
        Ok(())
    }

    /// The tiles that cover a picture, row by row from the top left.
    ///
    /// All tiles have the size `tile`, and the last of a row or column is shifted inwards instead of being cut. Along a side
    /// of the picture that is no longer than a tile there is one tile of that length. If the sides of the picture are
    /// multiples of `multiple`, so are all positions and sizes.
    ///
    /// # Errors
    /// Those of [`Tiling::check`], and [`TilingError::EmptyImage`].
    pub fn tiles(&self, height: usize, width: usize, multiple: usize) -> Result<Vec<Tile>, TilingError> {
        let weighted = self.weighted_tiles(height, width, multiple)?;
        Ok(weighted.into_iter().map(|weighted| weighted.tile).collect())
    }

    /// [`Tiling::tiles`] with the blend weights, which add up to one at every pixel.
    ///
    /// Across an overlap the weight of a tile falls in a straight line to zero, which it would reach half a pixel outside;
    /// at the border of the picture it does not fall.
    ///
    /// # Errors
    /// Those of [`Tiling::tiles`].
    pub fn weighted_tiles(
        &self,
        height: usize,
        width: usize,
        multiple: usize,
    ) -> Result<Vec<WeightedTile>, TilingError> {
        self.check(multiple)?;
        if height == 0 || width == 0 {
            return Err(TilingError::EmptyImage { height, width });
        }
        let down = self.intervals(height);
        let across = self.intervals(width);
        let pair = |row: &Interval, column: &Interval| WeightedTile {
            tile: Tile { y: row.start, x: column.start, h: row.weights.len(), w: column.weights.len() },
            rows: row.weights.clone(),
            columns: column.weights.clone(),
        };
        Ok(down.iter().flat_map(|row| across.iter().map(move |column| pair(row, column))).collect())
    }

    /// The tiles along one side. The sum of products over all pairs of intervals is the product of the two sums, so
    /// weights that add up to one along each side do so over the picture.
    fn intervals(&self, side: usize) -> Vec<Interval> {
        let length = self.tile.min(side);
        let last = side - length;
        let mut starts: Vec<usize> = (0..last).step_by(self.tile - self.overlap).collect();
        starts.push(last);
        let ramps: Vec<Interval> = starts
            .iter()
            .enumerate()
            .map(|(index, &start)| {
                let shared_before = index.checked_sub(1).and_then(|i| starts.get(i)).map(|&s| s + length - start);
                let shared_after = starts.get(index + 1).map(|&next| start + length - next);
                Interval { start, weights: ramp(length, shared_before, shared_after) }
            })
            .collect();
        normalise(side, ramps)
    }
}

/// A tile along one side of the picture.
struct Interval {
    start: usize,
    weights: Vec<f64>,
}

/// One inside, rising over the pixels shared with the tile before and falling over those shared with the tile after.
fn ramp(length: usize, shared_before: Option<usize>, shared_after: Option<usize>) -> Vec<f64> {
    // Sampled in the middle of the pixels: never zero, and two ramps over the same pixels add up to one.
    let rise = |position: usize, shared: Option<usize>| match shared {
        Some(shared) if position < shared => (position as f64 + 0.5) / shared as f64,
        _ => 1.0,
    };
    (0..length).map(|p| rise(p, shared_before).min(rise(length - 1 - p, shared_after))).collect()
}

/// Divides by the sum at each pixel: where the shifted last tile reaches back over two others, three ramps meet.
fn normalise(side: usize, mut intervals: Vec<Interval>) -> Vec<Interval> {
    let mut sums = vec![0.0; side];
    for Interval { start, weights } in &intervals {
        for (sum, weight) in sums.iter_mut().skip(*start).zip(weights) {
            *sum += weight;
        }
    }
    for Interval { start, weights } in &mut intervals {
        for (weight, sum) in weights.iter_mut().zip(sums.iter().skip(*start)) {
            *weight /= sum;
        }
    }
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TILING: Tiling = Tiling { tile: 64, overlap: 16 };

    fn starts(side: usize) -> Vec<usize> {
        TILING.tiles(side, 1, 1).unwrap().iter().map(|tile| tile.y).collect()
    }

    #[test]
    fn the_last_tile_is_shifted_inwards() {
        assert_eq!(starts(112), [0, 48]);
        assert_eq!(starts(113), [0, 48, 49]);
        assert_eq!(starts(160), [0, 48, 96]);
        assert_eq!(starts(65), [0, 1]);
    }

    #[test]
    fn a_small_picture_is_one_tile() {
        assert_eq!(TILING.tiles(64, 64, 8).unwrap(), [Tile { y: 0, x: 0, h: 64, w: 64 }]);
        let tile = TILING.weighted_tiles(24, 40, 8).unwrap();
        assert_eq!(
            tile,
            [WeightedTile { tile: Tile { y: 0, x: 0, h: 24, w: 40 }, rows: vec![1.0; 24], columns: vec![1.0; 40] }]
        );
    }

    #[test]
    fn one_side_may_be_small() {
        let tiles = TILING.tiles(32, 112, 16).unwrap();
        assert_eq!(tiles, [Tile { y: 0, x: 0, h: 32, w: 64 }, Tile { y: 0, x: 48, h: 32, w: 64 }]);
    }

    #[test]
    fn tiles_come_row_by_row() {
        let places: Vec<_> = TILING.tiles(112, 112, 16).unwrap().iter().map(|tile| (tile.y, tile.x)).collect();
        assert_eq!(places, [(0, 0), (0, 48), (48, 0), (48, 48)]);
    }

    #[test]
    fn weights_cross_in_a_straight_line() {
        let tiles = Tiling { tile: 4, overlap: 2 }.weighted_tiles(6, 1, 1).unwrap();
        assert_eq!(tiles[0].rows, [1.0, 1.0, 0.75, 0.25]);
        assert_eq!(tiles[1].rows, [0.25, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn a_tile_without_pixels_is_an_error() {
        assert_eq!(Tiling { tile: 0, overlap: 0 }.tiles(8, 8, 1), Err(TilingError::EmptyTile));
    }

    #[test]
    fn an_overlap_of_the_whole_tile_is_an_error() {
        for overlap in [8, 9, usize::MAX] {
            assert_eq!(Tiling { tile: 8, overlap }.tiles(9, 9, 1), Err(TilingError::Overlap { tile: 8, overlap }));
        }
    }

    #[test]
    fn tile_and_overlap_must_be_multiples() {
        let error = Tiling { tile: 60, overlap: 16 }.check(8).unwrap_err();
        assert_eq!(error.to_string(), "the tile is 60 pixels, it must be a multiple of 8");
        let error = Tiling { tile: 64, overlap: 12 }.check(8).unwrap_err();
        assert_eq!(error, TilingError::NotMultiple { what: "overlap", value: 12, multiple: 8 });
        assert_eq!(Tiling { tile: 7, overlap: 3 }.check(0), Ok(()));
    }

    #[test]
    fn a_picture_without_pixels_is_an_error() {
        assert_eq!(TILING.tiles(0, 8, 1), Err(TilingError::EmptyImage { height: 0, width: 8 }));
    }

    #[test]
    fn a_tile_larger_than_any_picture_does_not_overflow() {
        let tiles = Tiling { tile: usize::MAX, overlap: 0 }.tiles(3, 3, 1).unwrap();
        assert_eq!(tiles, [Tile { y: 0, x: 0, h: 3, w: 3 }]);
    }

    proptest! {
        #[test]
        fn weights_add_up_to_one_everywhere(
            (height, width) in (1_usize..60, 1_usize..60),
            (tile, overlap) in (1_usize..24).prop_flat_map(|tile| (Just(tile), 0..tile)),
        ) {
            let mut sums = vec![0.0_f64; height * width];
            for WeightedTile { tile, rows, columns } in
                (Tiling { tile, overlap }).weighted_tiles(height, width, 1).unwrap()
            {
                prop_assert!(rows.len() == tile.h && columns.len() == tile.w);
                for (y, row) in rows.iter().enumerate() {
                    for (x, column) in columns.iter().enumerate() {
                        prop_assert!(row * column > 0.0 && row * column <= 1.0);
                        sums[(tile.y + y) * width + tile.x + x] += row * column;
                    }
                }
            }
            prop_assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-12), "{sums:?}");
        }

        #[test]
        fn tiles_are_equal_aligned_and_share_enough(
            (height, width) in (1_usize..16, 1_usize..16),
            (tile, overlap) in (1_usize..6).prop_flat_map(|tile| (Just(tile), 0..tile)),
            multiple in 1_usize..9,
        ) {
            let [height, width, side, overlap] = [height, width, tile, overlap].map(|n| n * multiple);
            let tiles = Tiling { tile: side, overlap }.tiles(height, width, multiple).unwrap();
            for tile in &tiles {
                prop_assert_eq!((tile.h, tile.w), (side.min(height), side.min(width)));
                prop_assert!([tile.y, tile.x].iter().all(|n| n.is_multiple_of(multiple)));
                prop_assert!(tile.y + tile.h <= height && tile.x + tile.w <= width);
            }
            for pair in tiles.windows(2).filter(|pair| pair[0].y == pair[1].y) {
                let shared = pair[0].x + pair[0].w - pair[1].x;
                prop_assert!(pair[0].x < pair[1].x && shared >= overlap, "{pair:?}");
            }
        }
    }
}
