//! When is it faster to turn a channels-last map channels-first for its group norm, and back? What
//! `ediffi_core::nn::GroupNorm` decides is measured here, beside both ways.
//!
//! ```text
//! cargo run --release -p ediffi-core --example group_norm_times [THREADS]
//! ```
//! Prints a table in Markdown: medians of milliseconds, forward alone, and forward and backward.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Instant;

use ediffi_core::Result;
use ediffi_core::nn::{GroupNorm, channels_last};
use ediffi_core::weights::{Fresh, Scope};
use tch::{Device, Kind, Tensor};

/// A way to compute the norm of a map.
type Way<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

const EPS: f64 = 1e-5;
/// Runs of each way; the first few are not counted.
const RUNS: usize = 40;
const UNCOUNTED: usize = 5;

/// Rows, channels, side and groups of the maps: those of the small base at a batch of training and of one guided picture, then
/// those of DeepFloyd IF-I and IF-II.
const MAPS: [[i64; 4]; 10] = [
    [16, 80, 16, 16],
    [16, 160, 16, 16],
    [16, 160, 8, 16],
    [16, 320, 8, 16],
    [2, 80, 16, 16],
    [2, 320, 8, 16],
    [2, 768, 8, 32],
    [2, 1024, 16, 32],
    [2, 192, 64, 32],
    [1, 128, 128, 32],
];

fn main() -> Result<()> {
    if let Some(threads) = std::env::args().nth(1).and_then(|threads| threads.parse().ok()) {
        tch::set_num_threads(threads);
    }
    println!("Milliseconds on {} threads: forward / forward and backward.\n", tch::get_num_threads());
    println!("| map | groups | | channels-last | turned | `GroupNorm` |\n|---|---|---|---|---|---|");
    for [rows, channels, side, groups] in MAPS {
        for kind in [Kind::BFloat16, Kind::Float] {
            let random = || Tensor::f_randn([rows, channels, side, side], (kind, Device::Cpu));
            let (map, upstream) = (channels_last(&random()?)?.f_set_requires_grad(true)?, channels_last(&random()?)?);
            let mut fresh = Fresh::new(1, Device::Cpu);
            let ours = GroupNorm::new(Scope::root(&mut fresh), channels, groups, EPS)?;
            let parameters = fresh.into_named();
            // As in `GroupNorm`, of the kind of the map.
            let one = |index: usize| parameters.get(index).map(|(_, x)| x.f_to_kind(kind)).transpose();
            let norm = |x: &Tensor| x.f_group_norm(groups, one(0)?, one(1)?, EPS, true);
            let ways: [Way<'_>; 3] =
                [&|x| Ok(norm(x)?), &|x| channels_last(&norm(&x.f_contiguous()?)?), &|x| ours.forward(x)];
            print!("| {rows}×{channels}×{side}×{side} | {groups} | {kind:?} |");
            for way in ways {
                let forward = median(|| tch::no_grad(|| way(&map)))?;
                let both = median(|| {
                    let y = way(&map)?;
                    Ok(Tensor::f_run_backward(&[y.f_mul(&upstream)?.f_sum(kind)?], &[&map], false, false)?.remove(0))
                })?;
                print!(" {forward:.2} / {both:.2} |");
            }
            println!();
        }
    }
    Ok(())
}

/// Milliseconds that `work` takes.
fn median(mut work: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let began = Instant::now();
        let _ = work()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let mut counted = times.split_off(UNCOUNTED);
    counted.sort_by(f64::total_cmp);
    Ok(counted.get(counted.len() / 2).copied().unwrap_or(f64::NAN))
}
