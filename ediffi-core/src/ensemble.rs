//! An ensemble of experts, which is itself a denoiser.

use tch::Tensor;

use crate::Result;
use crate::denoiser::{Branch, BranchDenoiser, Denoiser, Estimate};
use crate::experts::Experts;
use crate::plan::Plan;
use crate::pool::{ExpertPool, Loader, Residency};

/// The experts of one stage: each evaluation runs the one that owns its noise level.
///
/// It denoises in the way its experts do: it is a [`Denoiser`] of denoisers, a [`BranchDenoiser`] of branch denoisers.
#[derive(Debug)]
pub struct Ensemble<N> {
    experts: Experts,
    pool: ExpertPool<N>,
}

impl<N: Send + 'static> Ensemble<N> {
    /// The ensemble of `experts`, loaded by `loader` as `residency` says.
    #[must_use]
    pub fn new(experts: Experts, residency: Residency, loader: Loader<N>) -> Self {
        let pool = ExpertPool::new(experts.len(), residency, loader);
        Self { experts, pool }
    }

    /// Plans a schedule and keeps to the plan: with [`Residency::RelayPrefetch`], the next expert is loaded ahead.
    ///
    /// # Errors
    ///
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

    /// What is in memory.
    pub fn pool(&mut self) -> &mut ExpertPool<N> {
        &mut self.pool
    }

    /// The expert that owns `sigma`, loaded if it is not in memory.
    ///
    /// # Errors
    ///
    /// As [`Experts::index_of`] and [`ExpertPool::get`].
    pub fn expert(&mut self, sigma: f64) -> Result<&mut N> {
        self.pool.get(self.experts.index_of(sigma)?)
    }
}

impl<N: Denoiser + Send + 'static> Denoiser for Ensemble<N> {
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate> {
        self.expert(sigma)?.estimate(x, sigma)
    }
}

impl<N: BranchDenoiser + Send + 'static> BranchDenoiser for Ensemble<N> {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> Result<Estimate> {
        self.expert(sigma)?.estimate_branch(x, sigma, branch)
    }
}
