//! What a caller sees of running stages, and how it stops them.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::time::Duration;

use ediffi_core::interval::SigmaInterval;
use ediffi_core::solver::Step;
use ediffi_core::{Error, Result};
use tch::Tensor;

use crate::plan::StagePlan;

/// Pictures of a job that are drawn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Which batch, from 0.
    pub index: usize,
    /// How many batches there are.
    pub batches: usize,
    /// The first picture of the batch, counted from 0 in the job.
    pub first: usize,
}

impl Batch {
    /// The only batch of its job.
    pub(crate) const ONLY: Self = Self { index: 0, batches: 1, first: 0 };
}

/// Something that happened while stages were sampling.
///
/// A stage tells the steps of a batch in order. With [`Residency::All`](ediffi_core::pool::Residency::All) all of one batch come
/// before those of the next. Otherwise batches take turns, one for each expert: the steps that the first expert makes, batch after
/// batch, then those of the next expert. A step that crosses from one expert to the next may end in the turn of either, as the
/// solver evaluates.
#[derive(Debug)]
#[non_exhaustive]
pub enum StageEvent<'a> {
    /// A stage begins; nothing has been loaded or computed for it yet.
    StageStarted {
        /// What it is going to do.
        plan: &'a StagePlan,
        /// Its position among the stages that run, from 0.
        index: usize,
        /// How many stages run, the enlarger included.
        stages: usize,
        /// In how many batches the pictures are drawn; each goes through all steps of the plan.
        batches: usize,
    },
    /// An expert takes over a batch. It may have to be loaded now.
    ExpertSwitched {
        /// Name of the stage.
        stage: &'a str,
        /// The batch, whose steps are the next.
        batch: Batch,
        /// Index of the expert.
        expert: usize,
        /// The noise levels that it owns.
        interval: SigmaInterval,
    },
    /// A step of the solver is done.
    Step {
        /// Name of the stage.
        stage: &'a str,
        /// The pictures that are being drawn. The next step may be that of another batch.
        batch: Batch,
        /// Which step of this batch, from 0.
        index: usize,
        /// How many steps a batch has.
        steps: usize,
        /// The noise level the step started from.
        sigma: f64,
        /// The estimate of the clean image at the start of the step, [n, 3, h, w] f32 on the stage's device: a preview. In a latent stage
        /// it is the estimate of the latents, of which
        /// [`AutoencoderConfig::preview`](ediffi_core::autoencoder::AutoencoderConfig::preview) makes colours.
        /// Nothing is computed or copied for it unless it is used.
        denoised: &'a Tensor,
    },
    /// A stage is done with all batches. With an enlarger, that of the last stage comes before the enlarger's last batch.
    StageFinished {
        /// What it did.
        plan: &'a StagePlan,
        /// How long it took, loading included.
        elapsed: Duration,
    },
    /// The enlarger begins, when the last stage is done with its first batch. It takes over each batch as soon as the stage is
    /// done with it. Nothing has been loaded or computed for it yet.
    EnlargerStarted {
        /// Its position among the stages that run, from 0.
        index: usize,
        /// How many stages run, the enlarger included.
        stages: usize,
        /// In how many batches the pictures are enlarged.
        batches: usize,
        /// Into how many tiles each batch is cut.
        tiles: usize,
        /// Width in pixels of its pictures.
        width: u32,
        /// Height in pixels of its pictures.
        height: u32,
    },
    /// A tile of a batch is enlarged.
    TileEnlarged {
        /// The pictures that are being enlarged.
        batch: Batch,
        /// Which tile of this batch, from 0.
        index: usize,
        /// Into how many tiles each batch is cut.
        tiles: usize,
    },
    /// The enlarger is done with all batches.
    EnlargerFinished {
        /// How long it took, loading included.
        elapsed: Duration,
    },
    /// The pictures of a batch are finished.
    Pictures {
        /// Which pictures.
        batch: Batch,
        /// [n, 3, h, w] f32 in [-1, 1], on the CPU.
        pictures: &'a Tensor,
    },
}

/// Watches stages and may stop them.
///
/// A closure `|event: &StageEvent<'_>| -> ControlFlow<()>` is one; `()` watches nothing.
pub trait StageObserver {
    /// Called as things happen. `Break` ends the run with [`Error::Cancelled`](crate::Error::Cancelled).
    fn event(&mut self, event: &StageEvent<'_>) -> ControlFlow<()>;

    /// Asked before every evaluation of a network, of which a step may have many, and before every tile of the enlarger;
    /// `true` ends the run with [`Error::Cancelled`](crate::Error::Cancelled). It should be cheap: the reading of a flag.
    fn cancelled(&mut self) -> bool {
        false
    }
}

impl<F: FnMut(&StageEvent<'_>) -> ControlFlow<()>> StageObserver for F {
    fn event(&mut self, event: &StageEvent<'_>) -> ControlFlow<()> {
        self(event)
    }
}

impl StageObserver for () {
    fn event(&mut self, _event: &StageEvent<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// One observer for all that talk to it while a batch is drawn: steps of the solver, switches of experts, and the question whether
/// to go on.
pub(crate) struct Watch<'a> {
    pub(crate) stage: &'a str,
    pub(crate) batch: Batch,
    observer: RefCell<&'a mut dyn StageObserver>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(stage: &'a str, batch: Batch, observer: &'a mut dyn StageObserver) -> Self {
        Self { stage, batch, observer: RefCell::new(observer) }
    }

    /// Reports what happened.
    pub(crate) fn report(&self, event: &StageEvent<'_>) -> Result<()> {
        if self.observer.borrow_mut().event(event).is_break() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Goes on unless the observer wants to stop.
    pub(crate) fn poll(&self) -> Result<()> {
        if self.observer.borrow_mut().cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Reports a step of the solver, which is number `index` of all that are made.
    pub(crate) fn step(&self, step: &Step<'_>, index: usize, steps: usize) -> Result<()> {
        let &Step { sigma, denoised, .. } = step;
        self.report(&StageEvent::Step { stage: self.stage, batch: self.batch, index, steps, sigma, denoised })
    }
}

/// Reports what happened to no batch in particular, or to one that is finished.
pub(crate) fn report(observer: &mut dyn StageObserver, event: &StageEvent<'_>) -> crate::Result<()> {
    if observer.event(event).is_break() { Err(crate::Error::Cancelled) } else { Ok(()) }
}
