//! What a side is once it has loaded.

use std::time::Instant;

use tch::Device;

use crate::result::Result;

/// Where all of this is computed.
pub(super) const DEVICE: Device = Device::Cpu;

/// Evaluates once, and says how many seconds that took.
pub(super) type Evaluate = Box<dyn FnMut() -> Result<f64>>;

/// What a side can do once it has loaded.
pub(super) struct Ready {
    pub(super) evaluate: Evaluate,
    /// How much one evaluation computes, where this side knows it best.
    pub(super) flop: Option<f64>,
}

impl Ready {
    /// Work whose time is that of the whole call.
    pub(super) fn timing<T>(mut work: impl FnMut() -> Result<T> + 'static) -> Self {
        let evaluate = move || {
            let began = Instant::now();
            let _ = work()?;
            Ok(began.elapsed().as_secs_f64())
        };
        Self { evaluate: Box::new(evaluate), flop: None }
    }
}
