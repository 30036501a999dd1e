//! Measures how fast the networks of the small model train, and writes down what another implementation needs to do the same.
//!
//! ```text
//! training_speed FOLDER --network base --precision f32 --workers 2 --steps 60
//! ```
//! Leaves in FOLDER the start weights (`weights.safetensors`, its header says the dimensions and the settings) and the batches
//! (`batches.safetensors`), and prints the losses and the speed as JSON. `comparison/training_speed.py` runs it beside PyTorch.
//!
//! A step is a step of a training without its data: loss, gradients, optimizer and running average, but no scenes drawn and no texts
//! encoded.

#[path = "../../../../../ediffi-cli/src/allocator.rs"]
mod allocator;
mod data;
mod flops;
#[path = "../../../../../examples/shared/report.rs"]
mod report;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use data::{Batch, Result, SIDE};
use ediffi_core::files::make_folder_of;
use ediffi_core::interval::LogNormal;
use ediffi_core::nn::channels_last;
use ediffi_core::precondition::Sample;
use ediffi_core::unet::{Efficient, UNet, UNetConfig};
use ediffi_core::weights::{Fresh, Params, Scope, save};
use ediffi_train::fit::{Setup, fit};
use ediffi_train::lineage::Lineage;
use ediffi_train::loss::denoising_loss;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::run::{Begin, Run};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use train_icons::dimensions;

/// Seed of the start weights.
const SEED: u64 = 1;
/// Pictures a step, however many workers share them: two batches of 16 in the plan `icons`.
const PICTURES: u64 = 32;
/// Steps with pictures of their own; then they come again.
const STEPS_OF_DATA: u64 = 4;
/// Decay of the running average, as the plan `icons` has it for the stem.
const AVERAGE: f64 = 0.9995;
/// First steps whose time is not counted.
const UNCOUNTED: usize = 4;

#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    /// Where weights, batches, checkpoint and log go.
    folder: PathBuf,
    /// Which of the small model's networks trains.
    #[arg(long, value_enum, default_value_t)]
    network: Network,
    /// What it computes in; its parameters are f32 in any case.
    #[arg(long, value_parser = ["f32", "bf16"], default_value = "f32")]
    precision: String,
    /// Threads that train side by side, each on its share of a step's pictures and with its share of the cores.
    #[arg(long, default_value_t = 1)]
    workers: u64,
    /// Steps to train.
    #[arg(long, default_value_t = 60)]
    steps: u64,
    /// Threads of all workers together; all processors if it is left out.
    #[arg(long)]
    threads: Option<u64>,
    /// Train a step for every line `run` on the standard input, and say its time at once: a side of `cargo xtask bench`.
    #[arg(long)]
    turns: bool,
}

/// A network of the plan `icons`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Network {
    #[default]
    Base,
    SuperResolution,
}

impl Network {
    /// Its dimensions, and its noise levels in the plan.
    fn of_the_plan(self) -> Result<(Efficient, LogNormal)> {
        Ok(match self {
            Self::Base => (dimensions::base(), LogNormal::new(0.4, 1.4)?),
            Self::SuperResolution => (dimensions::super_resolution(), LogNormal::new(-0.6, 1.2)?),
        })
    }
}

fn main() -> ExitCode {
    report::report(measure(&Arguments::parse()).map_err(|error| error as Box<dyn std::error::Error>))
}

fn measure(arguments: &Arguments) -> Result<()> {
    let Arguments { folder, network, precision, workers, steps, .. } = arguments;
    if !PICTURES.is_multiple_of(*workers) {
        return Err(format!("{workers} workers cannot share the {PICTURES} pictures of a step").into());
    }
    if *steps <= UNCOUNTED as u64 {
        return Err(format!("the first {UNCOUNTED} steps are not counted: {steps} are too few").into());
    }
    let [weights, batches] = ["weights", "batches"].map(|name| folder.join(format!("{name}.safetensors")));
    make_folder_of(&weights)?;
    let cores = match arguments.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get() as u64,
    };
    tch::set_num_threads(cores as i32);

    let kind = if precision == "bf16" { Kind::BFloat16 } else { Kind::Float };
    let (config, levels) = network.of_the_plan()?;
    let settings = AdamWSettings { learning_rate: 1e-3, warm_up: 10, ..AdamWSettings::default() };
    let data = Batch::draw(&config, levels, (STEPS_OF_DATA * PICTURES) as usize, 1)?;
    let mut fresh = Fresh::new(SEED, Device::Cpu);
    let _ = UNet::new(Scope::root(&mut fresh), &config, kind)?;
    let parameters = fresh.into_named();
    let header = json!({
        "network": UNetConfig::from(config.clone()), "learning_rate": settings.learning_rate, "betas": settings.betas,
        "epsilon": settings.epsilon, "weight_decay": settings.weight_decay, "warm_up": settings.warm_up,
        "clip": settings.clip, "average": AVERAGE, "sigma_data": Sample::default().sigma_data(),
        "max_snr": Sample::MAX_SNR, "pictures": PICTURES, "uncounted": UNCOUNTED,
        "bf16": kind == Kind::BFloat16,
    });
    let header = HashMap::from([("training".to_owned(), header.to_string())]);
    save(&weights, &parameters, header)?;
    save(&batches, &data.named(), HashMap::new())?;

    let threads = (cores / workers).max(1);
    let what = (&config, kind);
    if arguments.turns {
        return train(data, what, settings, folder, *workers, u64::from(u32::MAX), turn).map(drop);
    }
    let rates = json!({ "f32": convolution_rate(Kind::Float)?, "bf16": convolution_rate(Kind::BFloat16)? });
    let go_on = |_: &[f64], _| Ok(ControlFlow::Continue(()));
    let (losses, times) = train(data, what, settings, folder, *workers, *steps, go_on)?;
    let multiply_adds = flops::multiply_adds(&config, SIDE);
    let report = json!({
        "workers": workers, "threads": threads, "losses": losses,
        "pictures_per_second": PICTURES as f64 / median(times.get(UNCOUNTED..).unwrap_or_default()),
        "multiply_adds": multiply_adds,
        // The backward pass is twice the forward pass: gradients by the inputs and by the weights.
        "gflop_per_picture": 3.0 * 2.0 * multiply_adds as f64 / 1e9,
        "convolution_gflops": rates,
    });
    println!("{report}");
    Ok(())
}

/// Says how long the last step took, the first one with what came before it, and waits for a line `run`.
fn turn(times: &[f64], set_up: f64) -> Result<ControlFlow<()>> {
    let reply = match times {
        [first] => json!({ "ready": set_up, "first": first - set_up }),
        times => json!({ "seconds": times.last() }),
    };
    println!("{reply}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(if line.trim() == "run" { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
}

/// The mean loss of every step, and how many seconds it took. After each, `turn` sees the times, and how much of the first was
/// spent before its loss was asked for.
fn train(
    data: Batch,
    (config, kind): (&Efficient, Kind),
    optimizer: AdamWSettings,
    folder: &Path,
    workers: u64,
    steps: u64,
    turn: impl Fn(&[f64], f64) -> Result<ControlFlow<()>>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (start, asked) = (Instant::now(), OnceLock::new());
    let rows = PICTURES / workers;
    let run = Run {
        name: "speed",
        folder,
        begin: Begin::Restart,
        steps,
        batch: rows,
        accumulate: workers,
        first_batch: 0,
        checkpoint_every: Duration::MAX,
        lineage: Lineage::default(),
    };
    let (parent, device, ema) = (None, Device::Cpu, AVERAGE);
    let setup = Setup { seed: SEED, parent, device, kind, optimizer, ema, workers };
    let (sender, receiver) = mpsc::channel();
    let learner = |params: &mut dyn Params| {
        let network = UNet::new(Scope::root(params), config, kind)?;
        let (sender, asked) = (sender.clone(), &asked);
        Ok(move |number: u64, batch: Batch| {
            asked.get_or_init(Instant::now);
            let context = network.context(&batch.conditioning, rows as i64)?;
            let sigmas: Vec<f64> = Vec::try_from(batch.sigmas)?;
            let losses = denoising_loss(&Sample::default(), &batch.clean, &batch.noise, &sigmas, |x, c_noise| {
                network.forward(x, c_noise, &context, None)
            })?;
            let loss = losses.f_mean(Kind::Float)?;
            sender.send((number / workers, loss.f_double_value(&[])?))?;
            Ok(loss)
        })
    };
    let batches = move |number: u64| data.narrow((number * rows % (STEPS_OF_DATA * PICTURES)) as i64, rows as i64);
    let mut times = Vec::new();
    let mut began = Instant::now();
    fit(&run, &setup, batches, learner, |_, _| {
        times.push(began.elapsed().as_secs_f64());
        let set_up = asked.get().map_or(0.0, |asked| asked.duration_since(start).as_secs_f64());
        let flow = turn(&times, set_up)?;
        began = Instant::now();
        Ok(flow)
    })?;
    let mut losses = vec![0.0; times.len()];
    for (step, loss) in receiver.try_iter() {
        if let Some(sum) = losses.get_mut(step as usize) {
            *sum += loss / workers as f64;
        }
    }
    Ok((losses, times))
}

/// GFLOP/s of a 3×3 convolution of 256 channels on 32×32 positions of 16 pictures, forward on all threads: as fast as this
/// machine convolves.
fn convolution_rate(kind: Kind) -> Result<f64> {
    let (rows, side, channels) = (16, 32, 256);
    let _no_grad = tch::no_grad_guard();
    let random = |shape: [i64; 4]| -> Result<Tensor> {
        Ok(channels_last(&Tensor::f_randn(shape, (Kind::Float, Device::Cpu))?)?.f_to_kind(kind)?)
    };
    let (x, weight) = (random([rows, channels, side, side])?, random([channels, channels, 3, 3])?);
    let mut times = Vec::new();
    for _ in 0..8 {
        let began = Instant::now();
        let _ = x.f_conv2d(&weight, None::<&Tensor>, [1], [1], [1], 1)?;
        times.push(began.elapsed().as_secs_f64());
    }
    let flop = 2 * 9 * channels * channels * side * side * rows;
    Ok(flop as f64 / 1e9 / median(times.get(2..).unwrap_or_default()))
}

/// The middle one, the higher of two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
