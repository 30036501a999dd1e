//! The two super-resolution networks, trained on crops with a corrupted smaller picture.

use std::path::Path;
use std::sync::Arc;

use ediffi_cascade::low_res::{Corruption, enlarge};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::UNet;
use ediffi_core::weights::{Fresh, Scope};
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::noise::NoiseLevels;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::prefetch::Prefetch;
use ediffi_train::state::{Shared, TrainState};
use tch::{Kind, Tensor};

use super::base::loss;
use super::batches::{Crops, Data, dice};
use super::clip::write_json;
use super::encoders::{Clip, T5};
use super::run::{Length, Run, Worker};
use super::{Result, dimensions, preview};

/// Side of the crops that both networks train on.
const CROP: u32 = 64;

/// Noise levels of their training: ln σ ~ N(−0.6, 1.2²), nearly all between 0.05 and the 6 that sampling starts from
/// ([`SIGMA_MAX`]). What a super-resolution network has to add are edges, which little noise hides.
pub fn distribution() -> Result<LogNormal> {
    Ok(LogNormal::new(-0.6, 1.2)?)
}

/// Where sampling starts: the smaller picture says what more noise would leave open.
pub const SIGMA_MAX: f64 = 6.0;

/// Trains the network that makes pictures of `full` pixels from a quarter of that, and exports it.
pub fn train(data: Arc<Data>, folder: &Path, model: &Path, runtime: Runtime, length: &Length, full: u32) -> Result<()> {
    let name = format!("sr{full}");
    let config = dimensions::super_resolution();
    let clip = Clip::open(&model.join("clip"), runtime)?;
    let t5 = T5::open(&model.join("t5"), runtime)?;
    let mut fresh = Fresh::new(u64::from(full), runtime.device);
    let _ = UNet::new(Scope::root(&mut fresh), &config, runtime.kind)?;
    let settings = AdamWSettings {
        learning_rate: 1e-3,
        warm_up: 100,
        decay_steps: Some(length.steps(data.rows)),
        ..AdamWSettings::default()
    };
    let mut state = TrainState::new(fresh.into_named(), settings, 0.999)?;
    let lineage = length.lineage(&data).with_encoders(model)?;
    let notes = lineage.notes();
    let run = Run { name: &name, folder, length, rows: data.rows, lineage };
    run.begin(&mut state)?;

    let levels = NoiseLevels::new(distribution()?, SigmaInterval::ALL);
    let dropout = ConditioningDropout { clip_image: 0.0, ..ConditioningDropout::default() };
    let (maker, rows) = (Arc::clone(&data), data.rows as i64);
    let batches = Prefetch::new(run.batch(&state), 6, move |n| maker.crops(n, full, CROP))?;
    let side = i64::from(CROP);
    let corruption = if full > 256 { Corruption::for_256() } else { Corruption::for_64() };
    let seed = data.seed ^ u64::from(full);
    let mut workers = Vec::new();
    for _ in 0..length.workers(runtime.device) {
        let replica = state.replica()?;
        let network = UNet::new(Scope::root(&mut replica.source()), &config, runtime.kind)?;
        let (clip, t5) = (Clip::open(&model.join("clip"), runtime)?, T5::open(&model.join("t5"), runtime)?);
        let loss = move |number, batch: Crops| {
            let mut rng = dice(seed, number);
            let small = corruption.corrupt(&batch.small, &mut rng)?;
            let mut conditioning = texts(&clip, &t5, &batch.captions)?;
            conditioning.low_res = Some(enlarge(&small.f_to_device(runtime.device)?, side, side)?);
            let conditioning = dropout.apply(&conditioning, rows, &mut rng)?;
            let context = network.context(&conditioning, rows)?;
            loss(&network, &context, &batch.large.f_to_device(runtime.device)?, &levels, &mut rng)
        };
        workers.push(Worker { replica, loss: Box::new(loss) });
    }
    run.train(
        &mut state,
        || batches.next()?,
        &mut workers,
        |state, path| {
            let _no_grad = tch::no_grad_guard();
            let shown = 8.min(data.rows as i64);
            let batch = data.crops(u64::MAX / data.rows - 1, full, CROP)?;
            let captions: Vec<String> = batch.captions.into_iter().take(shown as usize).collect();
            let mut conditioning = texts(&clip, &t5, &captions)?;
            let small = batch.small.f_narrow(0, 0, shown)?;
            let spoiled = enlarge(&corruption.corrupt(&small, &mut dice(seed, u64::MAX))?, side, side)?;
            conditioning.low_res = Some(spoiled.f_to_device(runtime.device)?);
            let mut shared = Shared(state.average());
            let network = UNet::new(Scope::root(&mut shared), &config, runtime.kind)?;
            let sharp =
                preview::sample(&[(SigmaInterval::ALL, &network)], &conditioning, shown, side, (1.0, SIGMA_MAX))?;
            // Three lines: what the network is given, what it makes of it, what it should have made.
            let truth = batch.large.f_narrow(0, 0, shown)?;
            preview::write(path, &Tensor::f_cat(&[spoiled, sharp.f_to_device(tch::Device::Cpu)?, truth], 0)?, shown)
        },
    )?;
    let out = model.join(&name);
    std::fs::create_dir_all(&out)?;
    write_json(&out.join("config.json"), &config)?;
    Ok(state.export(&out.join("weights.safetensors"), "", Kind::BFloat16, notes)?)
}

fn texts(clip: &Clip, t5: &T5, captions: &[String]) -> Result<Conditioning> {
    let _no_grad = tch::no_grad_guard();
    let (clip_text, pooled) = clip.encode(captions)?;
    Ok(Conditioning {
        t5: Some(t5.encode(captions)?),
        clip_text: Some(clip_text),
        clip_text_pooled: Some(pooled),
        ..Conditioning::default()
    })
}
