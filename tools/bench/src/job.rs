//! What a side does: the data that the bench hands to both languages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ediffi_core::pool::Residency;
use ediffi_core::runtime::cpu_has_bf16;
use serde::{Deserialize, Serialize};

/// In what a side computes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Precision {
    F32,
    Bf16,
}

impl Precision {
    pub(crate) const BOTH: [Self; 2] = [Self::F32, Self::Bf16];

    /// What a user gets who asks for nothing.
    pub(crate) fn native() -> Self {
        if cpu_has_bf16() { Self::Bf16 } else { Self::F32 }
    }

    /// Whether this processor has no arithmetic for it.
    pub(crate) fn emulated(self) -> bool {
        self == Self::Bf16 && !cpu_has_bf16()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// What is evaluated. Paths are relative to the checkout.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Case {
    /// A U-Net of DeepFloyd IF as published. Each picture is a row with the text and a row without.
    Published { folder: PathBuf, pictures: i64, side: i64 },
    /// A network of some system at its full size, with random weights: one of [`NETWORKS`](crate::alternatives::NETWORKS).
    Alternative { network: String, rows: i64, side: i64 },
    /// A network of the shipped model alone.
    Shipped { stage: String, rows: i64, side: i64 },
    /// A text through T5, in so many columns.
    T5 { folder: PathBuf, text: String, tokens: i64 },
    /// A text through CLIP.
    ClipText { folder: PathBuf, text: String },
    /// A picture through CLIP.
    ClipImage { folder: PathBuf },
    /// A picture of a published pipeline, from its text on, with so many steps of each stage. A refiner draws the second half of them.
    Whole { folder: PathBuf, refiner: Option<PathBuf>, text: String, steps: BTreeMap<String, usize> },
    /// A step of a training, 32 pictures.
    Train { network: String, folder: PathBuf },
    /// One stage of a generation, loading included.
    Stage(Stage),
    /// 64 pictures of the base of the shipped model: of as many prompts, or of one.
    Many { different: bool },
    /// A process that draws the first picture of the shipped model.
    Start,
    /// The machine's own limit: a 3×3 convolution, or a matrix product.
    Limit { product: bool },
}

/// A generation, of which one stage is timed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) model: PathBuf,
    pub(crate) stage: String,
    /// Side of the last picture, in pixels.
    pub(crate) side: u32,
    /// How many pictures, each a batch of its own.
    pub(crate) pictures: usize,
    /// Painted regions.
    pub(crate) regions: u32,
    /// How many experts are in memory.
    pub(crate) residency: Residency,
    /// Side of a tile, if the stage is cut.
    pub(crate) tile: Option<usize>,
    /// Steps of every stage, if not the model's own.
    pub(crate) steps: Option<usize>,
}

/// A case, and how it is computed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    #[serde(flatten)]
    pub(crate) case: Case,
    pub(crate) precision: Precision,
    pub(crate) threads: usize,
    /// Whether PyTorch compiles it first.
    pub(crate) compile: bool,
}
