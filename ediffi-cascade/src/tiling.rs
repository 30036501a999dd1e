//! Geometry of tiles: how a side of a picture is cut into overlapping tiles, and how their results are blended.
//!
//! A stage whose feature maps do not fit in memory runs tile by tile. Tiles overlap, and where they do their results are
//! mixed with weights that fall off towards the tile's edge, so that no seam shows. The weights of all tiles add up to one
//! at every pixel: along each side they do, and the weight of a pixel is the product of those along the two sides.
//!
//! Near its edge a tile sees less of the picture than a network would. A quarter of the overlap, at each side that two
//! tiles share, is therefore seen but not used; the rest is blended in a straight line.
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

/// One tile along one side of a picture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    /// The first pixel that the network sees.
    pub(crate) start: usize,
    /// How many pixels it sees.
    pub(crate) length: usize,
    /// The first pixel that is used.
    pub(crate) used: usize,
    /// How much each used pixel weighs, above 0 and at most 1.
    pub(crate) weights: Vec<f64>,
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

    /// The tiles along a side of `side` pixels.
    ///
    /// All tiles have the size `tile`, and the last is shifted inwards instead of being cut. Along a side that is no longer
    /// than a tile there is one tile of that length. If the side is a multiple of `multiple`, so are all positions and sizes.
    ///
    /// # Errors
    /// Those of [`Tiling::check`].
    pub(crate) fn spans(&self, side: usize, multiple: usize) -> Result<Vec<Span>, TilingError> {
        self.check(multiple)?;
        let &Self { tile, overlap } = self;
        if side <= tile {
            return Ok(vec![Span { start: 0, length: side, used: 0, weights: vec![1.0; side] }]);
        }
        let margin = overlap / 4 / multiple.max(1) * multiple.max(1);
        let last = side - tile;
        let starts: Vec<usize> = (0..last).step_by(tile - overlap).chain([last]).collect();
        // The picture without the margins at its own border is covered by tiles without theirs.
        let (length, inner) = (tile - 2 * margin, side - 2 * margin);
        let mut weights: Vec<Vec<f64>> = (0..starts.len())
            .map(|index| {
                let at = |index: usize| starts.get(index).copied();
                let shared = |first: usize, second: usize| (first + length).saturating_sub(second);
                let before = index.checked_sub(1).and_then(at).zip(at(index)).map(|(a, b)| shared(a, b));
                let after = at(index).zip(at(index + 1)).map(|(a, b)| shared(a, b));
                ramp(length, before, after)
            })
            .collect();
        normalise(inner, &starts, &mut weights);
        let span = |(start, weights): (usize, Vec<f64>)| {
            // At the border of the picture the margin is used, by this tile alone.
            let border = |at_it: bool| std::iter::repeat_n(1.0, if at_it { margin } else { 0 });
            let used = if start == 0 { 0 } else { start + margin };
            let weights = border(start == 0).chain(weights).chain(border(start == last)).collect();
            Span { start, length: tile, used, weights }
        };
        Ok(starts.into_iter().zip(weights).map(span).collect())
    }
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
fn normalise(side: usize, starts: &[usize], weights: &mut [Vec<f64>]) {
    let mut sums = vec![0.0; side];
    for (start, weights) in starts.iter().zip(weights.iter()) {
        sums.iter_mut().skip(*start).zip(weights).for_each(|(sum, weight)| *sum += weight);
    }
    for (start, weights) in starts.iter().zip(weights) {
        weights.iter_mut().zip(sums.iter().skip(*start)).for_each(|(weight, sum)| *weight /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn starts(side: usize) -> Vec<usize> {
        Tiling { tile: 64, overlap: 16 }.spans(side, 1).unwrap().iter().map(|span| span.start).collect()
    }

    #[test]
    fn the_last_tile_is_shifted_inwards() {
        assert_eq!(starts(112), [0, 48]);
        assert_eq!(starts(113), [0, 48, 49]);
        assert_eq!(starts(160), [0, 48, 96]);
        assert_eq!(starts(65), [0, 1]);
    }

    #[test]
    fn a_short_side_is_one_tile() {
        let tiling = Tiling { tile: 64, overlap: 16 };
        for side in [24, 64] {
            let whole = Span { start: 0, length: side, used: 0, weights: vec![1.0; side] };
            assert_eq!(tiling.spans(side, 8).unwrap(), [whole]);
        }
        let endless = Tiling { tile: usize::MAX, overlap: 0 };
        assert_eq!(endless.spans(3, 1).unwrap()[0].length, 3);
    }

    #[test]
    fn weights_cross_in_a_straight_line() {
        let spans = Tiling { tile: 4, overlap: 2 }.spans(6, 1).unwrap();
        assert_eq!(spans[0].weights, [1.0, 1.0, 0.75, 0.25]);
        assert_eq!(spans[1].weights, [0.25, 0.75, 1.0, 1.0]);
    }

    /// Of an overlap of eight two pixels at each edge are seen alone, and four are blended.
    #[test]
    fn the_margin_is_seen_and_not_used() {
        let [first, second] = &Tiling { tile: 12, overlap: 8 }.spans(16, 1).unwrap()[..] else { panic!() };
        assert_eq!((first.start, first.length, first.used, first.weights.len()), (0, 12, 0, 10));
        assert_eq!((second.start, second.length, second.used, second.weights.len()), (4, 12, 6, 10));
        assert_eq!(first.weights[5..], [1.0, 0.875, 0.625, 0.375, 0.125]);
        assert_eq!(second.weights[..5], [0.125, 0.375, 0.625, 0.875, 1.0]);
    }

    #[test]
    fn tiles_that_make_no_sense_are_errors() {
        assert_eq!(Tiling { tile: 0, overlap: 0 }.spans(8, 1), Err(TilingError::EmptyTile));
        for overlap in [8, 9, usize::MAX] {
            assert_eq!(Tiling { tile: 8, overlap }.spans(9, 1), Err(TilingError::Overlap { tile: 8, overlap }));
        }
        let error = Tiling { tile: 60, overlap: 16 }.check(8).unwrap_err();
        assert_eq!(error.to_string(), "the tile is 60 pixels, it must be a multiple of 8");
        let error = Tiling { tile: 64, overlap: 12 }.check(8).unwrap_err();
        assert_eq!(error, TilingError::NotMultiple { what: "overlap", value: 12, multiple: 8 });
        assert_eq!(Tiling { tile: 7, overlap: 3 }.check(0), Ok(()));
    }

    proptest! {
        #[test]
        fn spans_cover_a_side_evenly(
            side in 1_usize..40,
            (tile, overlap) in (1_usize..16).prop_flat_map(|tile| (Just(tile), 0..tile)),
            multiple in 1_usize..6,
        ) {
            let [side, tile, overlap] = [side, tile, overlap].map(|n| n * multiple);
            let spans = Tiling { tile, overlap }.spans(side, multiple).unwrap();
            let mut sums = vec![0.0_f64; side];
            for Span { start, length, used, weights } in &spans {
                prop_assert_eq!(*length, tile.min(side));
                prop_assert!([*start, *length, *used, weights.len()].iter().all(|n| n.is_multiple_of(multiple)));
                prop_assert!(start <= used && used + weights.len() <= start + length && start + length <= side);
                prop_assert!(weights.iter().all(|&weight| weight > 0.0 && weight <= 1.0));
                sums.iter_mut().skip(*used).zip(weights).for_each(|(sum, weight)| *sum += weight);
            }
            prop_assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-12), "{:?}", sums);
            prop_assert!(spans.windows(2).all(|pair| pair[0].start + tile >= pair[1].start + overlap));
        }
    }
}
