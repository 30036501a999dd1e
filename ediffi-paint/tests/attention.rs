//! The bias at work in an attention layer: what it must do to the attention, and what it must not.
//!
//! Long because all tests share the canvas, the prompt and the closed form of the bias.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../../ediffi-core/tests/common/mod.rs"]
mod common;

use std::ops::Range;

use common::devices;
use ediffi_core::nn::{Painted, ScoreBias, Site, attend, attend_biased};
use ediffi_paint::{
    Canvas, Error, Painter, Region, Result, Strength, TextTokens, WeightFunction, Window, area_average,
};
use image::imageops::{flip_horizontal, flip_vertical, rotate270};
use image::{GrayImage, Luma};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

const PROMPT: &str = "a cat and a dog";
const HEADS: i64 = 2;
const DEPTH: i64 = 8;
/// Tokens of T5 and CLIP together.
const COLUMNS: i64 = 13;
/// Columns of "cat" and of "dog".
const CAT: [i64; 2] = [1, 8];
const DOG: [i64; 2] = [4, 11];
/// Side of the feature map.
const SIDE: i64 = 4;

fn painter(canvas: &Canvas) -> Painter {
    let t5: [Option<Range<usize>>; 6] = [Some(0..1), Some(1..5), Some(5..9), Some(9..11), Some(11..15), None];
    let clip: [Option<Range<usize>>; 7] =
        [None, Some(0..1), Some(2..5), Some(6..9), Some(10..11), Some(12..15), Some(15..15)];
    let t5 = TextTokens { encoder: "t5", text: PROMPT, offsets: &t5 };
    let clip = TextTokens { encoder: "clip", text: PROMPT, offsets: &clip };
    Painter::new(canvas, &[t5, clip]).unwrap()
}

/// The cat in the left half, the dog in the lower right quarter.
fn canvas(weight: f64) -> Canvas {
    let cat = Region::rectangle("cat", (16, 16), 0..8, 0..16).unwrap();
    let dog = Region::rectangle("dog", (16, 16), 8..16, 8..16).unwrap();
    Canvas::new([cat, dog]).unwrap().with_strength(Strength::new(weight)).unwrap()
}

/// Numbers without a pattern that matters, the same in every run.
fn wave(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) * 1.7 + phase).sin() * 2.0).view(shape)
}

/// q·k/√d: `[rows, HEADS, pixels, COLUMNS]`.
fn scores(rows: i64, pixels: i64, phase: f64) -> Tensor {
    let queries = wave(&[rows, HEADS, pixels, DEPTH], phase);
    let keys = wave(&[rows, HEADS, COLUMNS, DEPTH], phase + 0.5);
    queries.matmul(&keys.transpose(2, 3)) / (DEPTH as f64).sqrt()
}

fn bias(painter: &Painter, sigma: f64, scores: &Tensor) -> Option<Tensor> {
    let bias = painter.bias(&Site::new(sigma, SIDE, SIDE, scores)).unwrap();
    bias.map(|bias| bias.into_dense().unwrap())
}

/// Mean attention of the pixels (first row, first head) that `inside` names to these columns.
fn mass(painter: &Painter, sigma: f64, columns: [i64; 2], inside: impl Fn(i64, i64) -> bool) -> f64 {
    let scores = scores(1, SIDE * SIDE, 0.0);
    let biased = bias(painter, sigma, &scores).map_or_else(|| scores.shallow_clone(), |bias| &scores + bias);
    let attention = biased.softmax(-1, Kind::Float);
    let pixels = (0..SIDE * SIDE).filter(|pixel| inside(pixel / SIDE, pixel % SIDE));
    let values: Vec<f64> =
        pixels.flat_map(|pixel| columns.map(|column| attention.double_value(&[0, 0, pixel, column]))).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn the_bias_is_the_papers_formula() {
    let (scores, painter) = (scores(2, SIDE * SIDE, 0.3), painter(&canvas(0.4)));
    // One painter serves all devices.
    for device in devices() {
        let bias = bias(&painter, 9.6, &scores.to_device(device)).unwrap();
        assert_eq!((bias.size(), bias.kind(), bias.device()), (scores.size(), Kind::Float, device));
        check_formula(&scores, &bias.to_device(Device::Cpu));
    }
}

/// Weight 0.4 at sigma 9.6.
fn check_formula(scores: &Tensor, bias: &Tensor) {
    for (row, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let strength = 0.4 * 10.6_f64.ln() * scores.get(row).get(head).max().double_value(&[]);
        for pixel in 0..SIDE * SIDE {
            let (y, x) = (pixel / SIDE, pixel % SIDE);
            for column in 0..COLUMNS {
                let painted = (CAT.contains(&column) && x < 2) || (DOG.contains(&column) && x >= 2 && y >= 2);
                let expected = if painted { strength } else { 0.0 };
                let found = bias.double_value(&[row, head, pixel, column]);
                assert!((found - expected).abs() < 1e-5, "row {row} pixel {pixel} column {column}: {found}");
            }
        }
    }
}

#[test]
fn adding_before_or_after_the_division_is_the_same() {
    let scores = scores(1, SIDE * SIDE, 0.3);
    let painter = painter(&canvas(0.7));
    let root = (DEPTH as f64).sqrt();
    let after = &scores + bias(&painter, 5.0, &scores).unwrap();
    let raw = &scores * root;
    let before = (&raw + bias(&painter, 5.0, &raw).unwrap()) / root;
    assert!((after - before).abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn no_weight_is_no_bias() {
    let scores = scores(1, SIDE * SIDE, 0.0);
    assert!(bias(&painter(&canvas(0.0)), 5.0, &scores).is_none());
    let unpainted = Region::rectangle("cat", (16, 16), 0..8, 0..16).unwrap().weight(0.0);
    assert!(bias(&painter(&Canvas::new([unpainted]).unwrap()), 5.0, &scores).is_none());
    assert!(bias(&painter(&canvas(1.0)), 0.0, &scores).is_none());
}

/// Queries, keys and values of `rows` pictures. `keys`: the text columns and whatever else is attended to.
fn parts(rows: i64, keys: i64) -> [Tensor; 3] {
    let of = |tokens, phase| wave(&[rows, HEADS, tokens, DEPTH], phase);
    [of(SIDE * SIDE, 0.0), of(keys, 1.0), of(keys, 2.0)]
}

/// The attention of a layer that is painted for its first `conditional` rows at sigma 5.
fn attended([q, k, v]: &[Tensor; 3], conditional: i64, hook: &dyn ScoreBias) -> Tensor {
    let painted = Painted { hook, sigma: 5.0, conditional, window: Window::WHOLE };
    attend_biased(q, k, v, (SIDE, SIDE), COLUMNS, painted).unwrap()
}

#[test]
fn zero_weight_leaves_attention_as_it_is() {
    // Two more keys stand for the image embedding and the null token, sixteen for the pixels of joint attention.
    for keys in [COLUMNS, COLUMNS + 2, COLUMNS + SIDE * SIDE] {
        let parts = parts(4, keys);
        let [q, k, v] = &parts;
        assert_eq!(attended(&parts, 2, &painter(&canvas(0.0))), attend(q, k, v).unwrap());
    }
}

/// softmax(Q·Kᵀ/√d + bias) V, with the bias of the painter in the text columns.
fn softmax_of_the_biased([q, k, v]: &[Tensor; 3], painter: &Painter) -> Tensor {
    let scores = q.matmul(&k.transpose(2, 3)) / (DEPTH as f64).sqrt();
    let text = scores.narrow(3, 0, COLUMNS);
    let bias = bias(painter, 5.0, &text).unwrap();
    let others = scores.narrow(3, COLUMNS, scores.size()[3] - COLUMNS);
    Tensor::cat(&[text + bias, others], 3).softmax(-1, Kind::Float).matmul(v)
}

#[test]
fn conditional_rows_are_biased_and_the_others_come_out_bit_for_bit() {
    for device in devices() {
        for keys in [COLUMNS + 2, COLUMNS + SIDE * SIDE] {
            let parts = parts(4, keys).map(|x| x.to_device(device));
            let [q, k, v] = &parts;
            let painter = painter(&canvas(0.4));
            let (plain, painted) = (attend(q, k, v).unwrap(), attended(&parts, 2, &painter));
            let expected = softmax_of_the_biased(&parts, &painter);
            let off = (painted.narrow(0, 0, 2) - expected.narrow(0, 0, 2)).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{device:?}: {off:.1e}");
            let (rest, unpainted) = (painted.narrow(0, 2, 2), plain.narrow(0, 2, 2));
            // On a CUDA device another number of rows may take another kernel.
            let same = device == Device::Cpu && rest == unpainted;
            assert!(same || device != Device::Cpu && rest.allclose(&unpainted, 1e-5, 1e-5, false), "{device:?}");
        }
    }
}

#[test]
fn two_pictures_together_are_attended_as_each_alone() {
    let painter = painter(&canvas(0.4));
    let together = parts(2, COLUMNS + 2);
    let all = attended(&together, 2, &painter);
    for row in 0..2 {
        let alone = together.each_ref().map(|x| x.narrow(0, row, 1));
        assert!(attended(&alone, 1, &painter).allclose(&all.narrow(0, row, 1), 1e-6, 1e-6, false), "row {row}");
    }
}

/// Where text and pixels share one softmax, paint takes from all pixels alike: among themselves they keep their shares.
#[test]
fn joint_attention_is_painted_in_its_text_columns_alone() {
    let keys = COLUMNS + SIDE * SIDE;
    let [q, k, _] = parts(1, keys);
    // With the identity for values, attention gives its own weights.
    let identity = Tensor::eye(keys, (Kind::Float, Device::Cpu)).expand([1, HEADS, keys, keys], false);
    let parts = [q, k, identity];
    let [plain, painted] = [0.0, 1.0].map(|weight| attended(&parts, 1, &painter(&canvas(weight))));
    let sum = |x: &Tensor, pixel: i64, from: i64, count: i64| {
        x.select(0, 0).select(0, 0).select(0, pixel).narrow(0, from, count).sum(Kind::Double).double_value(&[])
    };
    for pixel in 0..SIDE * SIDE {
        let shares = |x: &Tensor| {
            let pixels = x.select(0, 0).select(0, 0).select(0, pixel).narrow(0, COLUMNS, SIDE * SIDE);
            &pixels / pixels.sum(Kind::Float)
        };
        assert!(shares(&plain).allclose(&shares(&painted), 1e-4, 1e-6, false), "pixel {pixel}");
        let in_cat = pixel % SIDE < 2;
        let cat = |x: &Tensor| CAT.map(|column| sum(x, pixel, column, 1)).iter().sum::<f64>();
        assert_eq!(cat(&painted) > cat(&plain) + 1e-3, in_cat, "pixel {pixel}");
        let blank = pixel % SIDE >= 2 && pixel / SIDE < 2;
        let unchanged = (sum(&painted, pixel, COLUMNS, SIDE * SIDE) - sum(&plain, pixel, COLUMNS, SIDE * SIDE)).abs();
        assert_eq!(unchanged < 1e-6, blank, "pixel {pixel}");
    }
}

#[test]
fn attention_grows_with_weight_and_sigma() {
    let left = |_: i64, x: i64| x < 2;
    let by_weight = [0.0, 0.1, 0.4, 1.0, 2.0].map(|w| mass(&painter(&canvas(w)), 2.0, CAT, left));
    assert!(by_weight.is_sorted_by(|a, b| a < b), "{by_weight:?}");
    let by_sigma = [0.0, 0.1, 1.0, 10.0, 80.0].map(|sigma| mass(&painter(&canvas(0.4)), sigma, CAT, left));
    assert!(by_sigma.is_sorted_by(|a, b| a < b), "{by_sigma:?}");
}

/// The attention of every pixel (first row, first head) to the cat, as a map.
fn map_of_cat(painter: &Painter, sigma: f64, scores: &Tensor) -> Tensor {
    let biased = bias(painter, sigma, scores).map_or_else(|| scores.shallow_clone(), |bias| scores + bias);
    let attention = biased.softmax(-1, Kind::Float).select(0, 0).select(0, 0);
    CAT.map(|column| attention.select(1, column)).iter().sum::<Tensor>().view([SIDE, SIDE])
}

/// A cat painted with these levels, each over a cell of the feature map.
fn levels(levels: &[u8]) -> GrayImage {
    GrayImage::from_fn(16, 16, |x, y| Luma([levels[(y / 4 * 4 + x / 4) as usize]]))
}

fn cat_in(mask: &GrayImage, weight: f64) -> Painter {
    let canvas = Canvas::new([Region::from_image("cat", mask).unwrap()]).unwrap();
    painter(&canvas.with_strength(Strength::new(weight)).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn more_weight_and_more_noise_draw_more_attention(
        painted in prop::collection::vec(any::<u8>(), 16),
        (weight, more) in (0.01_f64..2.0, 0.01_f64..1.0),
        (sigma, louder) in (0.01_f64..40.0, 0.1_f64..40.0),
        phase in 0.0_f64..6.0,
    ) {
        prop_assume!(painted.iter().any(|&level| level > 0));
        let (scores, mask) = (scores(1, SIDE * SIDE, phase), levels(&painted));
        let map = |weight, sigma| map_of_cat(&cat_in(&mask, weight), sigma, &scores);
        let (base, stronger, noisier) = (map(weight, sigma), map(weight + more, sigma), map(weight, sigma + louder));
        for (pixel, &level) in (0_i64..).zip(&painted) {
            let at = |map: &Tensor| map.double_value(&[pixel / SIDE, pixel % SIDE]);
            // Where the phrase has nearly all attention already, rounding is all that can grow.
            let full = at(&base) > 1.0 - 1e-5;
            if level == 0 {
                prop_assert!((at(&stronger) - at(&base)).abs() < 1e-6 && (at(&noisier) - at(&base)).abs() < 1e-6);
            } else if !full {
                prop_assert!(at(&stronger) > at(&base) - 1e-7 && at(&noisier) > at(&base) - 1e-7, "pixel {}", pixel);
            }
            if level > 100 && !full && more > 0.05 {
                prop_assert!(at(&stronger) > at(&base), "pixel {}", pixel);
            }
        }
    }

    /// Mirrored and turned together with what the pixels ask for, the canvas mirrors and turns the attention.
    #[test]
    fn a_flipped_or_turned_canvas_flips_or_turns_the_attention(
        painted in prop::collection::vec(any::<u8>(), 16),
        phase in 0.0_f64..6.0,
    ) {
        prop_assume!(painted.iter().any(|&level| level > 0));
        let (scores, mask) = (scores(1, SIDE * SIDE, phase), levels(&painted));
        let plain = map_of_cat(&cat_in(&mask, 0.5), 5.0, &scores);
        let moved = |how: &dyn Fn(&Tensor) -> Tensor| {
            let pixels = scores.view([1, HEADS, SIDE, SIDE, COLUMNS]);
            how(&pixels).contiguous().view([1, HEADS, SIDE * SIDE, COLUMNS])
        };
        let left_right = flip_horizontal(&mask);
        let flipped = map_of_cat(&cat_in(&left_right, 0.5), 5.0, &moved(&|x| x.flip([3])));
        prop_assert!(flipped.allclose(&plain.flip([1]), 1e-5, 1e-6, false));
        let upside_down = flip_vertical(&mask);
        let flipped = map_of_cat(&cat_in(&upside_down, 0.5), 5.0, &moved(&|x| x.flip([2])));
        prop_assert!(flipped.allclose(&plain.flip([0]), 1e-5, 1e-6, false));
        // A quarter turn against the clock: what was the right column is the upper row.
        let turned = rotate270(&mask);
        let map = map_of_cat(&cat_in(&turned, 0.5), 5.0, &moved(&|x| x.rot90(1, [2, 3])));
        prop_assert!(map.allclose(&plain.rot90(1, [0, 1]), 1e-5, 1e-6, false));
    }
}

#[test]
fn moving_the_mask_moves_the_attention() {
    let (upper_left, lower_right) = (|y: i64, x: i64| y < 2 && x < 2, |y: i64, x: i64| y >= 2 && x >= 2);
    let at = |x: Range<u32>, y: Range<u32>| {
        let cat = Region::rectangle("cat", (16, 16), x, y).unwrap();
        let painter = painter(&Canvas::new([cat]).unwrap());
        (mass(&painter, 5.0, CAT, upper_left), mass(&painter, 5.0, CAT, lower_right))
    };
    let nowhere = painter(&canvas(0.0));
    let plain = (mass(&nowhere, 5.0, CAT, upper_left), mass(&nowhere, 5.0, CAT, lower_right));
    let (first, second) = (at(0..8, 0..8), at(8..16, 8..16));
    assert!(first.0 > 1.5 * plain.0 && first.1 == plain.1, "{first:?} {plain:?}");
    assert!(second.1 > 1.5 * plain.1 && second.0 == plain.0, "{second:?} {plain:?}");
}

#[test]
fn outside_the_mask_nothing_changes() {
    let blank = |y: i64, x: i64| x >= 2 && y < 2;
    for columns in [CAT, DOG] {
        let unpainted = mass(&painter(&canvas(0.0)), 5.0, columns, blank);
        assert_eq!(mass(&painter(&canvas(1.0)), 5.0, columns, blank), unpainted);
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let painter = painter(&canvas(0.4));
    let rows = [scores(1, SIDE * SIDE, 0.0), scores(1, SIDE * SIDE, 3.0) * 4.0];
    let together = bias(&painter, 5.0, &Tensor::cat(&rows, 0)).unwrap();
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(bias(&painter, 5.0, row).unwrap(), together.narrow(0, index as i64, 1), "row {index}");
    }
}

#[test]
fn the_standard_deviation_can_be_used() {
    let scores = scores(1, SIDE * SIDE, 0.0);
    let strength = Strength::deviation(0.5);
    let canvas = canvas(1.0).with_strength(strength).unwrap();
    let found = bias(&painter(&canvas), 3.0, &scores).unwrap().double_value(&[0, 1, 0, CAT[0]]);
    let expected = 0.5 * 10.0_f64.ln() * scores.get(0).get(1).std(false).double_value(&[]);
    assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
}

#[derive(Debug)]
struct Constant(f64);

impl WeightFunction for Constant {
    fn weight(&self, site: &Site<'_>) -> Result<Option<Tensor>> {
        Ok(Some(Tensor::f_full([1, 1, 1, 1], self.0, (Kind::Float, site.device()))?))
    }
}

#[test]
fn another_weight_function_can_be_given() {
    let painter = painter(&canvas(0.0)).with_weight(Constant(3.0));
    let bias = bias(&painter, 0.0, &scores(1, SIDE * SIDE, 0.0)).unwrap();
    assert_eq!(bias.double_value(&[0, 0, 0, CAT[0]]), 3.0);
}

#[test]
fn tall_and_wide_maps_of_one_area_differ() {
    let painter = painter(&canvas(0.0)).with_weight(Constant(1.0));
    let scores = scores(1, 16, 0.0);
    let column = |height, width| {
        let bias = painter.bias(&Site::new(1.0, height, width, &scores)).unwrap().unwrap().into_dense().unwrap();
        (0..16).map(|pixel| bias.double_value(&[0, 0, pixel, CAT[0]])).collect::<Vec<_>>()
    };
    assert_eq!(column(8, 2), [1.0, 0.0].repeat(8));
    assert_eq!(column(2, 8), [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0].repeat(2));
    assert_eq!(column(8, 2), [1.0, 0.0].repeat(8), "the first size is still known");
}

#[test]
fn a_tile_shows_its_part_of_the_canvas() {
    let whole = painter(&canvas(0.0)).with_weight(Constant(1.0));
    let scores = scores(1, SIDE * SIDE, 0.0);
    let seen = |window| whole.bias(&Site::new(1.0, SIDE, SIDE, &scores).showing(window));
    let bias = seen(Window { left: 0.5, ..Window::WHOLE }).unwrap().unwrap().into_dense().unwrap();
    let sum = |column| bias.select(3, column).sum(Kind::Float).double_value(&[]);
    assert_eq!((sum(CAT[0]), sum(DOG[0])), (0.0, 8.0));
    let error = seen(Window { left: 0.5, right: 0.2, ..Window::WHOLE }).unwrap_err();
    let ediffi_core::Error::ScoreBias(source) = error else { panic!("{error}") };
    assert!(source.to_string().starts_with("the window spans"), "{source}");
}

#[test]
fn a_painter_can_move_to_another_thread() {
    let painter = painter(&canvas(0.4));
    let bindings = std::thread::spawn(move || painter.bindings().len()).join().unwrap();
    assert_eq!(bindings, 2);
}

#[test]
fn scores_of_another_shape_are_an_error() {
    let painter = painter(&canvas(0.4));
    assert_eq!(painter.columns(), COLUMNS as usize);
    let narrow = scores(1, 16, 0.0).narrow(3, 0, COLUMNS - 1);
    let flat = scores(1, 16, 0.0).flatten(0, 1);
    let whole = scores(1, 16, 0.0);
    for (scores, height, width) in
        [(&narrow, 4, 4), (&flat, 4, 4), (&whole, 4, 5), (&whole, -4, -4), (&whole, i64::MAX, 2)]
    {
        let error = painter.bias(&Site::new(1.0, height, width, scores)).unwrap_err();
        let ediffi_core::Error::ScoreBias(source) = error else { panic!("{error}") };
        assert!(source.to_string().starts_with("attention scores have shape"), "{source}");
    }
}

#[test]
fn a_failed_tensor_operation_keeps_its_source() {
    #[derive(Debug)]
    struct Broken;
    impl WeightFunction for Broken {
        fn weight(&self, site: &Site<'_>) -> Result<Option<Tensor>> {
            Ok(Some(site.scores()?.f_view([-1, 12_345])?))
        }
    }
    let scores = scores(1, 16, 0.0);
    let broken = painter(&canvas(0.4)).with_weight(Broken);
    let error = broken.bias(&Site::new(1.0, 4, 4, &scores)).unwrap_err();
    assert!(matches!(error, ediffi_core::Error::Torch { .. }), "{error}");
    let error = Broken.weight(&Site::new(1.0, 4, 4, &scores)).unwrap_err();
    assert!(matches!(error, Error::Torch { .. }) && std::error::Error::source(&error).is_some());
}

#[test]
fn a_map_without_pixels_cannot_be_scaled() {
    let empty = ndarray::Array2::<f32>::zeros((0, 4));
    assert!(matches!(area_average(empty.view(), Window::WHOLE, 2, 2), Err(Error::TargetSize { .. })));
}
