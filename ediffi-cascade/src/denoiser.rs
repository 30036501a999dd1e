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
use crate::mix::{Share, plus};
use crate::observer::{StageEvent, Watch};
use crate::tiled::TileGrid;

/// What the networks see of a batch besides the noisy pictures, on the device.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// Those of the prompts, the job's own first, with the enlarged smaller picture, as is the other.
    pub(crate) conditional: Vec<Conditioning>,
    pub(crate) unconditional: Conditioning,
    /// Experts that guidance leads away from something else than `unconditional`.
    pub(crate) leaning: Vec<(usize, Conditioning)>,
    /// Number of pictures.
    pub(crate) pictures: i64,
}

impl Inputs {
    /// What the network of an expert derives from the rows of `branch` under a prompt.
    pub(crate) fn context(&self, network: &UNet, expert: usize, branch: Branch, prompt: usize) -> Result<Context> {
        let own = self.leaning.iter().find(|(index, _)| *index == expert && branch != Branch::Weaker);
        let unconditional = own.map_or(&self.unconditional, |(_, leaning)| leaning);
        let conditional =
            self.conditional.get(prompt).ok_or(Error::Internal("a prompt has a share and is not there"))?;
        let (conditioning, rows) = match branch {
            Branch::Conditional => (conditional.shallow_clone(), self.pictures),
            Branch::Unconditional => (unconditional.shallow_clone(), self.pictures),
            Branch::Weaker => (conditional.shallow_clone(), self.pictures),
            Branch::Both => (conditional.stacked(unconditional)?, 2 * self.pictures),
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
    /// Those of the prompts beside the job's own.
    pub(crate) shares: &'a [Share],
    /// Of the words of the job's own prompt.
    pub(crate) paint: Option<&'a dyn ScoreBias>,
    pub(crate) tiles: Option<&'a TileGrid>,
    pub(crate) watch: &'a Watch<'w>,
    /// The expert that works; none before the first evaluation of the turn.
    pub(crate) current: Option<usize>,
    /// What each expert derived from the inputs under a prompt, made when it is first needed.
    pub(crate) contexts: HashMap<(usize, Branch, usize), Context>,
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

    /// The estimate under one of the prompts.
    fn estimate_prompt(&mut self, x: &Tensor, sigma: f64, branch: Branch, prompt: usize) -> Result<Estimate> {
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
        let context = match self.contexts.entry((index, branch, prompt)) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => place.insert(self.inputs.context(&expert.network, index, branch, prompt)?),
        };
        let conditional = if branch == Branch::Unconditional { 0 } else { self.inputs.pictures };
        let hook = self.paint.filter(|_| conditional > 0 && prompt == 0);
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

impl BranchDenoiser for StageDenoiser<'_, '_> {
    /// Under several prompts, the mean of the estimates by their shares. The rows without a prompt are computed once, beside the first.
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> Result<Estimate> {
        let counting = if branch == Branch::Unconditional { vec![(0, 1.0)] } else { Share::at(self.shares, sigma) };
        let ((prompt, share), others) = match *counting.as_slice() {
            [(only, _)] => return self.estimate_prompt(x, sigma, branch, only),
            [first, ref others @ ..] => (first, others),
            [] => return Err(Error::Internal("no prompt has a share")),
        };
        let rows = self.inputs.pictures;
        let Estimate { denoised, variance } = self.estimate_prompt(x, sigma, branch, prompt)?;
        let with_prompt = |x: &Tensor| x.f_narrow(0, 0, rows);
        let first =
            Estimate { denoised: with_prompt(&denoised)?, variance: variance.as_ref().map(with_prompt).transpose()? };
        let (x, single) = (with_prompt(x)?, if branch == Branch::Both { Branch::Conditional } else { branch });
        let mut mean = plus(None, &first, share)?;
        for &(prompt, share) in others {
            let estimate = self.estimate_prompt(&x, sigma, single, prompt)?;
            mean = plus(Some(mean), &estimate, share)?;
        }
        if branch != Branch::Both {
            return Ok(mean);
        }
        let with_rest = |mean: &Tensor, all: &Tensor| Tensor::f_cat(&[mean, &all.f_narrow(0, rows, rows)?], 0);
        let variance = mean.variance.as_ref().zip(variance.as_ref()).map(|(mean, all)| with_rest(mean, all));
        Ok(Estimate { denoised: with_rest(&mean.denoised, &denoised)?, variance: variance.transpose()? })
    }
}
