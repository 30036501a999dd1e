//! Which network a judge has. The second has another architecture, other scenes and another start than the first, and is used for
//! nothing but final tables: what is chosen by the first cannot have been chosen to please it.

use ediffi_core::Result;
use ediffi_core::weights::Scope;
use tch::Tensor;

use super::convolutions::Convolutions;
use super::network::Output;
use super::scenes::TRAINING;
use super::transformer::Transformer;

/// The architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// The first judge's.
    Convolutions,
    /// The second judge's.
    Transformer,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Convolutions, Self::Transformer];

    /// The format of its file: another architecture or other classes get another one.
    pub fn format(self) -> &'static str {
        match self {
            Self::Convolutions => "ediffi-judge/1",
            Self::Transformer => "ediffi-judge/transformer/1",
        }
    }

    /// What its training is called.
    pub fn run(self) -> &'static str {
        match self {
            Self::Convolutions => "judge",
            Self::Transformer => "second-judge",
        }
    }

    /// Seed of the scenes that it is trained on; the generator's seeds are small numbers.
    pub fn scenes(self) -> u64 {
        match self {
            Self::Convolutions => TRAINING,
            Self::Transformer => TRAINING + 0x100,
        }
    }

    /// Seed of its start values.
    pub fn start(self) -> u64 {
        match self {
            Self::Convolutions => 7,
            Self::Transformer => 11,
        }
    }
}

/// A judge's network.
#[derive(Debug)]
pub enum Network {
    /// The first judge's.
    Convolutions(Box<Convolutions>),
    /// The second judge's.
    Transformer(Box<Transformer>),
}

impl Network {
    /// Builds it from parameters.
    pub fn new(architecture: Architecture, scope: Scope<'_>) -> Result<Self> {
        Ok(match architecture {
            Architecture::Convolutions => Self::Convolutions(Box::new(Convolutions::new(scope)?)),
            Architecture::Transformer => Self::Transformer(Box::new(Transformer::new(scope)?)),
        })
    }

    /// # Shapes
    /// `pictures`: [n, 3, 64, 64] in [-1, 1]
    pub fn forward(&self, pictures: &Tensor) -> Result<Output> {
        match self {
            Self::Convolutions(network) => network.forward(pictures),
            Self::Transformer(network) => network.forward(pictures),
        }
    }
}
