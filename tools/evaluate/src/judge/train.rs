//! The training of the judge.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ediffi_core::weights::{Fresh, Scope};
use ediffi_train::lineage::Lineage;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::prefetch::Prefetch;
use ediffi_train::run::{Begin, Progress, Run};
use ediffi_train::state::TrainState;
use ediffi_train::workers::Worker;
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
/// Time between checkpoints.
const SAVED: Duration = Duration::from_secs(120);

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
    /// Go on from the checkpoint in the folder, if there is one; otherwise one that is there is an error.
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
    let steps = training.pictures.div_ceil(training.batch * training.workers);
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
    let run = Run {
        name: "judge",
        folder,
        begin: if training.resume { Begin::Resume } else { Begin::New },
        steps,
        batch: training.batch,
        accumulate: training.workers,
        checkpoint_every: SAVED,
        lineage: Lineage::default().with("batch", training.batch).with("workers", training.workers),
    };
    run.begin(&mut state)?;
    let examples = Arc::new(examples);
    let (size, maker) = (training.batch, Arc::clone(&examples));
    let batches = Prefetch::new(run.first_batch(&state), 4, move |number| batch(&maker, number, size))?;
    let mut workers = Vec::new();
    for _ in 0..training.workers {
        let replica = state.replica()?;
        let network = Network::new(Scope::root(&mut replica.source()))?;
        let loss = move |_, batch: Batch| Ok(batch.targets.loss(&network.forward(&batch.pictures)?)?);
        workers.push(Worker { replica, loss: Box::new(loss) });
    }
    let bar = ProgressBar::new(steps).with_position(state.step());
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} eta {eta}") {
        bar.set_style(style);
    }
    let weights: i64 = state.parameters().iter().map(|(_, tensor)| tensor.numel() as i64).sum();
    bar.set_prefix(format!("judge ({weights} weights)"));
    let observe = |_: &TrainState, progress: &Progress| {
        bar.set_position(progress.step);
        if let Some(entry) = &progress.entry {
            bar.set_message(format!("loss {:.4} {:.0} pictures/s", entry.loss, entry.speed));
        }
        Ok(ControlFlow::Continue(()))
    };
    run.train(&mut state, || batches.next()?, &mut workers, observe)?;
    bar.finish();
    export(&state, out)
}

fn export(state: &TrainState, out: &Path) -> Result<()> {
    let notes = HashMap::from([("format".to_owned(), FORMAT.to_owned())]);
    Ok(state.export(out, "", Kind::BFloat16, notes)?)
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
