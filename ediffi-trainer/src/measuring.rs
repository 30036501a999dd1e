//! When a network under training is measured, on what, and what follows from it.

use ediffi_core::conditioning::Conditioning;
use ediffi_data::Part;
use ediffi_train::batch::{Batch, BatchSource};
use ediffi_train::learner::Learner;

use crate::Result;
use crate::data::{Shapes, Text, source};
use crate::measured::{MeasureLog, Measured};
use crate::plan::{NetworkPlan, StagePlan, ValidationPlan};
use crate::run_folder::measured;
use crate::validation::{Bins, measure};
use crate::workshop::Workshop;

/// The validation of one network.
pub(crate) struct Measuring {
    plan: ValidationPlan,
    bins: Bins,
    log: MeasureLog,
    stage: StagePlan,
    /// What it is measured on, once it is needed.
    batches: Vec<Batch<Text>>,
    begun: bool,
}

impl Measuring {
    /// That of a network, if the plan has validation.
    pub(crate) fn open(workshop: &Workshop<'_>, stage: &StagePlan, network: &NetworkPlan) -> Result<Option<Self>> {
        let Some(plan) = workshop.plan.validation else { return Ok(None) };
        let bins = Bins::new(stage.noise, network.cell.interval(&stage.noise)?, plan.bins);
        let log =
            MeasureLog::open(&measured(&workshop.options.folder, &format!("{}.{}", stage.name, network.name)), &bins)?;
        Ok(Some(Self { plan, bins, log, stage: stage.clone(), batches: Vec::new(), begun: false }))
    }

    /// The step at which it has ended the training. What a killed run measured past its checkpoint counts: it would be measured again.
    pub(crate) fn ended(&self) -> Option<u64> {
        self.log.ended(self.plan.patience?)
    }

    /// Drops what is measured again, before the first step of this process.
    pub(crate) fn begin(&mut self, step: u64) -> Result<()> {
        if !self.begun {
            self.log.drop_from(step)?;
            self.begun = true;
        }
        Ok(())
    }

    pub(crate) fn due(&self, step: u64) -> bool {
        step.is_multiple_of(self.plan.every)
    }

    /// The name of a range of noise levels.
    pub(crate) fn label(&self, bin: usize) -> String {
        let (low, high) = self.bins.ends(bin);
        format!("sigma {low:.3} to {high:.3}")
    }

    pub(crate) fn measure<F>(&mut self, workshop: &Workshop<'_>, learner: &Learner<F>, step: u64) -> Result<Measured>
    where
        F: Fn(&Batch<Text>) -> Result<Conditioning>,
    {
        if self.batches.is_empty() {
            let (plan, threads) = (workshop.plan, workshop.options.threads.unwrap_or(0));
            let held_out = source(plan, &self.stage, &workshop.dataset, (Part::HeldOut, Shapes::OfThePlan), threads)?;
            let count = self.plan.pictures.div_ceil(plan.batch.max(1));
            self.batches = (0..count).map(|number| held_out.batch(number)).collect::<Result<_>>()?;
        }
        Ok(Measured { step, losses: measure(learner, &self.batches, &self.bins, workshop.plan.seed)? })
    }

    /// Whether nothing better was measured before. What is no number is never the best.
    pub(crate) fn is_best(&self, measured: &Measured) -> bool {
        measured.is_finite() && self.log.best().is_none_or(|best| measured.mean() < best.mean())
    }

    /// Writes a measurement down. Whether it ends the training.
    pub(crate) fn write(&mut self, measured: Measured) -> Result<bool> {
        self.log.write(measured)?;
        Ok(self.ended().is_some())
    }
}
