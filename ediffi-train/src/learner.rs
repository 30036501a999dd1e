//! A network under training on pictures: from a batch to its loss.

use std::sync::Arc;

use ediffi_cascade::low_res::enlarge;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::precondition::Precondition;
use ediffi_core::unet::{Layout, UNet};
use ediffi_core::weights::{Params, Scope};
use rand::Rng;
use tch::{Kind, Tensor};

use crate::Error;
use crate::batch::Batch;
use crate::corruption::Corruption;
use crate::dropout::ConditioningDropout;
use crate::loss::denoising_loss;
use crate::noise::NoiseLevels;
use crate::random::{batch_rng, normal};
use crate::replica::expect_trainable;

/// What a network learns.
#[derive(Debug, Clone)]
pub struct Objective {
    /// The coefficients around the network.
    pub precondition: Arc<dyn Precondition>,
    /// The noise levels it is trained on.
    pub levels: NoiseLevels,
    /// How often its embeddings are dropped.
    pub dropout: ConditioningDropout,
    /// How the smaller pictures are spoilt. A base has none.
    pub corruption: Corruption,
    /// Seed of everything random in a batch beside its data: corruption, dropout, noise levels and noise, in this order.
    pub seed: u64,
}

impl Objective {
    /// An objective with the paper's dropout, and the corruption of pictures of 64 pixels.
    #[must_use]
    pub fn new(precondition: impl Precondition + 'static, levels: NoiseLevels, seed: u64) -> Self {
        let (dropout, corruption) = (ConditioningDropout::default(), Corruption::for_64());
        Self { precondition: Arc::new(precondition), levels, dropout, corruption, seed }
    }
}

/// A network and what encodes its batches.
///
/// It trains a base on [batches](Batch) of pictures alone, and super-resolution on batches that have the smaller pictures as
/// well.
#[derive(Debug)]
pub struct Learner<F> {
    /// The network.
    pub network: UNet,
    /// What it learns.
    pub objective: Objective,
    encode: F,
}

impl<F> Learner<F> {
    /// A network over `params` that computes in `kind`. `encode` makes the embeddings of a batch from what is said of it, or
    /// from its pictures; `low_res` of what it returns is left out.
    ///
    /// # Errors
    /// A layout that makes no network, parameters that do not fit it; [`Error::Setting`] for a kind that is neither f32 nor bf16 (the
    /// gradients of f16 would need a loss that is scaled), or another than that in which a [`Setup`](crate::fit::Setup) has the weights.
    pub fn new(
        params: &mut dyn Params,
        layout: &dyn Layout,
        kind: Kind,
        objective: Objective,
        encode: F,
    ) -> Result<Self, Error> {
        expect_trainable(kind)?;
        if let Some(given) = params.kind().filter(|given| *given != kind) {
            let reason = format!("the learner's is {kind:?}, the weights are given in {given:?} (`Setup::kind`)");
            return Err(Error::Setting { field: "kind", reason });
        }
        Ok(Self { network: UNet::new(Scope::root(params), layout, kind)?, objective, encode })
    }

    /// The conditioning of a batch before embeddings are dropped. The smaller pictures are spoilt with numbers from `rng`, and
    /// enlarged.
    ///
    /// # Errors
    /// Those of `encode`; a corruption that makes no sense.
    pub fn conditioning<T, E: From<Error>>(&self, batch: &Batch<T>, rng: &mut impl Rng) -> Result<Conditioning, E>
    where
        F: Fn(&Batch<T>) -> Result<Conditioning, E>,
    {
        let mut low_res = |smaller| -> Result<Tensor, Error> {
            let spoilt = self.objective.corruption.corrupt(smaller, rng)?;
            let (_, _, height, width) = batch.pictures.size4()?;
            Ok(enlarge(&spoilt.f_to_device(self.network.device())?, height, width)?)
        };
        let low_res = batch.smaller.as_ref().map(&mut low_res).transpose()?;
        Ok(Conditioning { low_res, ..(self.encode)(batch)? })
    }

    /// The mean denoising loss of batch `number`. Everything random in it follows from the seed and the number.
    ///
    /// # Shapes
    /// → [] f32, with its gradients
    ///
    /// # Errors
    /// Those of `encode`; embeddings or smaller pictures that the network does not take, or shapes that do not fit it.
    pub fn loss<T, E: From<Error>>(&self, number: u64, batch: &Batch<T>) -> Result<Tensor, E>
    where
        F: Fn(&Batch<T>) -> Result<Conditioning, E>,
    {
        let mut rng = batch_rng(self.objective.seed, number);
        let conditioning = self.conditioning(batch, &mut rng)?;
        Ok(self.denoise(&conditioning, &batch.pictures, &mut rng)?)
    }

    fn denoise(&self, conditioning: &Conditioning, pictures: &Tensor, rng: &mut impl Rng) -> Result<Tensor, Error> {
        let Objective { precondition, levels, dropout, .. } = &self.objective;
        let rows = pictures.size4()?.0;
        let context = self.network.context(&dropout.apply(conditioning, rows, rng)?, rows)?;
        let clean = pictures.f_to_device(self.network.device())?;
        let sigmas = levels.draw(rows as usize, rng)?;
        let noise = normal(rng, &clean.size())?.f_to_device(clean.device())?;
        let losses = denoising_loss(precondition.as_ref(), &clean, &noise, &sigmas, |x, c_noise| {
            self.network.forward(x, c_noise, &context, None)
        })?;
        Ok(losses.f_mean(Kind::Float)?)
    }
}
