//! The training of the judge.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ediffi_core::weights::{Fresh, Scope};
use ediffi_train::log::{Entry, LossLog};
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::prefetch::Prefetch;
use ediffi_train::state::{Replica, TrainState};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};
use train_icons::dice::Dice;

use super::network::{Network, SIDE};
use super::scenes::{Example, Examples, TRAINING};
use super::spoil::{jumble, jumbled, spoil};
use super::targets::Targets;
use super::{FORMAT, tensor};
use crate::error::{Error, Result};

/// Stream of a batch's dice beside those of its scenes.
const SPOILT: u64 = 18;
/// Steps between lines of the log.
const LOGGED: u64 = 50;
/// Steps between checkpoints.
const SAVED: u64 = 500;

/// How the judge is trained.
#[derive(Debug, Clone, clap::Args)]
pub struct Training {
    /// Pictures in all.
    #[arg(long, default_value_t = 160_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub pictures: u64,
    /// Pictures of a batch; each worker computes a batch a step.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub batch: u64,
    /// Workers: threads that each compute batches of their own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,
    /// Learning rate.
    #[arg(long, default_value_t = 2e-3)]
    pub rate: f64,
    /// Go on from the checkpoint in the folder, if there is one.
    #[arg(long)]
    pub resume: bool,
}

/// A batch as the network takes it.
struct Batch {
    pictures: Tensor,
    targets: Targets,
}

/// Trains the judge: a checkpoint and a log in `folder`, and the averaged weights as bf16 in `out`, which are yet to be
/// checked.
///
/// # Errors
/// Files that cannot be written; a training that diverges.
pub fn train(examples: Examples, folder: &Path, out: &Path, training: &Training) -> Result<()> {
    tch::set_num_threads(1);
    std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    let rows = training.batch * training.workers;
    let steps = training.pictures.div_ceil(rows);
    let mut fresh = Fresh::new(7, Device::Cpu);
    Network::new(Scope::root(&mut fresh))?;
    let settings = AdamWSettings {
        learning_rate: training.rate,
        warm_up: 200,
        decay_steps: Some(steps),
        clip: 5.0,
        ..AdamWSettings::default()
    };
    let mut state = TrainState::new(fresh.into_named(), settings, 0.998)?;
    let weights: i64 = state.parameters().iter().map(|(_, tensor)| tensor.numel() as i64).sum();
    let checkpoint = folder.join("judge.checkpoint.safetensors");
    if training.resume && checkpoint.is_file() {
        state.resume(&checkpoint)?;
    }
    let examples = Arc::new(examples);
    let (size, first) = (training.batch, state.step() * training.workers);
    let maker = Arc::clone(&examples);
    let batches = Prefetch::new(first, 4, move |number| batch(&maker, number, size))?;
    let mut workers = Vec::new();
    for _ in 0..training.workers {
        let replica = state.replica()?;
        let network = Network::new(Scope::root(&mut replica.source()))?;
        workers.push((replica, network));
    }
    let mut log = LossLog::resume(&folder.join("judge.csv"), state.step())?;
    let bar = ProgressBar::new(training.pictures).with_position(state.pictures());
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} eta {eta}") {
        bar.set_style(style);
    }
    bar.set_prefix(format!("judge ({weights} weights)"));
    let (mut loss, mut gradient, mut waiting, mut began) = (0.0, 0.0, 0.0, Instant::now());
    while state.step() < steps {
        let asked = Instant::now();
        let share = (0..training.workers).map(|_| batches.next()?).collect::<Result<Vec<_>>>()?;
        waiting += asked.elapsed().as_secs_f64();
        loss += spread(&mut workers, share)? / LOGGED as f64;
        let rate = state.rate();
        let replicas: Vec<&Replica> = workers.iter().map(|(replica, _)| replica).collect();
        gradient += state.update_from(&replicas, rows, workers.len())? / LOGGED as f64;
        bar.set_position(state.pictures());
        if state.step().is_multiple_of(LOGGED) {
            let seconds = began.elapsed().as_secs_f64();
            let (speed, waiting_share) = ((LOGGED * rows) as f64 / seconds, waiting / seconds);
            bar.set_message(format!("loss {loss:.4} {speed:.0} images/s"));
            let (step, pictures) = (state.step(), state.pictures());
            log.write(&Entry { step, pictures, loss, gradient, rate, speed, waiting: waiting_share })?;
            (loss, gradient, waiting, began) = (0.0, 0.0, 0.0, Instant::now());
        }
        if state.step().is_multiple_of(SAVED) {
            state.save(&checkpoint, HashMap::new())?;
            export(&state, out)?;
        }
    }
    bar.finish();
    state.save(&checkpoint, HashMap::new())?;
    export(&state, out)
}

fn export(state: &TrainState, out: &Path) -> Result<()> {
    let notes = HashMap::from([("format".to_owned(), FORMAT.to_owned())]);
    Ok(state.export(out, "", Kind::BFloat16, notes)?)
}

/// The mean loss of one batch a worker, whose gradients stay in the replicas.
fn spread(workers: &mut [(Replica, Network)], batches: Vec<Batch>) -> Result<f64> {
    let losses = crate::work::spread(workers.iter_mut().zip(batches), |((_, network), batch)| {
        let loss = batch.targets.loss(&network.forward(&batch.pictures)?)?;
        loss.f_backward()?;
        Ok(loss.f_detach()?.f_double_value(&[])?)
    })?;
    Ok(losses.iter().sum::<f64>() / losses.len().max(1) as f64)
}

/// Batch `number`: rendered on all cores, spoilt a little.
fn batch(examples: &Examples, number: u64, size: u64) -> Result<Batch> {
    let mut made: Vec<Example> =
        (0..size).into_par_iter().map(|row| examples.example(TRAINING, number * size + row)).collect::<Result<_>>()?;
    let mut dice = Dice::new(TRAINING, number, SPOILT);
    let spoilt = jumbled(made.len(), &mut dice);
    for (example, _) in made.iter_mut().zip(&spoilt).filter(|(_, spoilt)| **spoilt) {
        jumble(&mut example.pixels, &mut dice);
    }
    let pixels: Vec<&[u8]> = made.iter().map(|example| example.pixels.as_slice()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(TRAINING);
    rng.set_stream(number);
    Ok(Batch { pictures: spoil(&tensor(&pixels, SIDE)?, &mut rng)?, targets: Targets::new(&made, &spoilt)? })
}
