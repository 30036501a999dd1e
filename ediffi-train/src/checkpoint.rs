//! The file of a checkpoint: named tensors, and notes in its header.

use std::collections::HashMap;
use std::path::Path;

use ediffi_core::weights::{Init, Scope, WeightsFile, save};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// What a checkpoint holds.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) tensors: Vec<(String, Tensor)>,
    pub(crate) notes: HashMap<String, String>,
}

impl Checkpoint {
    /// Writes it, whole or not at all.
    pub(crate) fn write(self, path: &Path) -> Result<()> {
        save(path, &self.tensors, self.notes)?;
        tracing::debug!(file = %path.display(), "checkpoint written");
        Ok(())
    }
}

/// A value in the header of a checkpoint.
pub(crate) fn header<T: std::str::FromStr>(file: &WeightsFile, path: &Path, key: &str) -> Result<T> {
    file.text(key)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Checkpoint { path: path.to_owned(), reason: format!("its header has no {key}") })
}

pub(crate) fn open(path: &Path) -> Result<WeightsFile> {
    Ok(WeightsFile::open(path, |name| Some(name.to_owned()))?)
}

/// Reads tensors of the names and shapes of `tensors` into them, one after another, from a file that holds exactly them.
///
/// # Errors
/// A file that holds others. Nothing is changed then.
pub(crate) fn read_into(file: &WeightsFile, tensors: &[(String, Tensor)]) -> Result<()> {
    Ok(file.build(Device::Cpu, Kind::Float, |mut scope: Scope<'_>| {
        for (name, tensor) in tensors {
            let value = scope.weight(name, &tensor.size(), Init::Zeros)?;
            // The list of names and shapes that the file is first compared with is made of empty tensors.
            if value.numel() == tensor.numel() {
                tensor.shallow_clone().f_copy_(&value)?;
            }
        }
        Ok(())
    })?)
}
