//! What a caller sees of a running stage, and how it stops it.

use std::cell::RefCell;
use std::fmt;
use std::ops::ControlFlow;

use ediffi_core::interval::SigmaInterval;
use ediffi_core::plan::Plan;
use ediffi_core::solver::{Step, StepObserver};
use ediffi_core::{Error, Result};
use tch::Tensor;

/// Something that happened while a stage was sampling.
#[non_exhaustive]
pub enum StageEvent<'a> {
    /// A stage begins; nothing has been loaded or computed for it yet.
    StageStarted {
        /// Name of the stage.
        stage: &'a str,
        /// Which expert runs which step.
        plan: &'a Plan,
        /// How many evaluations of the denoiser the solver makes. Guidance may need two of the network for one of these,
        /// and tiling one for each tile.
        evaluations: usize,
    },
    /// Another expert takes over, at the first evaluation too. It may have to be loaded now.
    ExpertSwitched {
        /// Name of the stage.
        stage: &'a str,
        /// Index of the expert.
        expert: usize,
        /// The noise levels that it owns.
        interval: SigmaInterval,
    },
    /// A step of the solver is done.
    Step {
        /// Name of the stage.
        stage: &'a str,
        /// Which step, counted from 0.
        index: usize,
        /// How many steps there are.
        steps: usize,
        /// The noise level the step started from.
        sigma: f64,
        /// The estimate of the clean image at the start of the step, [n, 3, h, w] f32 on the stage's device: a preview.
        /// Nothing is computed or copied for it unless it is used.
        denoised: &'a Tensor,
    },
    /// A stage is done.
    StageFinished {
        /// Name of the stage.
        stage: &'a str,
    },
}

impl fmt::Debug for StageEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StageStarted { stage, plan, evaluations } => f
                .debug_struct("StageStarted")
                .field("stage", stage)
                .field("plan", plan)
                .field("evaluations", evaluations)
                .finish(),
            Self::ExpertSwitched { stage, expert, interval } => f
                .debug_struct("ExpertSwitched")
                .field("stage", stage)
                .field("expert", expert)
                .field("interval", interval)
                .finish(),
            // The tensor's own form would copy its values from the device.
            Self::Step { stage, index, steps, sigma, .. } => f
                .debug_struct("Step")
                .field("stage", stage)
                .field("index", index)
                .field("steps", steps)
                .field("sigma", sigma)
                .finish_non_exhaustive(),
            Self::StageFinished { stage } => f.debug_struct("StageFinished").field("stage", stage).finish(),
        }
    }
}

/// Watches a stage and may stop it.
///
/// A closure `|event: &StageEvent<'_>| -> ControlFlow<()>` is one; `()` watches nothing.
pub trait StageObserver {
    /// Called as things happen. `Break` ends the run with [`Error::Cancelled`](crate::Error::Cancelled).
    fn event(&mut self, event: &StageEvent<'_>) -> ControlFlow<()>;

    /// Asked before every evaluation of the network, of which a step may have many; `true` ends the run with
    /// [`Error::Cancelled`](crate::Error::Cancelled). It should be cheap: the reading of a flag.
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

/// One observer for the two that talk to it: the solver reports steps, the denoiser switches experts and asks whether to
/// go on.
pub(crate) struct Watch<'a> {
    stage: &'a str,
    observer: RefCell<&'a mut dyn StageObserver>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(stage: &'a str, observer: &'a mut dyn StageObserver) -> Self {
        Self { stage, observer: RefCell::new(observer) }
    }

    /// Reports what happened.
    pub(crate) fn report(&self, event: &StageEvent<'_>) -> Result<()> {
        match self.observer.borrow_mut().event(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    /// Goes on unless the observer wants to stop.
    pub(crate) fn poll(&self) -> Result<()> {
        if self.observer.borrow_mut().cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    pub(crate) fn stage(&self) -> &'a str {
        self.stage
    }
}

/// The solver's side; [`Watch::poll`] is asked more often than the solver would, so its own question stays unanswered.
impl StepObserver for &Watch<'_> {
    fn step(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        let event = StageEvent::Step {
            stage: self.stage,
            index: step.index,
            steps: step.steps,
            sigma: step.sigma,
            denoised: step.denoised,
        };
        self.observer.borrow_mut().event(&event)
    }
}
