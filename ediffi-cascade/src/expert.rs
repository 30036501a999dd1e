//! One expert: a loaded network under its preconditioning, and the contexts it derives from a job.
//!
//! A network may stay in memory between jobs, while contexts belong to one job: they are kept apart.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::{Branch, BranchDenoiser, Estimate, estimate_with};
use ediffi_core::nn::ScoreBias;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::{Context, Painted, UNet, UNetConfig};
use ediffi_core::window::Window;
use ediffi_core::{Result, weights};
use tch::{Kind, Tensor};

use crate::config::PreconditionConfig;
use crate::observer::Watch;
use crate::tiled::TileGrid;

/// A loaded network and its preconditioning.
#[derive(Debug)]
pub(crate) struct Expert {
    network: UNet,
    precondition: PreconditionConfig,
}

impl Expert {
    /// Reads the network from `weights`.
    pub(crate) fn load(
        weights: &Path,
        config: &UNetConfig,
        precondition: PreconditionConfig,
        runtime: Runtime,
    ) -> Result<Self> {
        // It may run on a thread of its own, and the guard is per thread.
        let _no_grad = tch::no_grad_guard();
        let Runtime { device, kind } = runtime;
        let names = |name: &str| Some(name.to_owned());
        let network = weights::load(weights, names, device, kind, |scope| UNet::new(scope, config, kind))?;
        Ok(Self { network, precondition })
    }

    /// D(x; sigma) under `context`, painted in the first `conditional` rows.
    fn estimate(&self, x: &Tensor, sigma: f64, context: &Context, painted: Option<Painted<'_>>) -> Result<Estimate> {
        estimate_with(self.precondition.coefficients(), x, sigma, |input, c_noise| {
            let rows = input.size().first().copied().unwrap_or(0);
            let c_noise = Tensor::f_full([rows], c_noise, (Kind::Float, input.device()))?;
            self.network.forward(input, &c_noise, context, painted)
        })
    }
}

/// The conditionings of a job, on the device and with the enlarged smaller picture.
#[derive(Debug)]
pub(crate) struct Branches {
    pub(crate) conditional: Conditioning,
    pub(crate) unconditional: Conditioning,
    /// Number of pictures.
    pub(crate) pictures: i64,
}

impl Branches {
    /// What the rows of `branch` see, and how many rows there are.
    fn of(&self, branch: Branch) -> Result<(Conditioning, i64)> {
        Ok(match branch {
            Branch::Conditional => (self.conditional.shallow_clone(), self.pictures),
            Branch::Unconditional => (self.unconditional.shallow_clone(), self.pictures),
            Branch::Both => (self.conditional.stacked(&self.unconditional)?, 2 * self.pictures),
        })
    }
}

/// What one network derived from the conditionings of a job: made when a branch is first asked for, then kept.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    conditional: Option<Context>,
    unconditional: Option<Context>,
    both: Option<Context>,
}

impl Contexts {
    fn get(&mut self, network: &UNet, branches: &Branches, branch: Branch) -> Result<&Context> {
        let slot = match branch {
            Branch::Conditional => &mut self.conditional,
            Branch::Unconditional => &mut self.unconditional,
            Branch::Both => &mut self.both,
        };
        if let Some(context) = slot {
            return Ok(context);
        }
        let (conditioning, rows) = branches.of(branch)?;
        Ok(slot.insert(network.context(&conditioning, rows)?))
    }
}

/// An expert at work on a job.
pub(crate) struct ExpertDenoiser<'a, 'w> {
    pub(crate) expert: &'a Expert,
    pub(crate) branches: &'a Branches,
    pub(crate) contexts: &'a mut Contexts,
    pub(crate) paint: Option<&'a dyn ScoreBias>,
    pub(crate) tiles: Option<&'a TileGrid>,
    pub(crate) watch: &'a Watch<'w>,
}

impl BranchDenoiser for ExpertDenoiser<'_, '_> {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> Result<Estimate> {
        let context = self.contexts.get(&self.expert.network, self.branches, branch)?;
        let conditional = match branch {
            Branch::Conditional | Branch::Both => self.branches.pictures,
            Branch::Unconditional => 0,
        };
        let painted = self.paint.filter(|_| conditional > 0).map(|hook| Painted {
            hook,
            sigma,
            conditional,
            window: Window::WHOLE,
        });
        let Some(tiles) = self.tiles else {
            self.watch.poll()?;
            return self.expert.estimate(x, sigma, context, painted);
        };
        // A variance is blended like the picture, as more channels of it.
        let blended = tiles.evaluate(x, |piece, tile| {
            self.watch.poll()?;
            let context = context.window(tile.top, tile.left, tile.height, tile.width)?;
            let Estimate { denoised, variance } = self.expert.estimate(piece, sigma, &context, painted)?;
            match variance {
                Some(variance) => Ok(Tensor::f_cat(&[&denoised, &variance.f_to_kind(denoised.f_kind()?)?], 1)?),
                None => Ok(denoised),
            }
        })?;
        let (channels, all) = (x.size4()?.1, blended.size4()?.1);
        let variance = (all == 2 * channels).then(|| blended.f_narrow(1, channels, channels)).transpose()?;
        Ok(Estimate { denoised: blended.f_narrow(1, 0, channels)?, variance })
    }
}
