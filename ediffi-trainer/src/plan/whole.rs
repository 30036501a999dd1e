//! A whole plan: everything that is trained for one model.

use std::fmt;
use std::path::Path;

use ediffi_data::AspectBuckets;
use ediffi_train::plan::{EncoderTraining, TrainingPlan};
use serde::{Deserialize, Serialize};

use super::settings::{BucketPlan, DataPlan, DropoutPlan, EncoderPlan, KeepPlan, SheetPlan, ValidationPlan};
use super::stage::StagePlan;
use crate::error::{file_error, wrong};
use crate::{Error, Result};

/// The name of the T5 that a plan trains.
pub(crate) const OWN_T5: &str = "t5";

/// Everything that is trained for one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Seed of weights, order, crops and noise.
    pub seed: u64,
    /// Pictures a batch.
    pub batch: u64,
    /// Batches whose gradients make one step.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// Which encoders read the captions.
    #[serde(default)]
    pub encoders: EncoderPlan,
    /// How pictures are taken from the data.
    #[serde(default)]
    pub data: DataPlan,
    /// How often each embedding is dropped.
    #[serde(default)]
    pub dropout: DropoutPlan,
    /// How networks are measured on the way; not at all if there is none.
    pub validation: Option<ValidationPlan>,
    /// Which weights are kept on the way, and which become those of the model.
    #[serde(default)]
    pub keep: KeepPlan,
    /// What sheets of samples show.
    #[serde(default)]
    pub sheets: SheetPlan,
    /// The stages, the base first.
    pub stages: Vec<StagePlan>,
}

fn one() -> u64 {
    1
}

impl Plan {
    /// Reads and checks a plan in TOML.
    ///
    /// # Errors
    /// [`Error::PlanText`] for text that is no plan, and the errors of [`check`](Self::check).
    pub fn parse(text: &str) -> Result<Self> {
        let plan: Self = toml::from_str(text)?;
        plan.check()?;
        Ok(plan)
    }

    /// Reads and checks the plan in a file.
    ///
    /// # Errors
    /// [`Error::PlanFile`] naming the file, with the reason.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || Self::parse(&std::fs::read_to_string(path).map_err(file_error(path))?);
        read().map_err(|source| Error::PlanFile { path: path.to_owned(), source: Box::new(source) })
    }

    /// The plan in TOML, which [`parse`](Self::parse) reads back.
    ///
    /// # Errors
    /// [`Error::Plan`] for a number that TOML cannot hold: a seed beyond an `i64`.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).or_else(|error| wrong(&self.name, error.to_string()))
    }

    /// Checks everything that can be checked without the data and the encoders.
    ///
    /// # Errors
    /// [`Error::Plan`] naming what is wrong; those of [`TrainingPlan::check`] and of a stage's settings.
    pub fn check(&self) -> Result<()> {
        self.training().check()?;
        self.encoders.check()?;
        self.data.check()?;
        self.dropout.check()?;
        self.validation.map_or(Ok(()), |validation| validation.check(self.data.held_out))?;
        self.keep.check(self.validation.as_ref())?;
        let mut smaller = None;
        for (index, stage) in self.stages.iter().enumerate() {
            stage.check(smaller)?;
            if ["t5", "clip", "training", "notices", "loras"].contains(&stage.name.as_str()) {
                return wrong(&stage.name, "a model has another folder of this name");
            }
            if self.stages.iter().take(index).any(|other| other.name == stage.name) {
                return wrong(&stage.name, "the name stands twice");
            }
            self.check_shapes(stage)?;
            smaller = Some(stage.side);
        }
        Ok(())
    }

    /// The plan as `ediffi-train` has it: names, cells, parents and training.
    #[must_use]
    pub fn training(&self) -> TrainingPlan {
        let own = self.encoders.own.as_ref().map(|own| EncoderTraining {
            name: OWN_T5.to_owned(),
            batch: Some(own.batch),
            training: own.training,
        });
        TrainingPlan {
            name: self.name.clone(),
            seed: self.seed,
            batch: self.batch,
            accumulate: self.accumulate,
            encoders: own.into_iter().collect(),
            stages: self.stages.iter().map(StagePlan::training).collect(),
        }
    }

    /// The shapes of a stage's batches, if they are not all squares, with the `multiple` in its own pixels.
    pub(crate) fn buckets(&self, stage: &StagePlan) -> Option<BucketPlan> {
        let buckets = self.data.buckets.filter(|_| stage.crop.is_none())?;
        let base = self.stages.first().map_or(stage.side, |base| base.side);
        Some(BucketPlan { multiple: buckets.multiple.saturating_mul(stage.side / base.max(1)), ..buckets })
    }

    /// Refuses shapes whose sides the networks of a stage do not take.
    fn check_shapes(&self, stage: &StagePlan) -> Result<()> {
        let Some(BucketPlan { widest, multiple }) = self.buckets(stage) else { return Ok(()) };
        let needed = stage.network.dimensions()?.io().size_multiple;
        let (name, side) = (&stage.name, stage.side);
        if multiple > 0 && side.is_multiple_of(multiple) && i64::from(multiple) % needed == 0 {
            let too_large = AspectBuckets { widest, multiple }.too_large(side);
            return too_large.map_or(Ok(()), |(height, width)| {
                let reason = format!(
                    "{name} would have pictures of {width}x{height} pixels among those of about {side}x{side}: take a smaller multiple, or a \
                     smaller `widest`"
                );
                wrong("data.buckets.multiple", reason)
            });
        }
        let reason = format!(
            "{name} has sides of {multiple} pixels or a multiple of it, which has to divide {side} and be a multiple of {needed}"
        );
        wrong("data.buckets.multiple", reason)
    }

    /// The side of the stage before `stage`; `None` of the base.
    pub(crate) fn smaller(&self, stage: &StagePlan) -> Option<u32> {
        let index = self.stages.iter().position(|other| other.name == stage.name)?;
        Some(self.stages.get(index.checked_sub(1)?)?.side)
    }
}

/// The table of its networks.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.training().fmt(f)
    }
}
