//! Layout guidance: the picture is pulled to where attention does what was painted.
//!
//! Paint biases attention, and the picture may not follow. Here each estimate moves against the gradient of an energy E, which is small where
//! every phrase is looked for in its region: D' = D − σ² ∇E(x). That is what a likelihood exp(−E) adds to the score, as with a classifier
//! (Dhariwal and Nichol 2021), with the energy of Chen, Laina and Vedaldi 2024, "Training-Free Layout Control with Cross-Attention Guidance"
//! ([arXiv 2304.03373](https://arxiv.org/abs/2304.03373), section 3.3). Their update of a latent by −σ² η ∇E before a step is this one.

use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use ediffi_core::Result;
use ediffi_core::denoiser::Branch;
use ediffi_core::nn::{Bias, ScoreBias, Site};
use ediffi_core::unet::{Context, Painted};
use ediffi_core::window::Window;
use tch::{Kind, Tensor};

use crate::denoiser::StageDenoiser;
use crate::expert::Expert;

impl StageDenoiser<'_, '_> {
    /// −σ² ∇E, which the estimate moves by; `None` where nothing is to be guided.
    ///
    /// # Shapes
    /// `x`: [pictures, channels, height, width] → the same
    pub(crate) fn layout_pull(&mut self, x: &Tensor, sigma: f64) -> Result<Option<Tensor>> {
        let Some(hook) = self.paint.filter(|hook| hook.guides(sigma)) else { return Ok(None) };
        self.watch.poll()?;
        let index = self.ensemble.experts().index_of(sigma)?;
        let expert = self.ensemble.pool().get(index)?;
        let context = match self.contexts.entry((index, Branch::Conditional, 0)) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => {
                place.insert(self.inputs.context(&expert.network, index, Branch::Conditional, 0)?)
            }
        };
        let pictures = self.inputs.pictures;
        let gradient = match self.tiles {
            None => gradient(expert, context, x, hook, (sigma, pictures, Window::WHOLE))?,
            Some(tiles) => {
                let (_, _, height, width) = x.size4()?;
                tiles.evaluate(x, 1, |piece, tile| {
                    self.watch.poll()?;
                    let context = context.tile(tile.top, tile.left, tile.height, tile.width)?;
                    gradient(expert, &context, piece, hook, (sigma, pictures, tile.window(height, width)))
                })?
            }
        };
        Ok(Some(gradient.f_mul_scalar(-sigma * sigma)?))
    }
}

/// ∇E(x) of a picture, or of a tile of it; zero where nothing is painted.
fn gradient(
    expert: &Expert,
    context: &Context,
    x: &Tensor,
    hook: &dyn ScoreBias,
    (sigma, conditional, window): (f64, i64, Window),
) -> Result<Tensor> {
    let energies = Energies { hook, layers: Mutex::default() };
    let painted = Painted { hook: &energies, sigma, conditional, window };
    let gradient = tch::with_grad(|| -> Result<Option<Tensor>> {
        let x = x.f_detach()?.f_set_requires_grad(true)?;
        expert.estimate(&x, sigma, context, Some(painted))?;
        let Some(energy) = energies.mean()? else { return Ok(None) };
        Ok(Tensor::f_run_backward(&[energy], &[x], false, false)?.pop())
    })?;
    gradient.map_or_else(|| Ok(x.f_zeros_like()?), Ok)
}

/// The same bias, and the energy of every layer that has one.
#[derive(Debug)]
struct Energies<'a> {
    hook: &'a dyn ScoreBias,
    layers: Mutex<Vec<Tensor>>,
}

impl Energies<'_> {
    /// The mean over layers, summed over the pictures: no picture has a part in the gradient of another.
    fn mean(&self) -> Result<Option<Tensor>> {
        let layers = std::mem::take(&mut *self.layers.lock().unwrap_or_else(PoisonError::into_inner));
        if layers.is_empty() {
            return Ok(None);
        }
        let count = layers.len() as f64;
        Ok(Some(Tensor::f_cat(&layers, 0)?.f_sum(Kind::Float)?.f_div_scalar(count)?))
    }
}

impl ScoreBias for Energies<'_> {
    fn bias(&self, site: &Site<'_>) -> Result<Option<Bias>> {
        // First, so that the scores have a gradient when they are computed.
        if let Some(energy) = self.hook.energy(site)? {
            self.layers.lock().unwrap_or_else(PoisonError::into_inner).push(energy);
        }
        // The strength of the paint is taken as given: its gradient is not asked for.
        let bias = tch::no_grad(|| self.hook.bias(site)?.map(Bias::into_dense).transpose())?;
        Ok(bias.map(Bias::Dense))
    }
}
