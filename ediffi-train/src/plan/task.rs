//! One thing to train, by its name.

use serde::{Deserialize, Serialize};

use super::stage::{NetworkTraining, StageTraining};
use super::training::Training;

/// The training of an encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EncoderTraining {
    /// Its name. The program that trains it knows what it is.
    pub name: String,
    /// Pictures a batch (default: the plan's). Contrastive losses need large batches. A step has one batch.
    pub batch: Option<u64>,
    /// How long and how fast.
    pub training: Training,
}

/// The batches of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    /// Pictures a batch.
    pub batch: u64,
    /// Batches whose gradients make one step.
    pub accumulate: u64,
}

/// One thing to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Task<'a> {
    /// An encoder.
    Encoder(&'a EncoderTraining),
    /// A network of a stage.
    Network(&'a StageTraining, &'a NetworkTraining),
}

impl Task<'_> {
    /// `clip` for an encoder, `base.shared` for a network. Its files are named after it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Encoder(encoder) => encoder.name.clone(),
            Self::Network(stage, network) => format!("{}.{}", stage.name, network.name),
        }
    }

    /// The number of its first batch. It is far from those of other tasks, so that each task sees data of its own. It depends on the
    /// name alone: plans may share trained networks by their names.
    #[must_use]
    pub fn first_batch(&self) -> u64 {
        // FNV-1a of 32 bits.
        let hash = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let hash = self.name().bytes().fold(0x811C_9DC5, hash);
        // 15 bits above 2^32 batches leave room for 65 536 pictures a batch.
        u64::from((hash >> 16) & 0x7FFF) << 32
    }

    /// The seed of its new weights in a plan of this seed.
    #[must_use]
    pub fn seed(&self, plan: u64) -> u64 {
        self.first_batch() ^ plan
    }

    /// How long and how fast.
    #[must_use]
    pub fn training(&self) -> &Training {
        match self {
            Self::Encoder(encoder) => &encoder.training,
            Self::Network(_, network) => &network.training,
        }
    }
}
