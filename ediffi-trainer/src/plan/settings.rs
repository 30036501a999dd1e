//! What a plan says besides its stages: encoders, data, dropout, validation, what is kept, sheets.

use std::path::PathBuf;

use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::plan::Training;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::wrong;

/// Which encoders read the captions. Without any, the networks draw pictures of nothing in particular.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EncoderPlan {
    /// A model folder of this library, whose encoders are used as they are; `icons` is the shipped model.
    pub model: Option<String>,
    /// The folder of a published T5.
    pub t5: Option<PathBuf>,
    /// The folder of a published CLIP.
    pub clip: Option<PathBuf>,
    /// A small T5 that is trained on the captions, before the networks.
    pub own: Option<OwnT5>,
}

/// A small T5 with a vocabulary of its own, both made from the captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OwnT5 {
    /// The most words that have a token of their own. The others are spelt.
    pub vocabulary: usize,
    /// Width of an embedding.
    pub width: i64,
    /// Layers.
    pub layers: usize,
    /// Heads of the attention.
    pub heads: i64,
    /// Captions a batch.
    pub batch: u64,
    /// How long and how fast.
    pub training: Training,
}

/// How pictures are taken from the data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DataPlan {
    /// The share of the samples that no network is trained on. Validation and sheets use them.
    pub held_out: f64,
    /// Whether half of the pictures are mirrored. Not for pictures with letters, or captions that name left and right.
    pub flip: bool,
    /// Whether a picture that is not square is cropped anywhere along its longer side, not in the middle.
    pub random_crop: bool,
    /// Batches of other shapes than the square; squares alone if there is none. A stage that trains on crops has squares in any case.
    pub buckets: Option<BucketPlan>,
}

/// The shapes of batches: each batch has one, and a picture is in batches of the shape that is nearest to its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BucketPlan {
    /// The longest side of a shape over its shortest, at most.
    #[serde(default = "widest")]
    pub widest: f64,
    /// Sides are multiples of this many pixels of the base. Larger stages have the same shapes.
    pub multiple: u32,
}

fn widest() -> f64 {
    2.0
}

impl Default for DataPlan {
    fn default() -> Self {
        Self { held_out: 0.05, flip: false, random_crop: false, buckets: None }
    }
}

/// How often each embedding is dropped in training, so that guidance has something to move away from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DropoutPlan {
    /// T5.
    pub t5: f64,
    /// CLIP text, tokens and pooled embedding together.
    pub clip_text: f64,
    /// CLIP image.
    pub clip_image: f64,
}

/// The paper's rates.
impl Default for DropoutPlan {
    fn default() -> Self {
        let ConditioningDropout { t5, clip_text, clip_image } = ConditioningDropout::default();
        Self { t5, clip_text, clip_image }
    }
}

/// How a network is measured on pictures that it is not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ValidationPlan {
    /// Steps between two measurements.
    pub every: u64,
    /// How many pictures: the next whole number of batches.
    #[serde(default = "pictures")]
    pub pictures: u64,
    /// Into how many ranges the noise levels are cut, each as likely as another in training.
    #[serde(default = "bins")]
    pub bins: usize,
    /// After how many measurements without a better one the training ends; never if there is none.
    pub patience: Option<u64>,
}

fn pictures() -> u64 {
    64
}

fn bins() -> usize {
    5
}

/// Which weights stay beside the checkpoint that a run goes on from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct KeepPlan {
    /// Steps between two that are kept; 0 for none.
    pub every: u64,
    /// How many of those stay, the latest; 0 for all.
    pub last: usize,
    /// Which weights become those of the model.
    pub export: Export,
}

/// Which averaged weights of a network become those of the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Export {
    /// Those of the last step.
    #[default]
    Last,
    /// Those with the lowest validation loss.
    Best,
}

/// What sheets of samples show.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SheetPlan {
    /// Prompts, a picture each; captions of the data if there are none.
    pub prompts: Vec<String>,
}

impl EncoderPlan {
    pub(super) fn check(&self) -> Result<()> {
        let Self { model, t5, clip, own } = self;
        if model.is_some() && (t5.is_some() || clip.is_some() || own.is_some()) {
            return wrong(
                "encoders",
                "a model folder has both encoders: `t5`, `clip` and `own` cannot stand beside it",
            );
        }
        if own.is_some() && t5.is_some() {
            return wrong("encoders", "there is one T5: either `t5` or `own`");
        }
        own.as_ref().map_or(Ok(()), OwnT5::check)
    }
}

impl OwnT5 {
    fn check(&self) -> Result<()> {
        for (key, value, most) in [
            ("vocabulary", self.vocabulary as i64, 1 << 16),
            ("width", self.width, 4096),
            ("layers", self.layers as i64, 48),
            ("heads", self.heads, 64),
            ("batch", self.batch as i64, 1 << 16),
        ] {
            if !(1..=most).contains(&value) {
                return wrong(format!("encoders.own.{key}"), format!("{value} is not in 1..={most}"));
            }
        }
        if self.width % self.heads != 0 {
            return wrong("encoders.own.heads", format!("{} does not divide the width, {}", self.heads, self.width));
        }
        Ok(())
    }
}

impl DataPlan {
    pub(super) fn check(&self) -> Result<()> {
        if !(0.0..=0.5).contains(&self.held_out) {
            return wrong("data.held-out", format!("{} is not in [0, 0.5]", self.held_out));
        }
        match self.buckets {
            Some(BucketPlan { widest, .. }) if !(1.0..=8.0).contains(&widest) => {
                wrong("data.buckets.widest", format!("{widest} is not in 1..=8"))
            }
            _ => Ok(()),
        }
    }
}

impl DropoutPlan {
    pub(super) fn check(&self) -> Result<()> {
        for (key, rate) in [("t5", self.t5), ("clip-text", self.clip_text), ("clip-image", self.clip_image)] {
            if !(0.0..=1.0).contains(&rate) {
                return wrong(format!("dropout.{key}"), format!("{rate} is not in [0, 1]"));
            }
        }
        Ok(())
    }
}

impl ValidationPlan {
    pub(super) fn check(&self, held_out: f64) -> Result<()> {
        for (key, value, most) in
            [("every", self.every, u64::MAX), ("pictures", self.pictures, 1 << 20), ("bins", self.bins as u64, 64)]
        {
            if !(1..=most).contains(&value) {
                return wrong(format!("validation.{key}"), format!("{value} is not in 1..={most}"));
            }
        }
        if self.patience == Some(0) {
            return wrong("validation.patience", "0 would end the training before anything is measured");
        }
        if held_out == 0.0 {
            return wrong("validation", "`data.held-out` is 0: there are no pictures to measure on");
        }
        Ok(())
    }
}

impl KeepPlan {
    pub(super) fn check(&self, validation: Option<&ValidationPlan>) -> Result<()> {
        if self.export == Export::Best && validation.is_none() {
            return wrong("keep.export", "without `validation` nobody knows which weights are the best");
        }
        if self.last > 0 && self.every == 0 {
            return wrong("keep.last", "nothing is kept, as `keep.every` is 0");
        }
        Ok(())
    }
}
