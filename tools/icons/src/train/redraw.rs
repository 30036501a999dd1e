//! Drawing smaller pictures again with the base, for super-resolution that mends what the base gets wrong.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::{Guided, Rows};
use ediffi_core::noise::NoiseSource;
use ediffi_core::seed::{Noise, image_seeds};
use ediffi_core::weights;
use ediffi_train::lineage::Lineage;
use ediffi_train::pixels::to_rgb;
use ediffi_train::plan::{NetworkTraining, Redrawn, StageTraining, Task};
use ediffi_train::random::{batch_rng, uniform};
use ediffi_trainer::ensemble::{Ensemble, Owner};
use tch::Tensor;
use train_icons::progress::Progress;

use super::encoders::Encoders;
use super::redrawn::{LEVELS, RedrawnPictures, TENSOR};
use super::stages::{BASE, dimensions_of, precondition, sampler, side};
use super::workshop::Workshop;
use super::{Result, preview};

/// Pictures that are drawn together, all from one noise level.
const ROWS: u64 = 16;

/// The redrawn pictures of a network that the plan gives some. They are drawn once, and kept in the run folder.
pub fn prepare(
    workshop: &Workshop,
    stage: &StageTraining,
    network: &NetworkTraining,
) -> Result<Option<RedrawnPictures>> {
    let Some(redrawn) = network.redrawn else { return Ok(None) };
    let base = workshop
        .plan
        .stages
        .first()
        .filter(|base| side(base).ok() == Some(BASE))
        .filter(|_| side(stage).ok() == Some(4 * BASE));
    let base =
        base.ok_or_else(|| format!("{}.{}: only what the base draws is redrawn here", stage.name, network.name))?;
    let (path, lineage) = (workshop.redrawn(stage, network), lineage(workshop, base, &redrawn)?);
    if path.is_file() {
        lineage.check(&path).map_err(|error| format!("{error}. Remove {} to draw them anew", path.display()))?;
    } else {
        draw(workshop, base, &redrawn, &path, lineage)?;
    }
    Ok(Some(RedrawnPictures::read(&path, redrawn.share)?))
}

/// What the pictures depend on.
fn lineage(workshop: &Workshop, base: &StageTraining, redrawn: &Redrawn) -> Result<Lineage> {
    let Redrawn { pictures, sigma: (low, high), .. } = redrawn;
    let sampler = serde_json::to_string(&sampler(base)?)?;
    let mut lineage = Lineage::default()
        .with("seed", workshop.plan.seed)
        .with("redrawn", format!("{pictures} from {low} to {high}"))
        .with("sampler", sampler)
        .with("pack", &workshop.pack)
        .with_bytes("data", workshop.sampler.version()?.as_bytes())
        .with_file("clip", &workshop.clip().join("model.safetensors"))?
        .with_file("t5", &workshop.t5().join("model.safetensors"))?;
    for expert in base.experts()? {
        let name = Task::Network(base, expert.network).name();
        let weights = workshop.weights(&name);
        if !weights.is_file() {
            return Err(format!(
                "{name} is to redraw pictures and is not trained yet: there is no {}",
                weights.display()
            )
            .into());
        }
        lineage = lineage.with_file(&format!("{name} on {:.4}", expert.interval), &weights)?;
    }
    Ok(lineage)
}

fn draw(workshop: &Workshop, base: &StageTraining, redrawn: &Redrawn, path: &Path, lineage: Lineage) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let runtime = workshop.runtime;
    let encoders = Encoders::open(&workshop.clip(), &workshop.t5(), runtime)?;
    let mut experts = Vec::new();
    for expert in base.experts()? {
        let weights = workshop.weights(&Task::Network(base, expert.network).name());
        let network = preview::open(&weights, &dimensions_of(expert.network, BASE)?, runtime)?;
        experts.push((expert.interval, network, expert.network.precondition.unwrap_or_else(precondition)));
    }
    let settings = sampler(base)?;
    let levels = settings.schedule.sigmas(settings.steps)?;
    let data = workshop.data(ROWS);
    let batches = redrawn.pictures.div_ceil(ROWS);
    let mut progress = Progress::new("redrawn", batches);
    let mut pictures = Vec::new();
    for number in 0..batches {
        let batch = data.pictures(number, BASE, 0.0)?;
        let rows = batch.pictures.size4()?.0;
        let (low, high) = redrawn.sigma;
        let sigma = low * (high / low).powf(uniform(&mut batch_rng(workshop.plan.seed ^ LEVELS, u64::MAX - number)));
        let conditioning = encoders.encode(&batch.text)?;
        let both = conditioning.stacked(&Conditioning::default())?;
        let mut owners = Vec::new();
        for (range, network, precondition) in &experts {
            let contexts = [network.context(&conditioning, rows)?, network.context(&both, 2 * rows)?];
            owners.push(Owner { range: *range, network, precondition, contexts });
        }
        let sigmas: Vec<f64> =
            [sigma].into_iter().chain(levels.iter().copied().filter(|level| *level < sigma)).collect();
        let mut noise = Noise::new(&image_seeds(workshop.plan.seed.wrapping_add(ROWS * number), rows as usize), 0);
        let drawn = noise.normal(&batch.pictures.size())?.f_mul_scalar(sigma)?;
        let start = batch.pictures.f_add(&drawn)?.f_to_device(runtime.device)?;
        let mut guided = Guided::new(Ensemble { owners }, settings.guidance.clone(), Rows::Batched)?;
        let done = settings.solver.solve(&mut guided, start, &sigmas, &mut noise, &mut ())?;
        pictures.extend(to_rgb(&done)?);
        progress.step(number + 1, None);
    }
    progress.finish();
    pictures.truncate(redrawn.pictures as usize);
    let side = i64::from(BASE);
    let bytes = Tensor::f_from_slice(&pictures.concat())?.f_reshape([pictures.len() as i64, side, side, 3])?;
    Ok(weights::save(path, &[(TENSOR.to_owned(), bytes)], lineage.notes())?)
}
