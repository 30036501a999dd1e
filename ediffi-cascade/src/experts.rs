//! The experts of a stage at work on one job.

use std::collections::BTreeMap;

use ediffi_core::Result;
use ediffi_core::denoiser::{Branch, BranchDenoiser, Estimate};
use ediffi_core::ensemble::Ensemble;
use ediffi_core::nn::ScoreBias;
use tch::Tensor;

use crate::expert::{Branches, Contexts, Expert, ExpertDenoiser};
use crate::observer::{StageEvent, Watch};
use crate::tiled::TileGrid;

/// The ensemble at work on one job. The experts may stay in memory after it; what they derived from the job does not.
pub(crate) struct EnsembleDenoiser<'a, 'w> {
    ensemble: &'a mut Ensemble<Expert>,
    branches: &'a Branches,
    contexts: BTreeMap<usize, Contexts>,
    /// Whether contexts outlive their expert's turn.
    keep_contexts: bool,
    current: Option<usize>,
    paint: Option<&'a dyn ScoreBias>,
    tiles: Option<&'a TileGrid>,
    watch: &'a Watch<'w>,
}

impl<'a, 'w> EnsembleDenoiser<'a, 'w> {
    pub(crate) fn new(
        ensemble: &'a mut Ensemble<Expert>,
        branches: &'a Branches,
        keep_contexts: bool,
        paint: Option<&'a dyn ScoreBias>,
        tiles: Option<&'a TileGrid>,
        watch: &'a Watch<'w>,
    ) -> Self {
        let contexts = BTreeMap::new();
        Self { ensemble, branches, contexts, keep_contexts, current: None, paint, tiles, watch }
    }

    /// Expert `index` takes over.
    fn switch(&mut self, index: usize) -> Result<()> {
        self.watch.poll()?;
        if !self.keep_contexts {
            self.contexts.clear();
        }
        let intervals = self.ensemble.experts().intervals();
        if let Some(&interval) = intervals.get(index) {
            tracing::debug!(expert = index, %interval, "switched");
            let stage = self.watch.stage();
            self.watch.report(&StageEvent::ExpertSwitched { stage, expert: index, interval })?;
        }
        self.current = Some(index);
        Ok(())
    }
}

impl BranchDenoiser for EnsembleDenoiser<'_, '_> {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> Result<Estimate> {
        let index = self.ensemble.experts().index_of(sigma)?;
        if self.current != Some(index) {
            self.switch(index)?;
        }
        let expert = self.ensemble.pool().get(index)?;
        let contexts = self.contexts.entry(index).or_default();
        let (branches, paint, tiles, watch) = (self.branches, self.paint, self.tiles, self.watch);
        ExpertDenoiser { expert, branches, contexts, paint, tiles, watch }.estimate_branch(x, sigma, branch)
    }
}
