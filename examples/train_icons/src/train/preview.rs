//! Contact sheets while training: a few fixed prompts through the averaged weights.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::{Branch, BranchDenoiser, denoise_with};
use ediffi_core::guidance::{Guidance, Guided, Rows};
use ediffi_core::precondition::Sample;
use ediffi_core::schedule::karras;
use ediffi_core::seed::{Noise, NoiseSource, image_seeds};
use ediffi_core::solver::Solver;
use ediffi_core::unet::{Context, UNet};
use tch::{Kind, Tensor};
use train_icons::sheet;

use super::Result;
use super::assemble::SIGMA_MIN;
use super::batches::bytes;

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

/// A network with the contexts of one sheet.
struct Previewed<'a> {
    network: &'a UNet,
    conditional: Context,
    both: Context,
}

impl BranchDenoiser for Previewed<'_> {
    fn denoise_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> ediffi_core::Result<Tensor> {
        let context = if branch == Branch::Both { &self.both } else { &self.conditional };
        denoise_with(&Sample::default(), x, sigma, |input, c_noise| {
            let c_noise = Tensor::f_full([input.size4()?.0], c_noise, (Kind::Float, input.device()))?;
            self.network.forward(input, &c_noise, context, None)
        })
    }
}

/// Samples one picture a row of `conditioning` with 16 steps of DPM-Solver++.
///
/// # Shapes
/// → [rows, 3, size, size]
pub fn sample(
    network: &UNet,
    conditioning: &Conditioning,
    rows: i64,
    size: i64,
    (scale, sigma_max): (f64, f64),
) -> Result<Tensor> {
    let _no_grad = tch::no_grad_guard();
    let unconditional =
        Conditioning { low_res: conditioning.low_res.as_ref().map(Tensor::shallow_clone), ..Conditioning::default() };
    let denoiser = Previewed {
        network,
        conditional: network.context(conditioning, rows)?,
        both: network.context(&conditioning.stacked(&unconditional)?, 2 * rows)?,
    };
    let sigmas = karras(16, SIGMA_MIN, sigma_max, 7.0)?;
    let mut noise = Noise::new(&image_seeds(1, rows as usize), 0);
    let first = sigmas.first().copied().unwrap_or(sigma_max);
    let x = noise.normal(&[rows, 3, size, size])?.f_to_device(network.device())?.f_mul_scalar(first)?;
    let mut guided = Guided::new(denoiser, Guidance::new(scale), Rows::Batched)?;
    Ok(Solver::DpmPp2M.solve(&mut guided, x, &sigmas, &mut noise, &mut ())?)
}

/// Writes square pictures as a sheet, `columns` a line.
pub fn write(path: &Path, pictures: &Tensor, columns: i64) -> Result<()> {
    let size = pictures.size4()?.3;
    Ok(sheet::write(path, &bytes(pictures)?, size as u32, columns as u32)?)
}
