//! What a network under training is, and what it learns.

use std::collections::HashMap;
use std::sync::Arc;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::UNetConfig;
use ediffi_core::weights::Params;
use ediffi_train::batch::Batch;
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::learner::{Learner, Objective};
use ediffi_train::lora::Frozen;
use ediffi_train::plan::Task;
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::data::{Text, Told};
use crate::error::wrong;
use crate::plan::{NetworkPlan, StagePlan};
use crate::start::Ancestor;
use crate::workshop::Workshop;

/// What tells the noise of batches from what else follows from the seed of a plan.
const NOISE: u64 = 0x6E01_5E00;

/// The mean loss of a batch, from its number and the batch.
pub(crate) type Loss = Box<dyn FnMut(u64, Batch<Text>) -> Result<Tensor> + Send>;

/// What a network is, and what it learns.
pub(crate) struct Subject {
    recipe: Recipe,
    /// The network that it changes, where it is trained as a LoRA.
    frozen: Option<Frozen>,
}

/// All but its weights.
#[derive(Clone)]
struct Recipe {
    dimensions: UNetConfig,
    objective: Objective,
    told: Told,
    kind: Kind,
    device: Device,
}

impl Recipe {
    /// The network over `params`.
    fn learner(
        &self,
        params: &mut dyn Params,
    ) -> Result<Learner<impl Fn(&Batch<Text>) -> Result<Conditioning> + use<>>> {
        let (told, device) = (self.told.clone(), self.device);
        let encode = move |batch: &Batch<Text>| Ok(told.of(batch)?.to(device, Kind::Float)?);
        Ok(Learner::new(params, &self.dimensions, self.kind, self.objective.clone(), encode)?)
    }
}

impl Subject {
    /// A network of the plan, which starts from `parent`.
    pub(crate) fn of(
        workshop: &Workshop<'_>,
        (stage, network): (&StagePlan, &NetworkPlan),
        task: &Task<'_>,
        parent: Option<&Ancestor>,
    ) -> Result<Self> {
        let Task::Network(planned, training) = task else { return wrong(task.name(), "it is no network") };
        let plan = workshop.plan;
        let dimensions = stage.dimensions_of(network)?;
        let Runtime { device, kind } = workshop.options.runtime;
        let frozen = |lora| {
            let Some(Ancestor { weights, dimensions: theirs }) =
                parent.filter(|parent| parent.dimensions == dimensions)
            else {
                return wrong(
                    task.name(),
                    "a LoRA changes a network as it is: it starts from one of the same dimensions",
                );
            };
            Ok(Frozen::open(weights, theirs, lora, device, kind)?)
        };
        let frozen = network.lora.as_ref().map(frozen).transpose()?;
        let smaller = plan.smaller(stage).unwrap_or(stage.side);
        let objective = Objective {
            // Who is told CLIP's view of a picture is drawn where batches are told, so that none is looked at in vain.
            dropout: ConditioningDropout { t5: plan.dropout.t5, clip_text: plan.dropout.clip_text, clip_image: 0.0 },
            corruption: stage.corruption_of(smaller),
            precondition: Arc::new(stage.precondition),
            levels: planned.levels(training)?,
            seed: plan.seed ^ NOISE ^ u64::from(stage.side),
        };
        let told = workshop.told(dimensions.io().embeddings)?;
        Ok(Self { recipe: Recipe { dimensions, objective, told, kind, device }, frozen })
    }

    /// The kind that its parameters are given to workers in. LoRAs are added to weights in f32.
    pub(crate) fn kind(&self) -> Kind {
        if self.frozen.is_some() { Kind::Float } else { self.recipe.kind }
    }

    /// What the networks are told.
    pub(crate) fn told(&self) -> &Told {
        &self.recipe.told
    }

    /// The network over `params`, as they are now if it is a LoRA.
    pub(crate) fn learner(
        &self,
        params: &mut dyn Params,
    ) -> Result<Learner<impl Fn(&Batch<Text>) -> Result<Conditioning> + use<>>> {
        match &self.frozen {
            None => self.recipe.learner(params),
            Some(frozen) => self.recipe.learner(&mut frozen.over(params)?),
        }
    }

    /// The loss of the network over `params`, as they are for each batch.
    pub(crate) fn loss(&self, params: &mut dyn Params) -> Result<Loss> {
        let Some(frozen) = &self.frozen else {
            let learner = self.recipe.learner(params)?;
            return Ok(Box::new(move |number, batch| learner.loss(number, &batch)));
        };
        let (recipe, mut adapted) = (self.recipe.clone(), frozen.over(params)?);
        Ok(Box::new(move |number, batch| recipe.learner(&mut adapted)?.loss(number, &batch)))
    }

    /// What the header of its weights says: its lineage, and what others want to know of a LoRA.
    pub(crate) fn notes(&self, mut lineage: HashMap<String, String>) -> HashMap<String, String> {
        lineage.extend(self.frozen.iter().flat_map(|frozen| frozen.settings().notes()));
        lineage
    }
}
