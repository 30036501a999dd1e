//! Scales masks down to the size of a feature map, by area average.
//!
//! The paper samples its masks bilinearly (eDiff-I, section "Paint-with-words"). On a feature map of 8×8 this reads a few
//! pixels of the canvas and can miss a region between them. The average over the area of each cell (a box filter) sees
//! every pixel and keeps the mean of the mask.

use ediffi_core::window::Window;
use ndarray::{Array2, ArrayView2};

use crate::{Error, Result};

/// Divides a window of `map` into `height * width` equal cells and returns the mean of each. A cell that cuts a pixel counts
/// it by the share of its area. Cells may be smaller than a pixel.
///
/// # Shapes
/// `map`: `[rows, columns]`, any size; the result: `[height, width]`.
///
/// # Errors
/// [`Error::Window`] if the window is not valid, [`Error::TargetSize`] if a side of the result or of the map is 0.
pub fn area_average(map: ArrayView2<'_, f32>, window: Window, height: usize, width: usize) -> Result<Array2<f32>> {
    if !window.is_valid() {
        let Window { top, bottom, left, right } = window;
        return Err(Error::Window { top, bottom, left, right });
    }
    if height == 0 || width == 0 || map.is_empty() {
        return Err(Error::TargetSize { height, width });
    }
    // The mean over a rectangle is the mean over its rows of the means over its columns, so A = R · M · Cᵀ.
    let rows = shares(map.nrows(), window.top, window.bottom, height);
    let columns = shares(map.ncols(), window.left, window.right, width);
    Ok(rows.dot(&map.mapv(f64::from)).dot(&columns.t()).mapv(|mean| mean as f32))
}

/// The share of each of `length` pixels in each cell between the fractions `from` and `to`. Every row adds up to one.
///
/// # Shapes
/// The result: `[cells, length]`.
fn shares(length: usize, from: f64, to: f64, cells: usize) -> Array2<f64> {
    let size = length as f64;
    let edge = |cell: usize| size * (from + (to - from) * cell as f64 / cells as f64);
    Array2::from_shape_fn((cells, length), |(cell, pixel)| {
        let (start, end) = (edge(cell), edge(cell + 1));
        let overlap = end.min(pixel as f64 + 1.0) - start.max(pixel as f64);
        overlap.max(0.0) / (end - start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn cells_are_means_of_their_pixels() {
        let map = array![[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.5]];
        assert_eq!(area_average(map.view(), Window::WHOLE, 1, 2).unwrap(), array![[0.75, 0.125]]);
        assert_eq!(area_average(map.view(), Window::WHOLE, 2, 4).unwrap(), map);
    }

    #[test]
    fn cells_may_cut_pixels() {
        let map = array![[1.0, 0.0, 0.0]];
        let halves = area_average(map.view(), Window::WHOLE, 1, 2).unwrap();
        assert!((halves[[0, 0]] - 2.0 / 3.0).abs() < 1e-6 && halves[[0, 1]] == 0.0, "{halves}");
    }

    #[test]
    fn a_larger_target_repeats_pixels() {
        let map = array![[1.0, 0.0]];
        assert_eq!(
            area_average(map.view(), Window::WHOLE, 2, 4).unwrap(),
            array![[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
        );
    }

    #[test]
    fn a_small_region_survives() {
        let mut map = Array2::zeros((64, 64));
        map[[13, 42]] = 1.0;
        let small = area_average(map.view(), Window::WHOLE, 8, 8).unwrap();
        assert_eq!(small[[1, 5]], 1.0 / 64.0);
    }

    #[test]
    fn a_window_shows_its_part() {
        let map = array![[0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.25, 0.0]];
        let right = Window { left: 0.5, ..Window::WHOLE };
        assert_eq!(area_average(map.view(), right, 2, 2).unwrap(), array![[1.0, 0.5], [0.25, 0.0]]);
    }

    #[test]
    fn bad_windows_and_sizes_are_errors() {
        let map = array![[1.0]];
        for window in [
            Window { top: -0.1, ..Window::WHOLE },
            Window { right: 1.1, ..Window::WHOLE },
            Window { left: 0.5, right: 0.5, ..Window::WHOLE },
            Window { bottom: f64::NAN, ..Window::WHOLE },
        ] {
            assert!(matches!(area_average(map.view(), window, 1, 1), Err(Error::Window { .. })), "{window:?}");
        }
        for (height, width) in [(0, 1), (1, 0)] {
            let error = area_average(map.view(), Window::WHOLE, height, width).unwrap_err();
            assert!(matches!(error, Error::TargetSize { .. }), "{error}");
        }
    }

    proptest! {
        #[test]
        fn the_mean_and_the_range_are_kept(
            (rows, columns) in (1_usize..9, 1_usize..9),
            (height, width) in (1_usize..12, 1_usize..12),
            seed in prop::collection::vec(0.0_f32..=1.0, 64),
        ) {
            let map = Array2::from_shape_fn((rows, columns), |(y, x)| seed[y * 8 + x]);
            let scaled = area_average(map.view(), Window::WHOLE, height, width).unwrap();
            let (before, after) = (map.mean().unwrap(), scaled.mean().unwrap());
            prop_assert!((before - after).abs() < 1e-5, "{before} became {after}");
            prop_assert!(scaled.iter().all(|&value| (-1e-6..=1.0 + 1e-6).contains(&value)));
        }

        #[test]
        fn two_windows_side_by_side_are_the_whole(
            (rows, columns) in (1_usize..9, 1_usize..9),
            seed in prop::collection::vec(0.0_f32..=1.0, 64),
        ) {
            let map = Array2::from_shape_fn((rows, columns), |(y, x)| seed[y * 8 + x]);
            let whole = area_average(map.view(), Window::WHOLE, 4, 6).unwrap();
            let left = area_average(map.view(), Window { right: 0.5, ..Window::WHOLE }, 4, 3).unwrap();
            let right = area_average(map.view(), Window { left: 0.5, ..Window::WHOLE }, 4, 3).unwrap();
            let joined = ndarray::concatenate![ndarray::Axis(1), left, right];
            prop_assert!(whole.iter().zip(&joined).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }
}
