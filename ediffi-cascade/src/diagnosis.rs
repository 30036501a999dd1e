//! Why an expert made a NaN: its weights are asked only then, since looking at all of them takes as long as reading them.

use std::path::Path;

use ediffi_core::denoiser::is_finite;
use ediffi_core::unet::{UNet, UNetConfig};
use ediffi_core::weights::{Role, Scope, Table, WeightsFile};
use ediffi_core::{Error, Result};
use tch::{Device, Kind};

/// The first tensor of the file that holds a NaN or an infinity.
pub(crate) fn broken_tensor(weights: &Path, config: &UNetConfig) -> Result<Option<String>> {
    let _no_grad = tch::no_grad_guard();
    let table = Table::of(|scope| UNet::new(scope, config, Kind::Float))?;
    let file = WeightsFile::open(weights, |name| Some(name.to_owned()))?;
    let look = |mut scope: Scope<'_>| {
        for spec in table.specs() {
            let tensor = match spec.role {
                Role::Weight | Role::Kernel => scope.weight(&spec.name, &spec.shape, spec.init)?,
                Role::F32 => scope.weight_f32(&spec.name, &spec.shape, spec.init)?,
            };
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
