//! Watching and stopping a running solver.

use std::fmt;
use std::ops::ControlFlow;

use tch::Tensor;

/// A finished step of a solver.
#[non_exhaustive]
pub struct Step<'a> {
    /// The number of the step, counted from 0.
    pub index: usize,
    /// The number of steps: one for each positive sigma of the schedule.
    pub steps: usize,
    /// The noise level the step started from.
    pub sigma: f64,
    /// The noise level it reached; 0 after the last step.
    pub sigma_next: f64,
    /// The estimate of the clean image at the start of the step: `[n, channels, height, width]`. It is a preview of the
    /// result; after the last step it is the result.
    pub denoised: &'a Tensor,
}

impl fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The tensor's own form would copy its values from the device.
        let Self { index, steps, sigma, .. } = self;
        f.debug_struct("Step").field("index", index).field("steps", steps).field("sigma", sigma).finish_non_exhaustive()
    }
}

/// Watches a solver and may stop it.
///
/// A closure `|step: &Step<'_>| -> ControlFlow<()>` is an observer, and `()` is one that does nothing.
pub trait StepObserver {
    /// Called after each step. `Break` ends the run with [`Error::Cancelled`](crate::Error::Cancelled), even after the last
    /// step.
    fn step(&mut self, step: &Step<'_>) -> ControlFlow<()>;

    /// Asked before every evaluation of the denoiser, of which a step may have several. `true` ends the run with
    /// [`Error::Cancelled`](crate::Error::Cancelled). It should be as cheap as reading a flag.
    fn cancelled(&mut self) -> bool {
        false
    }
}

impl<F: FnMut(&Step<'_>) -> ControlFlow<()>> StepObserver for F {
    fn step(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        self(step)
    }
}

impl StepObserver for () {
    fn step(&mut self, _step: &Step<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
