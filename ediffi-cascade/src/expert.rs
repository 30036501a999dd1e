//! One expert: a loaded network under its preconditioning. It may stay in memory between jobs and knows none of them.

use ediffi_core::Result;
use ediffi_core::denoiser::{Estimate, estimate_with};
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::{Context, Painted, UNet};
use tch::{Kind, Tensor};

use crate::config::PreconditionConfig;
use crate::expert_files::ExpertFiles;

/// A loaded network and its preconditioning.
#[derive(Debug)]
pub(crate) struct Expert {
    pub(crate) network: UNet,
    precondition: PreconditionConfig,
}

impl Expert {
    /// Reads the network from its files.
    pub(crate) fn load(files: &ExpertFiles, precondition: PreconditionConfig, runtime: Runtime) -> Result<Self> {
        // It may run on a thread of its own, and the guard is per thread.
        let _no_grad = tch::no_grad_guard();
        let Runtime { device, kind } = runtime;
        let network = files.open()?.build(device, kind, |scope| UNet::new(scope, &files.network, kind))?;
        Ok(Self { network, precondition })
    }

    /// D(x; sigma) under `context`, painted as `painted` says.
    pub(crate) fn estimate(
        &self,
        x: &Tensor,
        sigma: f64,
        context: &Context,
        painted: Option<Painted<'_>>,
    ) -> Result<Estimate> {
        estimate_with(&self.precondition, x, sigma, |input, c_noise| {
            let rows = input.size().first().copied().unwrap_or(0);
            let c_noise = Tensor::f_full([rows], c_noise, (Kind::Float, input.device()))?;
            self.network.forward(input, &c_noise, context, painted)
        })
    }
}
