//! Why an expert made a NaN: its weights are asked only then, since looking at all of them takes as long as reading them.

use ediffi_core::denoiser::is_finite;
use ediffi_core::unet::UNet;
use ediffi_core::weights::{Scope, Table};
use ediffi_core::{Error, Result};
use tch::{Device, Kind};

use crate::expert_files::ExpertFiles;

/// The first tensor of the weights that holds a NaN or an infinity, with what is merged into them.
pub(crate) fn broken_tensor(files: &ExpertFiles) -> Result<Option<String>> {
    let _no_grad = tch::no_grad_guard();
    let table = Table::of(|scope| UNet::new(scope, &files.network, Kind::Float))?;
    let file = files.open()?;
    let look = |mut scope: Scope<'_>| {
        for spec in table.specs() {
            let tensor = scope.get(&spec.name, &spec.shape, spec.init, spec.role)?;
            // Asked for its names alone, the table hands out empty tensors, which are finite.
            if !is_finite(&tensor)? {
                return Err(Error::NotFinite(spec.name.clone()));
            }
        }
        Ok(())
    };
    match file.build(Device::Cpu, Kind::Float, look) {
        Ok(()) => Ok(None),
        Err(Error::NotFinite(what)) => Ok(Some(what)),
        Err(other) => Err(other),
    }
}
