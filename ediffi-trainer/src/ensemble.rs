//! Networks under training as the ensemble of a stage.

use ediffi_core::denoiser::{Branch, BranchDenoiser, Estimate, estimate_with};
use ediffi_core::interval::SigmaInterval;
use ediffi_core::precondition::Precondition;
use ediffi_core::unet::{Context, UNet};
use tch::{Kind, Tensor};

/// Evaluates a network once.
///
/// # Shapes
/// `x`: [n, 3, h, w] at noise level `sigma` → the same
///
/// # Errors
/// A context of another network; an error of libtorch.
pub fn denoise(
    network: &UNet,
    precondition: &dyn Precondition,
    x: &Tensor,
    sigma: f64,
    context: &Context,
) -> ediffi_core::Result<Estimate> {
    estimate_with(precondition, x, sigma, |input, c_noise| {
        let c_noise = Tensor::f_full([input.size4()?.0], c_noise, (Kind::Float, input.device()))?;
        network.forward(input, &c_noise, context, None)
    })
}

/// A network with its noise levels.
#[derive(Debug)]
pub struct Owner<'a> {
    /// The noise levels.
    pub range: SigmaInterval,
    /// The network.
    pub network: &'a UNet,
    /// The coefficients around it.
    pub precondition: &'a dyn Precondition,
    /// Its contexts for the conditional rows, and for those of both branches.
    pub contexts: [Context; 2],
}

/// The networks of a stage. A noise level is for the first one whose range has it.
#[derive(Debug)]
pub struct Ensemble<'a> {
    /// The networks.
    pub owners: Vec<Owner<'a>>,
}

impl BranchDenoiser for Ensemble<'_> {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> ediffi_core::Result<Estimate> {
        let owner = self.owners.iter().find(|owner| owner.range.contains(sigma));
        let Owner { network, precondition, contexts: [conditional, both], .. } =
            owner.ok_or(ediffi_core::Error::SigmaOutOfRange(sigma))?;
        let context = if branch == Branch::Both { both } else { conditional };
        denoise(network, *precondition, x, sigma, context)
    }
}
