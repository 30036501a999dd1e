//! Contact sheets while training: a few fixed prompts through the averaged weights.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::{Branch, BranchDenoiser, Estimate, estimate_with};
use ediffi_core::guidance::{Guidance, Guided, Rows};
use ediffi_core::interval::SigmaInterval;
use ediffi_core::noise::NoiseSource;
use ediffi_core::precondition::Sample;
use ediffi_core::schedule::karras;
use ediffi_core::seed::{Noise, image_seeds};
use ediffi_core::solver::Solver;
use ediffi_core::unet::{Context, UNet};
use tch::{Device, Kind, Tensor};
use train_icons::sheet;

use super::Result;
use super::batches::bytes;

/// Where the sheets' sampling stops, with one last estimate: what is left then is far below what an eye sees.
const SIGMA_MIN: f64 = 0.05;

/// What the sheets of the base show.
pub const PROMPTS: [&str; 16] = [
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

/// A network of a sheet, and the noise levels at which it is asked.
pub type Ranged<'a> = (SigmaInterval, &'a UNet);

/// A network with its contexts of one sheet.
struct Previewed<'a> {
    range: SigmaInterval,
    network: &'a UNet,
    conditional: Context,
    both: Context,
}

impl Previewed<'_> {
    fn estimate(&self, x: &Tensor, sigma: f64, branch: Branch) -> ediffi_core::Result<Estimate> {
        let context = if branch == Branch::Both { &self.both } else { &self.conditional };
        estimate_with(&Sample::default(), x, sigma, |input, c_noise| {
            let c_noise = Tensor::f_full([input.size4()?.0], c_noise, (Kind::Float, input.device()))?;
            self.network.forward(input, &c_noise, context, None)
        })
    }
}

/// The first of the networks that a noise level belongs to.
struct Ensemble<'a>(Vec<Previewed<'a>>);

impl BranchDenoiser for Ensemble<'_> {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> ediffi_core::Result<Estimate> {
        let owner = self.0.iter().find(|network| network.range.contains(sigma));
        owner.ok_or(ediffi_core::Error::SigmaOutOfRange { sigma })?.estimate(x, sigma, branch)
    }
}

/// Samples one picture a row of `conditioning` with 16 steps of DPM-Solver++, each by the first network whose range has
/// its noise level.
///
/// # Shapes
/// → [rows, 3, size, size]
pub fn sample(
    networks: &[Ranged<'_>],
    conditioning: &Conditioning,
    rows: i64,
    size: i64,
    (scale, sigma_max): (f64, f64),
) -> Result<Tensor> {
    let _no_grad = tch::no_grad_guard();
    let low_res = conditioning.low_res.as_ref().map(Tensor::shallow_clone);
    let both = conditioning.stacked(&Conditioning { low_res, ..Conditioning::default() })?;
    let mut ensemble = Vec::new();
    for &(range, network) in networks {
        let (conditional, both) = (network.context(conditioning, rows)?, network.context(&both, 2 * rows)?);
        ensemble.push(Previewed { range, network, conditional, both });
    }
    let device = networks.first().map_or(Device::Cpu, |(_, network)| network.device());
    let sigmas = karras(16, SIGMA_MIN, sigma_max, 7.0)?;
    let mut noise = Noise::new(&image_seeds(1, rows as usize), 0);
    let start = noise.normal(&[rows, 3, size, size])?.f_to_device(device)?;
    let mut guided = Guided::new(Ensemble(ensemble), Guidance::new(scale), Rows::Batched)?;
    Ok(Solver::DpmPp2M.solve(&mut guided, start, &sigmas, &mut noise, &mut ())?)
}

/// Writes square pictures as a sheet, `columns` a line.
pub fn write(path: &Path, pictures: &Tensor, columns: i64) -> Result<()> {
    let size = pictures.size4()?.3;
    Ok(sheet::write(path, &bytes(pictures)?, size as u32, columns as u32)?)
}
