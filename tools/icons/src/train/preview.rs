//! Contact sheets while training: a few fixed prompts through the averaged weights.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::{Guidance, Guided, Rows};
use ediffi_core::interval::SigmaInterval;
use ediffi_core::noise::NoiseSource;
use ediffi_core::precondition::Precondition;
use ediffi_core::runtime::Runtime;
use ediffi_core::schedule::karras;
use ediffi_core::seed::{Noise, image_seeds};
use ediffi_core::solver::Solver;
use ediffi_core::unet::{UNet, UNetConfig};
use ediffi_train::batch::Batch;
use ediffi_train::learner::Learner;
use ediffi_train::pixels::to_rgb;
use ediffi_train::random::batch_rng;
use ediffi_trainer::ensemble::{Ensemble, Owner, denoise};
use tch::{Device, Tensor};
use train_icons::sheet;

use super::Result;
use super::batches::Captions;
use super::encoders::load;

/// Where the sheets' sampling stops, with one last estimate: what is left then is far below what an eye sees.
const SIGMA_MIN: f64 = 0.05;

/// Where sampling starts: the base's, and super-resolution's, as in the plan `icons`.
const SIGMA_MAX: [f64; 2] = [80.0, 40.0];

/// Pictures on a line of a sheet.
const COLUMNS: i64 = 8;

/// What the sheets of the base show.
const PROMPTS: [&str; 16] = [
    "a red apple",
    "an apple, noto style",
    "an apple, flat style",
    "an apple, ink style",
    "a cat on a blue background",
    "a dog, noto style",
    "a star, flat style",
    "a fish, ink style",
    "a house, noto style",
    "a tree, flat style",
    "a car on a yellow background, noto style",
    "a mushroom, noto style",
    "a cat left of a dog",
    "two stars",
    "an apple above a fish",
    "a heart, ink style",
];

/// Draws the fixed prompts with a network of the base at the noise levels that it trains on, and with `ancestor` at all others.
pub fn base<F>(path: &Path, learner: &Learner<F>, interval: SigmaInterval, ancestor: Option<&UNet>) -> Result<()>
where
    F: Fn(&Batch<Captions>) -> Result<Conditioning>,
{
    let captions = PROMPTS.map(str::to_owned).to_vec();
    let batch = Batch { pictures: Tensor::new(), smaller: None, text: Captions { captions, references: None } };
    let precondition = learner.objective.precondition.as_ref();
    let mut networks = vec![(interval, &learner.network)];
    networks.extend(ancestor.map(|ancestor| (SigmaInterval::ALL, ancestor)));
    let rows = PROMPTS.len() as i64;
    write(
        path,
        &sample(
            &networks,
            precondition,
            &learner.conditioning(&batch, &mut batch_rng(0, 0))?,
            rows,
            64,
            (3.0, SIGMA_MAX[0]),
        )?,
        COLUMNS,
    )
}

/// Draws crops with a network of super-resolution, in three lines: what it is given, what it makes of it, what it should have made.
pub fn super_resolution<F>(path: &Path, learner: &Learner<F>, mut crops: Batch<Captions>) -> Result<()>
where
    F: Fn(&Batch<Captions>) -> Result<Conditioning>,
{
    let (rows, _, _, side) = crops.pictures.size4()?;
    let shown = COLUMNS.min(rows);
    crops.pictures = crops.pictures.f_narrow(0, 0, shown)?;
    crops.smaller = crops.smaller.map(|smaller| smaller.f_narrow(0, 0, shown)).transpose()?;
    crops.text.captions.truncate(shown as usize);
    let conditioning = learner.conditioning(&crops, &mut batch_rng(learner.objective.seed, u64::MAX))?;
    let networks = [(SigmaInterval::ALL, &learner.network)];
    let precondition = learner.objective.precondition.as_ref();
    let sharp = sample(&networks, precondition, &conditioning, shown, side, (1.0, SIGMA_MAX[1]))?;
    let given = conditioning.low_res.ok_or("crops have smaller pictures")?;
    let lines = [given.f_to_device(Device::Cpu)?, sharp.f_to_device(Device::Cpu)?, crops.pictures];
    write(path, &Tensor::f_cat(&lines, 0)?, shown)
}

/// Draws what a network of the base makes of noisy pictures, in three lines: what it is given, at the highest of its noise levels, what it
/// makes of it, what it should have made.
pub fn denoised<F>(path: &Path, learner: &Learner<F>, interval: SigmaInterval, batch: &Batch<Captions>) -> Result<()>
where
    F: Fn(&Batch<Captions>) -> Result<Conditioning>,
{
    let (rows, ..) = batch.pictures.size4()?;
    let sigma = interval.high().min(SIGMA_MAX[0]);
    let conditioning = learner.conditioning(batch, &mut batch_rng(0, 0))?;
    let noise = Noise::new(&image_seeds(1, rows as usize), 0).normal(&batch.pictures.size())?;
    let noisy = batch.pictures.f_add(&noise.f_mul_scalar(sigma)?)?.f_to_device(learner.network.device())?;
    let context = learner.network.context(&conditioning, rows)?;
    let denoised = denoise(&learner.network, learner.objective.precondition.as_ref(), &noisy, sigma, &context)?;
    let shown = COLUMNS.min(rows);
    let lines = [noisy, denoised.denoised, batch.pictures.shallow_clone()];
    let lines = lines.map(|line| line.narrow(0, 0, shown).to_device(Device::Cpu));
    write(path, &Tensor::f_cat(&lines, 0)?, shown)
}

/// A network of the base after its training.
pub fn open(path: &Path, dimensions: &UNetConfig, runtime: Runtime) -> Result<UNet> {
    let _no_grad = tch::no_grad_guard();
    load(path, runtime, |scope| UNet::new(scope, dimensions, runtime.kind))
}

/// Samples one picture a row of `conditioning` with 16 steps of DPM-Solver++, each by the first network whose range has
/// its noise level.
///
/// # Shapes
/// → [rows, 3, size, size]
fn sample(
    networks: &[(SigmaInterval, &UNet)],
    precondition: &dyn Precondition,
    conditioning: &Conditioning,
    rows: i64,
    size: i64,
    (scale, sigma_max): (f64, f64),
) -> Result<Tensor> {
    let _no_grad = tch::no_grad_guard();
    let low_res = conditioning.low_res.as_ref().map(Tensor::shallow_clone);
    let both = conditioning.stacked(&Conditioning { low_res, ..Conditioning::default() })?;
    let mut owners = Vec::new();
    for &(range, network) in networks {
        let contexts = [network.context(conditioning, rows)?, network.context(&both, 2 * rows)?];
        owners.push(Owner { range, network, precondition, contexts });
    }
    let device = networks.first().map_or(Device::Cpu, |(_, network)| network.device());
    let sigmas = karras(16, SIGMA_MIN, sigma_max, 7.0)?;
    let mut noise = Noise::new(&image_seeds(1, rows as usize), 0);
    let start = noise.normal(&[rows, 3, size, size])?.f_to_device(device)?;
    let mut guided = Guided::new(Ensemble { owners }, Guidance::new(scale), Rows::Batched)?;
    Ok(Solver::DpmPp2M.solve(&mut guided, start, &sigmas, &mut noise, &mut ())?)
}

/// Writes square pictures as a sheet, `columns` a line.
fn write(path: &Path, pictures: &Tensor, columns: i64) -> Result<()> {
    let size = pictures.size4()?.3;
    Ok(sheet::write(path, &to_rgb(pictures)?, size as u32, columns as u32)?)
}
