//! LoRA: small changes of a network's weights that lie in a file of their own, merged when the weights are loaded.
//!
//! A LoRA has two narrow matrices for each weight that it changes, `down` [rank, inputs] and `up` [outputs, rank]. The weight becomes
//!
//! ```text
//! W + scale · (alpha / rank) · up · down
//! ```
//!
//! Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", [arXiv 2106.09685](https://arxiv.org/abs/2106.09685), §4.1. So a
//! network with a LoRA is as fast as one without.

mod change;
mod file;
mod keys;
mod places;
mod scaling;

use std::path::{Path, PathBuf};

pub(super) use change::Change;
pub use file::LoraFile;

/// A file of LoRA, and how strongly it acts.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Lora {
    path: PathBuf,
    scale: f64,
    network_only: bool,
}

/// What a LoRA changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoraPart {
    /// The network that denoises.
    Network,
    /// The text encoder; the first where there are two.
    Text,
    /// The second text encoder.
    Text2,
}

impl Lora {
    /// The LoRA of a safetensors file, or of a folder with a `pytorch_lora_weights.safetensors`, at scale 1.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), scale: 1.0, network_only: false }
    }

    /// How strongly it acts (default: 1): 0 leaves the weights as they are, and a negative scale leads away from what it was trained for.
    /// [`LoraFile::open`] refuses a scale that is not finite.
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// Leaves out what the file has for text encoders.
    pub fn network_only(mut self) -> Self {
        self.network_only = true;
        self
    }

    /// The file, or its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl LoraPart {
    /// How diffusers' names of this part begin, without the dot.
    fn prefix(self) -> &'static str {
        match self {
            Self::Network => "unet",
            Self::Text => "text_encoder",
            Self::Text2 => "text_encoder_2",
        }
    }
}
