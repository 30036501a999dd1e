//! The training of the judge.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ediffi_core::weights::{Params, Scope};
use ediffi_train::fit::{Setup, fit};
use ediffi_train::lineage::Lineage;
use ediffi_train::log::Entry;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::pixels::from_rgb;
use ediffi_train::random::batch_rng;
use ediffi_train::run::{Begin, Run};
use ediffi_train::state::TrainState;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};
use train_icons::dice::Dice;
use train_icons::progress::Progress;

use super::architecture::{Architecture, Network};
use super::network::SIDE;
use super::scenes::{Example, Examples};
use super::spoil::{jumble, jumbled, spoil};
use super::targets::Targets;
use crate::error::Result;

/// Stream of a batch's dice beside those of its scenes.
const SPOILT: u64 = 18;
/// Time between checkpoints.
const SAVED: Duration = Duration::from_secs(120);

/// How the judge is trained.
#[derive(Debug, Clone, clap::Args)]
pub struct Training {
    /// Which judge.
    #[arg(long, value_enum, default_value_t = Architecture::Convolutions)]
    pub architecture: Architecture,
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

/// Trains a judge: a checkpoint and a log in `folder`, and the averaged weights as bf16 in [`trained`], which are yet to be checked.
pub fn train(examples: Examples, folder: &Path, training: &Training) -> Result<()> {
    tch::set_num_threads(1);
    let architecture = training.architecture;
    let steps = training.pictures.div_ceil(training.batch * training.workers);
    let settings = AdamWSettings {
        learning_rate: training.rate,
        warm_up: 200,
        decay_steps: Some(steps),
        clip: 5.0,
        ..AdamWSettings::default()
    };
    let run = Run {
        name: architecture.run(),
        folder,
        begin: if training.resume { Begin::Resume } else { Begin::New },
        steps,
        batch: training.batch,
        accumulate: training.workers,
        first_batch: 0,
        checkpoint_every: SAVED,
        lineage: Lineage::default().with("batch", training.batch).with("workers", training.workers),
    };
    let setup = Setup {
        seed: architecture.start(),
        parent: None,
        device: Device::Cpu,
        kind: Kind::Float,
        optimizer: settings,
        ema: 0.998,
        workers: training.workers,
    };
    let learner = |params: &mut dyn Params| {
        let network = Network::new(architecture, Scope::root(params))?;
        Ok(move |_, batch: Batch| Ok(batch.targets.loss(&network.forward(&batch.pictures)?)?))
    };
    let size = training.batch;
    let batches = move |number| batch(&examples, architecture.scenes(), number, size);
    let mut progress = Progress::new(run.name, steps);
    let observe = |state: &TrainState, entry: Option<&Entry>| {
        progress.step(state.step(), entry);
        Ok(ControlFlow::Continue(()))
    };
    let state = fit(&run, &setup, batches, learner, observe)?;
    progress.finish();
    let notes = HashMap::from([("format".to_owned(), architecture.format().to_owned())]);
    Ok(state.export(&trained(folder, architecture), "", Kind::BFloat16, notes)?)
}

/// Where a trained judge lies in the folder of results.
pub fn trained(folder: &Path, architecture: Architecture) -> PathBuf {
    folder.join(format!("{}.safetensors", architecture.run()))
}

/// Batch `number`: rendered on all cores, spoilt a little.
fn batch(examples: &Examples, seed: u64, number: u64, size: u64) -> Result<Batch> {
    let mut made: Vec<Example> =
        (0..size).into_par_iter().map(|row| examples.example(seed, number * size + row)).collect::<Result<_>>()?;
    let mut dice = Dice::new(seed, number, SPOILT);
    let spoilt = jumbled(made.len(), &mut dice);
    for (example, _) in made.iter_mut().zip(&spoilt).filter(|(_, spoilt)| **spoilt) {
        jumble(&mut example.pixels, &mut dice);
    }
    let pixels: Vec<&[u8]> = made.iter().map(|example| example.pixels.as_slice()).collect();
    let mut rng = batch_rng(seed, number);
    Ok(Batch { pictures: spoil(&from_rgb(&pixels, SIDE, SIDE)?, &mut rng)?, targets: Targets::new(&made, &spoilt)? })
}
