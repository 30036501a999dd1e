//! An ensemble: the experts of one stage, and which of them are in memory.

use crate::Result;
use crate::experts::Experts;
use crate::plan::Plan;
use crate::pool::{ExpertPool, Loader, Residency};

/// The experts of one stage. Each evaluation runs the expert that owns its noise level.
///
/// `N` is what is loaded for an expert. The crate `ediffi-cascade` makes a denoiser of a stage's ensemble and the job at
/// hand.
#[derive(Debug)]
pub struct Ensemble<N> {
    experts: Experts,
    pool: ExpertPool<N>,
}

impl<N: Send + 'static> Ensemble<N> {
    /// The ensemble of `experts`. `loader` loads them when they are needed, and `residency` says how many stay.
    #[must_use]
    pub fn new(experts: Experts, residency: Residency, loader: Loader<N>) -> Self {
        let pool = ExpertPool::new(experts.len(), residency, loader);
        Self { experts, pool }
    }

    /// Plans a schedule. With [`Residency::RelayPrefetch`], the next expert of the plan is then loaded ahead.
    ///
    /// # Errors
    /// As [`Experts::plan`].
    pub fn follow(&mut self, sigmas: &[f64]) -> Result<Plan> {
        let plan = self.experts.plan(sigmas)?;
        self.pool.follow(&plan);
        Ok(plan)
    }

    /// Which expert owns which noise level.
    #[must_use]
    pub fn experts(&self) -> &Experts {
        &self.experts
    }

    /// The experts that are in memory, lowest index first.
    pub fn resident(&self) -> impl Iterator<Item = usize> + '_ {
        self.pool.resident()
    }

    /// The pool that loads and keeps the experts.
    pub fn pool(&mut self) -> &mut ExpertPool<N> {
        &mut self.pool
    }
}
