//! Every road that paint takes through attention beside the formula: few and many regions, hard and soft masks, layers that see the text
//! alone and layers that see pixels too, whole pictures and tiles, f32 and bf16.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../../ediffi-core/tests/common/mod.rs"]
mod common;

use std::ops::Range;

use common::devices;
use ediffi_core::nn::{Painted, attend, attend_biased};
use ediffi_paint::{Canvas, Painter, Region, Statistic, Strength, TextTokens, Window, area_average};
use image::{GrayImage, Luma};
use ndarray::Array2;
use tch::{Device, Kind, Tensor};

const HEADS: i64 = 2;
const DEPTH: i64 = 16;
/// Words of the prompt, each a token and a column.
const WORDS: usize = 20;
const ROWS: i64 = 3;
/// Of the feature map.
const SIZE: (i64, i64) = (4, 6);
const SIGMA: f64 = 5.0;
/// A tile that cuts pixels of the canvas.
const TILE: Window = Window { top: 0.25, bottom: 0.75, left: 0.3, right: 1.0 };

/// Numbers without a pattern that matters, the same in every run.
fn wave(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    ((Tensor::arange(count, (Kind::Double, Device::Cpu)) * 1.7 + phase).sin() * 2.0).view(shape)
}

/// Queries, keys of the text and of `others` columns, and values.
fn parts(others: i64) -> [Tensor; 3] {
    let of = |tokens, phase| wave(&[ROWS, HEADS, tokens, DEPTH], phase);
    let keys = WORDS as i64 + others;
    [of(SIZE.0 * SIZE.1, 0.0), of(keys, 1.0), of(keys, 2.0)]
}

/// The mask of a word, on a canvas of 12 × 8 pixels.
fn mask(word: usize, soft: bool) -> GrayImage {
    GrayImage::from_fn(12, 8, |x, y| {
        let level = (97 * word as u32 + 31 * x + 53 * y) % 256;
        Luma([if soft { level as u8 } else { 255 * u8::from(level > 128) }])
    })
}

fn weight(word: usize) -> f64 {
    0.5 + 0.1 * word as f64
}

/// The first `regions` words painted.
fn painter(regions: usize, soft: bool, statistic: Statistic) -> Painter {
    let words: Vec<String> = (0..WORDS).map(|word| format!("w{word:02}")).collect();
    let (prompt, offsets): (String, Vec<Option<Range<usize>>>) =
        (words.join(" "), (0..WORDS).map(|word| Some(4 * word..4 * word + 3)).collect());
    let region = |word: usize| Region::from_image(&words[word], &mask(word, soft)).unwrap().weight(weight(word));
    let canvas = Canvas::new((0..regions).map(region)).unwrap();
    let canvas = canvas.with_strength(Strength { statistic, ..Strength::new(0.4) }).unwrap();
    Painter::new(&canvas, &[TextTokens { encoder: "t5", text: &prompt, offsets: &offsets }]).unwrap()
}

/// softmax(Q·Kᵀ/√d + w·A) V in f64, written out: column j of A is the mask of word j times its weight.
fn formula([q, k, v]: &[Tensor; 3], regions: usize, soft: bool, statistic: Statistic, window: Window) -> Tensor {
    let scores = q.matmul(&k.transpose(2, 3)) / (DEPTH as f64).sqrt();
    let text = scores.narrow(3, 0, WORDS as i64);
    let w = match statistic {
        Statistic::Max => text.amax([2, 3], true),
        Statistic::Std => text.std_correction([2_i64, 3].as_slice(), 0.0, true),
        Statistic::One => Tensor::ones([1, 1, 1, 1], (Kind::Double, Device::Cpu)),
    } * (0.4 * SIGMA.ln_1p());
    let mut a = Array2::<f32>::zeros(((SIZE.0 * SIZE.1) as usize, WORDS));
    for word in 0..regions {
        let image = mask(word, soft);
        let map = Array2::from_shape_fn((8, 12), |(y, x)| f32::from(image[(x as u32, y as u32)].0[0]) / 255.0);
        let small = area_average(map.view(), window, SIZE.0 as usize, SIZE.1 as usize).unwrap();
        let small = small.flatten() * weight(word) as f32;
        a.column_mut(word).assign(&small);
    }
    let a = Tensor::from_slice(&a.into_iter().collect::<Vec<_>>()).view([-1, WORDS as i64]).to_kind(Kind::Double);
    let others = scores.narrow(3, WORDS as i64, scores.size()[3] - WORDS as i64);
    Tensor::cat(&[text + w * a, others], 3).softmax(-1, Kind::Double).matmul(v)
}

/// By how much the painted rows are off, and how much paint changes them, for every number of regions, kind of mask, statistic and window.
fn check(kind: Kind, tolerance: f64) {
    for device in devices() {
        // Columns after the text: a null token and an image, or more pixels than words.
        for others in [2, 40] {
            let parts = parts(others).map(|x| x.to_kind(kind).to_kind(Kind::Double));
            let [q, k, v] = parts.each_ref().map(|x| x.to_kind(kind).to_device(device));
            let plain = attend(&q, &k, &v).unwrap();
            // Nine and more are as many columns as a head has, and seventeen are more.
            for (regions, soft) in [1, 3, 9, 17].into_iter().flat_map(|regions| [(regions, false), (regions, true)]) {
                for statistic in [Statistic::Max, Statistic::Std, Statistic::One] {
                    let painter = painter(regions, soft, statistic);
                    for (window, conditional) in [(Window::WHOLE, 1), (TILE, 2), (Window::WHOLE, 3)] {
                        let case = format!(
                            "{device:?}, {others} others, {regions} regions, soft {soft}, {statistic:?}, {window:?}"
                        );
                        let painted = Painted { hook: &painter, sigma: SIGMA, conditional, window };
                        let found = attend_biased(&q, &k, &v, SIZE, WORDS as i64, painted).unwrap();
                        assert_eq!((found.kind(), found.size()), (kind, plain.size()));
                        let expected = formula(&parts, regions, soft, statistic, window);
                        let first =
                            |x: &Tensor| x.narrow(0, 0, conditional).to_device(Device::Cpu).to_kind(Kind::Double);
                        let distance = |a: Tensor, b: Tensor| (a - b).abs().max().double_value(&[]);
                        let off = distance(first(&found), first(&expected));
                        let effect = distance(first(&plain), first(&expected));
                        assert!(off < tolerance && effect > 2.0 * off, "{case}: {off:.1e} of {effect:.1e}");
                        let rest = |x: &Tensor| x.narrow(0, conditional, ROWS - conditional);
                        let (rest, unpainted) = (rest(&found), rest(&plain));
                        // On a CUDA device another number of rows may take another kernel.
                        let same =
                            rest == unpainted || device != Device::Cpu && rest.allclose(&unpainted, 1e-2, 1e-2, false);
                        assert!(same, "{case}: a row without a prompt");
                    }
                }
            }
        }
    }
}

#[test]
fn every_road_is_the_formula_to_rounding() {
    check(Kind::Float, 1e-5);
}

/// A result is rounded by up to 2⁻⁸ (values go up to 2). Where the fused kernel adds scores and bias, which go up to 10 and more, they are
/// rounded by 2⁻⁶; most with a mask, 2.5e-2 off.
#[test]
fn every_road_in_bf16_is_the_formula_to_rounding() {
    check(Kind::BFloat16, 5e-2);
}
