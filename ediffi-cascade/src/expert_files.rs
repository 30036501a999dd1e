//! What an expert is loaded from.

use std::path::PathBuf;

use ediffi_core::Result;
use ediffi_core::unet::UNetConfig;
use ediffi_core::weights::{Lora, LoraFile, LoraPart, Original, WeightsFile};

/// Where one expert's weights are, and the dimensions of its network.
#[derive(Debug, Clone)]
pub struct ExpertFiles {
    /// A safetensors file, or an index of several.
    pub weights: PathBuf,
    /// Whether that is a whole checkpoint in the original layout of Stable Diffusion, of which the network is a part.
    pub original: bool,
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
        let same = |name: &str| Some(name.to_owned());
        let mut file = match self.original {
            true => WeightsFile::original(&self.weights, Original::Network, same)?,
            false => WeightsFile::open(&self.weights, same)?,
        };
        if let Some((name, part)) = &self.part {
            file = file.with_part(name, WeightsFile::open(part, same)?);
        }
        for lora in &self.loras {
            file.change(&LoraFile::open(lora)?, LoraPart::Network)?;
        }
        Ok(file)
    }
}
