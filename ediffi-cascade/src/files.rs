//! The files of an expert.

use std::path::{Path, PathBuf};

use ediffi_core::Result;
use ediffi_core::files::{path_inside, read_json};
use ediffi_core::unet::UNetConfig;

/// Where one expert's weights are, and the dimensions of its network.
#[derive(Debug, Clone)]
pub struct ExpertFiles {
    /// A safetensors file, or an index of several.
    pub weights: PathBuf,
    /// The dimensions.
    pub network: UNetConfig,
}

/// The dimensions in a file of the folder.
pub(crate) fn read_network(folder: &Path, path: &Path) -> Result<UNetConfig> {
    let network: UNetConfig = read_json(&path_inside(folder, path)?)?;
    network.validate()?;
    Ok(network)
}

/// A path in the folder at which there is something.
pub(crate) fn existing(folder: &Path, path: &Path) -> Result<PathBuf> {
    let path = path_inside(folder, path)?;
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(source) => Err(ediffi_core::Error::ReadFile { path, source }),
    }
}
