//! The two super-resolution networks, trained on crops with a corrupted smaller picture.

use std::collections::HashMap;
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
use tch::Kind;

use super::base::loss;
use super::batches::{Data, dice};
use super::clip::write_json;
use super::encoders::{Clip, T5};
use super::run::{Length, Run};
use super::{Result, dimensions, preview};

/// Side of the crops that both networks train on.
const CROP: u32 = 128;

/// Trains the network that makes pictures of `full` pixels from a quarter of that, and exports it.
pub fn train(data: Arc<Data>, folder: &Path, model: &Path, runtime: Runtime, length: &Length, full: u32) -> Result<()> {
    let name = format!("sr{full}");
    let config = dimensions::super_resolution();
    let clip = Clip::open(&model.join("clip"), runtime)?;
    let t5 = T5::open(&model.join("t5"), runtime)?;
    let mut fresh = Fresh::new(u64::from(full), runtime.device);
    let network = UNet::new(Scope::root(&mut fresh), &config, runtime.kind)?;
    let settings = AdamWSettings { learning_rate: 1e-3, warm_up: 100, ..AdamWSettings::default() };
    let mut state = TrainState::new(fresh.into_named(), settings, 0.999)?;
    let run = Run { name: &name, folder, length, rows: data.rows };
    run.begin(&mut state)?;

    // The paper's distribution: what a super-resolution network has to add are edges, which low noise hides.
    let levels = NoiseLevels::new(LogNormal::default(), SigmaInterval::ALL);
    let dropout = ConditioningDropout { clip_image: 0.0, ..ConditioningDropout::default() };
    let (maker, rows) = (Arc::clone(&data), data.rows as i64);
    let batches = Prefetch::new(run.batch(&state), 6, move |n| maker.crops(n, full, CROP))?;
    let side = i64::from(CROP);
    let corruption = if full > 256 { Corruption::for_256() } else { Corruption::for_64() };
    let seed = data.seed ^ u64::from(full);
    run.train(
        &mut state,
        |number| {
            let batch = batches.next()??;
            let mut rng = dice(seed, number);
            let small = corruption.corrupt(&batch.small, &mut rng)?;
            let mut conditioning = texts(&clip, &t5, &batch.captions)?;
            conditioning.low_res = Some(enlarge(&small.f_to_device(runtime.device)?, side, side)?);
            let conditioning = dropout.apply(&conditioning, rows, &mut rng)?;
            let context = network.context(&conditioning, rows)?;
            loss(&network, &context, &batch.large.f_to_device(runtime.device)?, &levels, &mut rng)
        },
        |state, path| {
            let _no_grad = tch::no_grad_guard();
            let shown = 8.min(data.rows as i64);
            let batch = data.crops(u64::MAX / data.rows - 1, full, CROP)?;
            let captions: Vec<String> = batch.captions.into_iter().take(shown as usize).collect();
            let mut conditioning = texts(&clip, &t5, &captions)?;
            let small = batch.small.f_narrow(0, 0, shown)?.f_to_device(runtime.device)?;
            conditioning.low_res = Some(enlarge(&small, side, side)?);
            let mut shared = Shared(state.average());
            let network = UNet::new(Scope::root(&mut shared), &config, runtime.kind)?;
            preview::write(path, &network, &conditioning, shown, side, (1.0, 80.0))
        },
    )?;
    let out = model.join(&name);
    std::fs::create_dir_all(&out)?;
    write_json(&out.join("config.json"), &config)?;
    Ok(state.export(&out.join("weights.safetensors"), "", Kind::BFloat16, HashMap::new())?)
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
