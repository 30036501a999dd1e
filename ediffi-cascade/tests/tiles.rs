//! A picture made tile by tile.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::sync::{Arc, Mutex};

use common::{Ask, CPU, Log, Model, bytes, difference, dimensions, embeddings, network, pictures, sample};
use ediffi_cascade::{Cascade, Error, Stage, Tiling, low_res};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::denoise_with;
use ediffi_core::guidance::Guidance;
use ediffi_core::nn::{Bias, Norm, ScoreBias, Site};
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::precondition::Edm;
use ediffi_core::runtime::Runtime;
use ediffi_core::schedule::Schedule;
use ediffi_core::seed::Noise;
use ediffi_core::unet::{Adm, Dimensions, UNet};
use ediffi_core::weights::{self, Scope};
use ediffi_core::window::Window;
use tch::{Device, Kind, Tensor};

/// One evaluation at sigma `sigma`, not guided.
fn one_evaluation(sigma: f64) -> impl Fn(&mut Ask) {
    move |ask| {
        ask.settings.guidance = Guidance::new(1.0);
        ask.settings.schedule = Schedule::Custom(vec![sigma, 0.0]);
        ask.settings.steps = 1;
    }
}

/// Tiles without overlap are the network's answers to the quarters of its inputs.
#[test]
fn a_tile_sees_its_part_of_both_pictures() {
    let config = network(true);
    let model = Model::new(&config, 16);
    let (low, seeds, sigma) = (pictures(&[1, 2], 4, 4), [1, 2], 0.5);
    let tiled = sample(&mut model.open(Residency::All), &seeds, |ask| {
        one_evaluation(sigma)(ask);
        ask.low_res = Some(low.shallow_clone());
        ask.tiling = Some(Tiling { tile: 8, overlap: 0 });
    });
    let path = model.folder.path().join("base/low.safetensors");
    let build = |scope: Scope<'_>| UNet::new(scope, &config, Kind::Float);
    let unet = weights::load(&path, |name| Some(name.to_owned()), Device::Cpu, Kind::Float, build).unwrap();
    let x = Noise::new(&seeds, 0).normal(&[2, 3, 16, 16]).unwrap() * sigma;
    let low = low_res::enlarge(&low, 16, 16).unwrap();
    for (top, left) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
        let cut = |x: &Tensor| x.narrow(2, top, 8).narrow(3, left, 8);
        let context = unet.context(&Conditioning { low_res: Some(cut(&low)), ..embeddings(&seeds) }, 2).unwrap();
        let expected = denoise_with(&Edm::default(), &cut(&x), sigma, |input, c_noise| {
            let c_noise = Tensor::f_full([2], c_noise, (Kind::Float, Device::Cpu))?;
            unet.forward(input, &c_noise, &context, None)
        });
        let off = difference(&cut(&tiled), &expected.unwrap().clamp(-1.0, 1.0));
        assert!(off < 1e-5, "{top} {left}: {off}");
    }
}

/// What a tile misses, apart from the margin that is cut off, is the rest of the picture in its group norms and in
/// self-attention. For this network of random weights, the root mean square difference of one evaluation was 0.08 of the
/// estimate's standard deviation without self-attention and 0.11 with it; with tiles of 48 pixels 0.035 and 0.05. The
/// tolerances are twice that.
#[test]
fn tiles_are_close_to_the_whole() {
    let low = pictures(&[1, 2], 16, 16);
    for (attention, tile, tolerance) in [(false, 32, 0.16), (true, 32, 0.22), (false, 48, 0.07), (true, 48, 0.1)] {
        let mut config = dimensions(true);
        config.levels[1].self_attention = attention;
        let model = Model::new(&Adm(config).into(), 64);
        let mut stage = model.open(Residency::All);
        let mut estimate = |tiling| {
            sample(&mut stage, &[1, 2], |ask| {
                one_evaluation(0.5)(ask);
                ask.low_res = Some(low.shallow_clone());
                ask.tiling = tiling;
            })
        };
        let (whole, tiled) = (estimate(None), estimate(Some(Tiling { tile, overlap: 16 })));
        let rms = f64::try_from((&whole - &tiled).square().mean(Kind::Float).sqrt() / whole.std(false)).unwrap();
        assert!(rms > 0.0 && rms < tolerance, "attention {attention}, tile {tile}: {rms}");
    }
}

/// With norms over positions and no self-attention nothing looks further than the convolutions do, here less than the
/// margin of 28 pixels: tiles then are the whole, to rounding.
#[test]
fn tiles_of_a_network_with_position_norms_are_the_whole() {
    let mut config = Dimensions { norm: Norm::Position, ..dimensions(true) };
    config.levels[1].self_attention = false;
    let model = Model::new(&Adm(config).into(), 256);
    let mut stage = model.open(Residency::All);
    let low = pictures(&[1], 64, 64);
    let mut estimate = |tiling| {
        sample(&mut stage, &[1], |ask| {
            one_evaluation(0.5)(ask);
            ask.low_res = Some(low.shallow_clone());
            ask.tiling = tiling;
        })
    };
    let off = difference(&estimate(None), &estimate(Some(Tiling { tile: 160, overlap: 112 })));
    assert!(off < 1e-5, "{off}");
}

/// Pulls what lies left of a fifth of the picture and above its middle towards the first T5 token, and remembers what the
/// layers have shown.
#[derive(Debug, Default)]
struct Corner(Arc<Mutex<Vec<(Window, i64, i64)>>>);

impl ScoreBias for Corner {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        let Site { window, height, width, .. } = *site;
        self.0.lock().unwrap().push((window, height, width));
        // The middle of each pixel of the feature map, in the picture.
        let middle = |i: i64, n: i64, from: f64, to: f64| from + (i as f64 + 0.5) / n as f64 * (to - from);
        let inside = |row, column| {
            let (y, x) =
                (middle(row, height, window.top, window.bottom), middle(column, width, window.left, window.right));
            if y < 0.5 && x < 0.2 { 6.0_f32 } else { 0.0 }
        };
        let values: Vec<f32> = (0..height)
            .flat_map(|row| (0..width).map(move |column| (row, column)))
            .map(|(row, column)| inside(row, column))
            .collect();
        let bias = Tensor::f_zeros([1, 1, height * width, site.shape()[3]], (Kind::Float, site.device()))?;
        bias.f_narrow(3, 0, 1)?.f_copy_(&Tensor::f_from_slice(&values)?.f_reshape([1, 1, -1, 1])?)?;
        Ok(Some(Bias::Dense(bias)))
    }
}

#[test]
fn a_painted_tile_knows_where_it_lies() {
    let model = Model::new(&network(false), 16);
    let corner = Corner::default();
    let seen = Arc::clone(&corner.0);
    let _ = sample(&mut model.open(Residency::All), &[1, 2], |ask| {
        one_evaluation(0.5)(ask);
        ask.size = (16, 24);
        ask.paint = Some(Box::new(corner));
        ask.tiling = Some(Tiling { tile: 8, overlap: 0 });
    });
    // Four layers of each tile, at half the resolution.
    let expected: Vec<_> = [(0.0, 0.5), (0.5, 1.0)]
        .into_iter()
        .flat_map(|(top, bottom)| {
            [(0.0, 8.0 / 24.0), (8.0 / 24.0, 16.0 / 24.0), (16.0 / 24.0, 1.0)]
                .map(|(left, right)| (Window { top, bottom, left, right }, 4, 4))
        })
        .flat_map(|tile| [tile; 4])
        .collect();
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// As above without paint: words are painted in every tile as they are in the whole, and cross-attention looks at no other
/// pixel.
#[test]
fn painted_tiles_of_a_network_with_position_norms_are_the_whole() {
    let mut dimensions = Dimensions { norm: Norm::Position, ..dimensions(false) };
    dimensions.levels[1].self_attention = false;
    let model = Model::new(&Adm(dimensions).into(), 256);
    let mut stage = model.open(Residency::All);
    let mut estimate = |paint: bool, tiling| {
        sample(&mut stage, &[1], |ask| {
            one_evaluation(0.5)(ask);
            ask.settings.guidance = Guidance::new(2.0);
            ask.paint = paint.then(|| Box::new(Corner::default()) as Box<dyn ScoreBias>);
            ask.tiling = tiling;
        })
    };
    let tiling = Some(Tiling { tile: 160, overlap: 112 });
    let (whole, tiled) = (estimate(true, None), estimate(true, tiling));
    assert!(difference(&whole, &tiled) < 1e-5, "{}", difference(&whole, &tiled));
    // Where nothing is painted nothing changes, but for what convolutions carry over the border.
    let plain = estimate(false, tiling);
    assert!(difference(&plain.narrow(2, 160, 96), &tiled.narrow(2, 160, 96)) < 1e-5);
    assert!(difference(&plain, &tiled) > 1e-2);
}

/// In bf16 tiles and paint do what they do in f32, to the eight bits of its numbers.
#[test]
fn tiles_and_paint_in_bf16_are_near_those_in_f32() {
    let model = Model::new(&network(false), 16);
    let run = |kind: Kind, paint: bool, tiling| {
        let runtime = Runtime { kind, ..CPU };
        let stage = Stage::open(model.folder.path(), &model.config, runtime, Residency::All).unwrap();
        sample(&mut Cascade::new(vec![stage]).unwrap(), &[1, 2], |ask| {
            one_evaluation(0.5)(ask);
            ask.settings.guidance = Guidance::new(2.0);
            ask.size = (16, 24);
            ask.paint = paint.then(|| Box::new(Corner::default()) as Box<dyn ScoreBias>);
            ask.tiling = tiling;
        })
    };
    let rms = |x: &Tensor| f64::try_from(x.square().mean(Kind::Float).sqrt()).unwrap();
    for tiling in [None, Some(Tiling { tile: 8, overlap: 4 })] {
        let [(plain, painted), (plain_16, painted_16)] =
            [Kind::Float, Kind::BFloat16].map(|kind| (run(kind, false, tiling), run(kind, true, tiling)));
        for (wide, narrow) in [(&plain, &plain_16), (&painted, &painted_16)] {
            assert_eq!(narrow.kind(), Kind::Float);
            let off = rms(&(wide - narrow)) / rms(wide);
            assert!(off > 0.0 && off < 0.02, "{tiling:?}: {off}");
        }
        let (change, change_16) = (&painted - &plain, &painted_16 - &plain_16);
        let off = rms(&(&change - &change_16)) / rms(&change);
        assert!(off < 0.1, "{tiling:?}: what paint changes is off by {off}");
    }
}

#[test]
fn one_tile_is_the_whole() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let whole = sample(&mut stage, &[1], |_| ());
    let tiled = sample(&mut stage, &[1], |ask| ask.tiling = Some(Tiling { tile: 8, overlap: 2 }));
    assert_eq!(bytes(&whole), bytes(&tiled));
}

#[test]
fn every_tile_can_be_the_last() {
    let model = Model::new(&network(false), 16);
    let mut stage = model.open(Residency::All);
    let mut ask = Ask::new(&stage, &[1]);
    ask.tiling = Some(Tiling { tile: 8, overlap: 0 });
    let mut run = |stop_poll| {
        let mut log = Log { stop_poll, ..Log::default() };
        (ask.run(&mut stage, &mut log), log.polls)
    };
    // Four evaluations of four tiles, and two switches.
    assert_eq!(run(None).1, 18);
    let (result, polls) = run(Some(7));
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(polls, 7);
}
