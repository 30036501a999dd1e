//! The experts of a stage at work on one job: the denoiser that guidance and solver see.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::{Branch, BranchDenoiser, Estimate};
use ediffi_core::ensemble::Ensemble;
use ediffi_core::nn::ScoreBias;
use ediffi_core::pool::ExpertPool;
use ediffi_core::unet::{Context, Painted, UNet};
use ediffi_core::window::Window;
use ediffi_core::{Error, Result};
use tch::Tensor;

use crate::expert::Expert;
use crate::observer::{StageEvent, Watch};
use crate::tiled::TileGrid;

/// What the networks see of a batch besides the noisy pictures, on the device.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// With the enlarged smaller picture, as is the other.
    pub(crate) conditional: Conditioning,
    pub(crate) unconditional: Conditioning,
    /// Number of pictures.
    pub(crate) pictures: i64,
}

impl Inputs {
    /// What `network` derives from the rows of `branch`.
    fn context(&self, network: &UNet, branch: Branch) -> Result<Context> {
        let (conditioning, rows) = match branch {
            Branch::Conditional => (self.conditional.shallow_clone(), self.pictures),
            Branch::Unconditional => (self.unconditional.shallow_clone(), self.pictures),
            Branch::Weaker => (self.conditional.shallow_clone(), self.pictures),
            Branch::Both => (self.conditional.stacked(&self.unconditional)?, 2 * self.pictures),
        };
        network.context(&conditioning, rows)
    }
}

/// A stage's ensemble as a denoiser for the turn of one batch: every evaluation runs the expert that owns its noise level, tile by
/// tile if the picture is cut. The experts may stay in memory after the turn; what they derived from the batch does not.
pub(crate) struct StageDenoiser<'a, 'w> {
    pub(crate) ensemble: &'a mut Ensemble<Expert>,
    /// The pool of the weaker network, if the stage has one.
    pub(crate) weaker: Option<&'a mut ExpertPool<Expert>>,
    pub(crate) inputs: &'a Inputs,
    pub(crate) paint: Option<&'a dyn ScoreBias>,
    pub(crate) tiles: Option<&'a TileGrid>,
    pub(crate) watch: &'a Watch<'w>,
    /// The expert that works; none before the first evaluation of the turn.
    pub(crate) current: Option<usize>,
    /// What each expert derived from the inputs, made when it is first needed.
    pub(crate) contexts: HashMap<(usize, Branch), Context>,
}

impl StageDenoiser<'_, '_> {
    /// Expert `index` takes over.
    fn switch(&mut self, index: usize) -> Result<()> {
        self.watch.poll()?;
        if let Some(&interval) = self.ensemble.experts().intervals().get(index) {
            tracing::debug!(expert = index, %interval, "switched");
            let &Watch { stage, batch, .. } = self.watch;
            self.watch.report(&StageEvent::ExpertSwitched { stage, batch, expert: index, interval })?;
        }
        self.current = Some(index);
        Ok(())
    }
}

impl BranchDenoiser for StageDenoiser<'_, '_> {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> Result<Estimate> {
        let index = if branch == Branch::Weaker { 0 } else { self.ensemble.experts().index_of(sigma)? };
        if branch != Branch::Weaker && self.current != Some(index) {
            self.switch(index)?;
        }
        let pool = match (branch, &mut self.weaker) {
            (Branch::Weaker, Some(weaker)) => weaker,
            (Branch::Weaker, None) => return Err(Error::NoWeakerNetwork),
            _ => self.ensemble.pool(),
        };
        let expert = pool.get(index)?;
        let context = match self.contexts.entry((index, branch)) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => place.insert(self.inputs.context(&expert.network, branch)?),
        };
        let conditional = if branch == Branch::Unconditional { 0 } else { self.inputs.pictures };
        let hook = self.paint.filter(|_| conditional > 0);
        let painted = |window| hook.map(|hook| Painted { hook, sigma, conditional, window });
        let Some(tiles) = self.tiles else {
            self.watch.poll()?;
            return expert.estimate(x, sigma, context, painted(Window::WHOLE));
        };
        let (_, channels, height, width) = x.size4()?;
        // A variance is blended like the picture, as more channels of it.
        let blended = tiles.evaluate(x, 1, |piece, tile| {
            self.watch.poll()?;
            let context = context.tile(tile.top, tile.left, tile.height, tile.width)?;
            let painted = painted(tile.window(height, width));
            let Estimate { denoised, variance } = expert.estimate(piece, sigma, &context, painted)?;
            match variance {
                Some(variance) => Ok(Tensor::f_cat(&[&denoised, &variance.f_to_kind(denoised.f_kind()?)?], 1)?),
                None => Ok(denoised),
            }
        })?;
        let variance =
            (blended.size4()?.1 == 2 * channels).then(|| blended.f_narrow(1, channels, channels)).transpose()?;
        Ok(Estimate { denoised: blended.f_narrow(1, 0, channels)?, variance })
    }
}
