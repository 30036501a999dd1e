//! An ensemble: the experts of one stage, and which of them are in memory.

use crate::experts::Experts;
use crate::plan::Plan;
use crate::pool::{ExpertPool, Loader, Residency};
use crate::{Error, Result};

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

    /// Gives the experts other noise levels, for the next schedule that is followed. What is loaded stays.
    ///
    /// # Errors
    /// [`Error::NoSuchExpert`] for noise levels of more or fewer experts.
    pub fn reown(&mut self, experts: Experts) -> Result<()> {
        let own = self.experts.len();
        if experts.len() != own {
            return Err(Error::NoSuchExpert { index: experts.len().saturating_sub(1), experts: own });
        }
        self.experts = experts;
        Ok(())
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
