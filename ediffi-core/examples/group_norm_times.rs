//! When is it faster to turn a channels-last map channels-first for its group norm, and back? What
//! `ediffi_core::nn::GroupNorm` decides is measured here, beside both ways.
//!
//! ```text
//! cargo run --release -p ediffi-core --example group_norm_times
//! ```
//! Prints a table in Markdown: milliseconds of a forward pass, medians, on all threads of libtorch.

use std::time::Instant;

use ediffi_core::Result;
use ediffi_core::nn::{GroupNorm, channels_last};
use ediffi_core::weights::{Fresh, Scope};
use tch::{Device, Kind, Tensor};

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
    let _no_grad = tch::no_grad_guard();
    println!("{} threads\n", tch::get_num_threads());
    println!("| map | groups | | channels-last | turned | `GroupNorm` |\n|---|---|---|---|---|---|");
    for [rows, channels, side, groups] in MAPS {
        for kind in [Kind::BFloat16, Kind::Float] {
            let map = Tensor::f_randn([rows, channels, side, side], (kind, Device::Cpu))?;
            let map = channels_last(&map)?;
            let mut fresh = Fresh::new(1, Device::Cpu);
            let ours = GroupNorm::new(Scope::root(&mut fresh), channels, groups, EPS)?;
            let norm = |x: &Tensor| x.f_group_norm(groups, None::<&Tensor>, None::<&Tensor>, EPS, true);
            let direct = median(|| Ok(norm(&map)?))?;
            let turned = median(|| channels_last(&norm(&map.f_contiguous()?)?))?;
            let chosen = median(|| ours.forward(&map))?;
            println!(
                "| {rows}×{channels}×{side}×{side} | {groups} | {kind:?} | {direct:.3} | {turned:.3} | {chosen:.3} |"
            );
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
