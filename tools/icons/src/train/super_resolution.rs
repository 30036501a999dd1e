//! The two super-resolution networks, trained on crops with a corrupted smaller picture.

use std::path::Path;

use ediffi_cascade::low_res::{Corruption, enlarge};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::unet::UNet;
use ediffi_core::weights::{Fresh, Scope};
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::plan::{NetworkPlan, StagePlan, Task};
use ediffi_train::prefetch::Prefetch;
use ediffi_train::run::Begin;
use ediffi_train::state::{Shared, TrainState};
use ediffi_train::workers::Worker;
use tch::{Kind, Tensor};
use train_icons::dimensions;

use super::base::loss;
use super::batches::{Crops, dice};
use super::encoders::{Clip, T5};
use super::workshop::{Outcome, Workshop, first_batch, seed_of};
use super::{Result, preview};

/// Side of the crops that both networks train on.
const CROP: u32 = 64;

/// Where the sheets' sampling starts, as in the plan `icons`.
const SIGMA_MAX: f64 = 40.0;

/// Trains a network that makes pictures of `full` pixels from a quarter of that, and exports its averaged weights.
pub fn train(
    workshop: &Workshop,
    stage: &StagePlan,
    network: &NetworkPlan,
    begin: Begin,
    full: u32,
) -> Result<Outcome> {
    let task = Task::Network(stage, network);
    let (name, training, runtime) = (task.name(), task.training(), workshop.runtime);
    let lineage = workshop.lineage(stage, network)?;
    let (weights, notes) = (workshop.weights(&name), lineage.notes());
    if begin == Begin::Resume && workshop.is_trained(&weights, training.steps, &lineage)? {
        println!("{name}: trained");
        return Ok(Outcome::Trained);
    }
    workshop.discard(begin, &weights)?;
    let config = dimensions::super_resolution();
    let encoders = || -> Result<_> { Ok((Clip::open(&workshop.clip(), runtime)?, T5::open(&workshop.t5(), runtime)?)) };
    let mut fresh = Fresh::new(seed_of(&name, workshop.plan.seed), runtime.device);
    let _ = UNet::new(Scope::root(&mut fresh), &config, runtime.kind)?;
    let mut state = TrainState::new(fresh.into_named(), training.optimizer(), training.ema)?;
    let run = workshop.run(&name, &task, begin, lineage);
    run.begin(&mut state)?;
    if let Some(parent) = workshop.parent(stage, network).filter(|_| state.step() == 0) {
        state.start_from(&parent)?;
    }

    let levels = stage.levels(network)?;
    let dropout = ConditioningDropout { clip_image: 0.0, ..ConditioningDropout::default() };
    let (data, rows) = (workshop.data(run.batch), run.batch as i64);
    let (offset, maker) = (first_batch(&name), workshop.data(run.batch));
    let batches = Prefetch::new(offset + run.first_batch(&state), 6, move |n| maker.crops(n, full, CROP))?;
    let side = i64::from(CROP);
    let corruption = if full > 256 { Corruption::for_256() } else { Corruption::for_64() };
    let seed = workshop.plan.seed ^ u64::from(full);
    let mut workers = Vec::new();
    for _ in 0..workshop.workers(run.accumulate) {
        let replica = state.replica()?;
        let network = UNet::new(Scope::root(&mut replica.source()), &config, runtime.kind)?;
        let (clip, t5) = encoders()?;
        let loss = move |number, batch: Crops| {
            let mut rng = dice(seed, offset + number);
            let small = corruption.corrupt(&batch.small, &mut rng)?;
            let mut conditioning = texts(&clip, &t5, &batch.captions)?;
            conditioning.low_res = Some(enlarge(&small.f_to_device(runtime.device)?, side, side)?);
            let conditioning = dropout.apply(&conditioning, rows, &mut rng)?;
            let context = network.context(&conditioning, rows)?;
            loss(&network, &context, &batch.large.f_to_device(runtime.device)?, &levels, &mut rng)
        };
        workers.push(Worker { replica, loss: Box::new(loss) });
    }
    let (clip, t5) = encoders()?;
    let sheet = |state: &TrainState, path: &Path| {
        let _no_grad = tch::no_grad_guard();
        let shown = 8.min(rows);
        let batch = data.crops(u64::MAX / data.rows - 1, full, CROP)?;
        let captions: Vec<String> = batch.captions.into_iter().take(shown as usize).collect();
        let mut conditioning = texts(&clip, &t5, &captions)?;
        let small = batch.small.f_narrow(0, 0, shown)?;
        let spoiled = enlarge(&corruption.corrupt(&small, &mut dice(seed, u64::MAX))?, side, side)?;
        conditioning.low_res = Some(spoiled.f_to_device(runtime.device)?);
        let mut shared = Shared(state.average());
        let network = UNet::new(Scope::root(&mut shared), &config, runtime.kind)?;
        let sharp = preview::sample(&[(SigmaInterval::ALL, &network)], &conditioning, shown, side, (1.0, SIGMA_MAX))?;
        // Three lines: what the network is given, what it makes of it, what it should have made.
        let truth = batch.large.f_narrow(0, 0, shown)?;
        preview::write(path, &Tensor::f_cat(&[spoiled, sharp.f_to_device(tch::Device::Cpu)?, truth], 0)?, shown)
    };
    run.train(&mut state, || batches.next()?, &mut workers, workshop.watch(&run, sheet)?)?;
    if state.step() < run.steps {
        return Ok(Outcome::Stopped);
    }
    state.export(&weights, "", Kind::Float, notes)?;
    Ok(Outcome::Trained)
}

fn texts(clip: &Clip, t5: &T5, captions: &[String]) -> Result<Conditioning> {
    let (clip_text, pooled) = clip.encode(captions)?;
    Ok(Conditioning {
        t5: Some(t5.encode(captions)?),
        clip_text: Some(clip_text),
        clip_text_pooled: Some(pooled),
        ..Conditioning::default()
    })
}
