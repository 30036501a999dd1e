//! What an expert is loaded from.

use std::path::PathBuf;

use ediffi_core::Result;
use ediffi_core::unet::UNetConfig;
use ediffi_core::weights::{Lora, LoraFile, LoraPart, WeightsFile};

/// Where one expert's weights are, and the dimensions of its network.
#[derive(Debug, Clone)]
pub struct ExpertFiles {
    /// A safetensors file, or an index of several.
    pub weights: PathBuf,
    /// The dimensions.
    pub network: UNetConfig,
    /// A part of the network that is stored in a file of its own: the name below which its parameters stand in the network, and the file.
    pub part: Option<(String, PathBuf)>,
    /// What is merged into the weights when they are loaded: of each file what it has for the network.
    pub loras: Vec<Lora>,
}

impl ExpertFiles {
    /// Opens the weights, with what is to be merged into them. Headers are read, no tensor is.
    ///
    /// # Errors
    /// Those of [`WeightsFile::open`], [`LoraFile::open`] and [`WeightsFile::change`].
    pub fn open(&self) -> Result<WeightsFile> {
        let open = |path| WeightsFile::open(path, |name| Some(name.to_owned()));
        let mut file = open(&self.weights)?;
        if let Some((name, part)) = &self.part {
            file = file.with_part(name, open(part)?);
        }
        for lora in &self.loras {
            file.change(&LoraFile::open(lora)?, LoraPart::Network)?;
        }
        Ok(file)
    }
}
