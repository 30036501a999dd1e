//! The matrix A of the paper: how strongly each pixel is painted for each text token.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, Axis, stack};

use crate::{Binding, Canvas, Result, TextTokens, Window, area_average};

/// A set of regions of a canvas, one bit each.
pub(crate) type Set = u64;

/// The text columns that the same regions paint.
#[derive(Debug)]
struct Layer {
    columns: Vec<usize>,
    regions: Set,
}

/// A canvas and its text columns, from which A is made for a feature map of any size.
#[derive(Debug)]
pub(crate) struct Layers {
    canvas: Canvas,
    layers: Vec<Layer>,
    columns: usize,
}

impl Layers {
    /// `bindings` are those of `canvas` for `encoders`. The columns of the encoders follow each other.
    pub(crate) fn new(canvas: &Canvas, bindings: &[Binding], encoders: &[TextTokens<'_>]) -> Self {
        // A canvas has at most 64 regions (`MAX_REGIONS`).
        let mut owners: BTreeMap<usize, Set> = BTreeMap::new();
        for (region, binding) in bindings.iter().enumerate() {
            let mut first = 0;
            for (encoder, bound) in encoders.iter().zip(&binding.encoders) {
                for token in &bound.tokens {
                    *owners.entry(first + token).or_default() |= 1 << region;
                }
                first += encoder.offsets.len();
            }
        }
        let mut groups: BTreeMap<Set, Vec<usize>> = BTreeMap::new();
        for (column, regions) in owners {
            groups.entry(regions).or_default().push(column);
        }
        let layers = groups.into_iter().map(|(regions, columns)| Layer { columns, regions }).collect();
        let columns = encoders.iter().map(|encoder| encoder.offsets.len()).sum();
        Self { canvas: canvas.clone(), layers, columns }
    }

    /// The regions that act at noise level `sigma`. A region of weight 0 never acts.
    pub(crate) fn active(&self, sigma: f64) -> Set {
        let regions = self.canvas.regions().iter().enumerate();
        let acts = regions.filter(|(_, region)| region.weight > 0.0 && region.sigma.contains(sigma));
        acts.fold(0, |set, (index, _)| set | 1 << index)
    }

    /// The number of text columns, painted or not.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Two factors of A of the regions in `active`, for a feature map of `height * width` that shows `window` of the picture: the
    /// masks of the phrases, and which columns are of which phrase. `None` if nothing of the window is painted.
    ///
    /// # Shapes
    /// The result: `[height * width, phrases]` and `[phrases, columns]`, whose product is A.
    pub(crate) fn factors(
        &self,
        active: Set,
        window: Window,
        height: usize,
        width: usize,
    ) -> Result<Option<[Array2<f32>; 2]>> {
        // Columns whose acting regions are the same share a mask.
        let mut groups: BTreeMap<Set, Array1<f32>> = BTreeMap::new();
        for Layer { columns, regions } in &self.layers {
            let tokens = groups.entry(regions & active).or_insert_with(|| Array1::zeros(self.columns));
            for &column in columns {
                if let Some(token) = tokens.get_mut(column) {
                    *token = 1.0;
                }
            }
        }
        let (mut masks, mut tokens) = (Vec::new(), Vec::new());
        for (regions, columns) in groups {
            let Some(map) = self.strongest(regions) else { continue };
            let small = area_average(map.view(), window, height, width)?;
            if small.iter().any(|&cell| cell > 0.0) {
                masks.push(small.into_iter().collect::<Array1<f32>>());
                tokens.push(columns);
            }
        }
        let stacked = |axis, rows: &[Array1<f32>]| {
            // Rows of one length; none is no matrix.
            stack(Axis(axis), &rows.iter().map(|row| row.view()).collect::<Vec<_>>()).ok()
        };
        Ok(stacked(1, &masks).zip(stacked(0, &tokens)).map(<[_; 2]>::from))
    }

    /// The largest weight × mask of the regions at each pixel of the canvas; `None` without a region. Taking the maximum at
    /// the size of the canvas, and not of the feature map, lets two regions that meet inside a cell fill it together.
    ///
    /// # Shapes
    /// The result: `[height, width]` of the canvas.
    fn strongest(&self, regions: Set) -> Option<Array2<f32>> {
        let mut map = None;
        for (_, region) in self.canvas.regions().iter().enumerate().filter(|(index, _)| regions >> index & 1 == 1) {
            let size = (self.canvas.height() as usize, self.canvas.width() as usize);
            let map = map.get_or_insert_with(|| Array2::zeros(size));
            let scale = region.weight as f32 / f32::from(u8::MAX);
            let levels = region.mask.runs().flat_map(|(level, pixels)| std::iter::repeat_n(level, pixels));
            for (cell, level) in map.iter_mut().zip(levels) {
                *cell = f32::max(*cell, f32::from(level) * scale);
            }
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Region, bind};
    use ediffi_core::interval::SigmaInterval;
    use ndarray::{array, s};
    use std::ops::Range;

    const PROMPT: &str = "red car";

    fn layers(regions: impl IntoIterator<Item = Region>) -> Layers {
        let t5: [Option<Range<usize>>; 3] = [Some(0..3), Some(3..7), None];
        let clip: [Option<Range<usize>>; 4] = [None, Some(0..3), Some(4..7), None];
        let encoders = [
            TextTokens { encoder: "t5", text: PROMPT, offsets: &t5 },
            TextTokens { encoder: "clip", text: PROMPT, offsets: &clip },
        ];
        let canvas = Canvas::new(regions).unwrap();
        Layers::new(&canvas, &bind(&canvas, &encoders).unwrap(), &encoders)
    }

    /// A of the regions in `active`, of the whole picture.
    fn matrix(layers: &Layers, active: Set, height: usize, width: usize) -> Array2<f32> {
        let [masks, tokens] = layers.factors(active, Window::WHOLE, height, width).unwrap().unwrap();
        masks.dot(&tokens)
    }

    fn stripe(phrase: &str, x: Range<u32>) -> Region {
        Region::rectangle(phrase, (4, 1), x, 0..1).unwrap()
    }

    #[test]
    fn columns_follow_the_encoders() {
        let matrix = matrix(&layers([stripe("car", 0..1)]), Set::MAX, 1, 2);
        assert_eq!(matrix, array![[0.0, 0.5, 0.0, 0.0, 0.0, 0.5, 0.0], [0.0; 7]]);
    }

    #[test]
    fn the_strongest_region_counts() {
        let nested = layers([stripe("red car", 0..3), stripe("car", 0..2).weight(2.0)]);
        let matrix = matrix(&nested, Set::MAX, 1, 4);
        assert_eq!(matrix.slice(s![.., 0]), array![1.0, 1.0, 1.0, 0.0], "`red` has one region");
        assert_eq!(matrix.slice(s![.., 1]), array![2.0, 2.0, 1.0, 0.0], "`car` has two");
    }

    #[test]
    fn regions_that_meet_inside_a_cell_fill_it() {
        let halves = layers([stripe("car", 0..1), stripe("car", 1..2)]);
        assert_eq!(matrix(&halves, Set::MAX, 1, 2)[[0, 1]], 1.0);
    }

    #[test]
    fn weight_zero_is_no_paint() {
        assert_eq!(layers([stripe("car", 0..1).weight(0.0)]).active(1.0), 0);
        assert_eq!(layers([stripe("car", 0..1).weight(0.0), stripe("red", 0..1)]).active(1.0), 0b10);
        assert_eq!(layers([stripe("car", 0..1)]).columns(), 7);
    }

    #[test]
    fn a_region_acts_at_its_own_noise_levels() {
        let early = SigmaInterval::new(2.0, f64::INFINITY).unwrap();
        let layers = layers([stripe("red car", 0..1), stripe("car", 1..2).sigma(early)]);
        let paint = |sigma: f64| {
            let matrix = matrix(&layers, layers.active(sigma), 1, 2);
            [matrix.column(0).to_vec(), matrix.column(1).to_vec()]
        };
        assert_eq!(paint(3.0), [[0.5, 0.0], [1.0, 0.0]]);
        assert_eq!(paint(1.0), [[0.5, 0.0], [0.5, 0.0]]);
        assert_eq!([layers.active(2.0), layers.active(1.99)], [0b11, 0b01]);
    }

    #[test]
    fn moving_the_mask_moves_the_paint() {
        let paint = |x| matrix(&layers([stripe("car", x)]), Set::MAX, 1, 4).slice(s![.., 1]).to_vec();
        assert_eq!(paint(0..1), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(paint(2..3), [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn phrases_that_the_same_regions_paint_share_a_mask() {
        let late = SigmaInterval::new(0.0, 2.0).unwrap();
        let nested = layers([stripe("red car", 0..3), stripe("car", 0..2).sigma(late)]);
        for (sigma, phrases) in [(1.0, 2), (3.0, 1)] {
            let [masks, tokens] = nested.factors(nested.active(sigma), Window::WHOLE, 1, 4).unwrap().unwrap();
            assert_eq!((masks.dim(), tokens.dim()), ((4, phrases), (phrases, 7)), "{sigma}");
            assert_eq!(tokens.sum(), 4.0, "a column has one mask");
        }
    }

    #[test]
    fn a_window_without_paint_has_no_factors() {
        let painted = layers([stripe("car", 0..1), stripe("red", 3..4)]);
        let seen = |left, right| {
            let window = Window { left, right, ..Window::WHOLE };
            painted.factors(Set::MAX, window, 1, 1).unwrap().map(|[masks, _]| masks.ncols())
        };
        assert_eq!([seen(0.0, 1.0), seen(0.0, 0.5), seen(0.25, 0.75)], [Some(2), Some(1), None]);
        assert!(painted.factors(0, Window::WHOLE, 1, 1).unwrap().is_none());
    }
}
