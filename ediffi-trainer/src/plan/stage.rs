//! One stage of a plan, and its networks.

use std::path::PathBuf;

use ediffi_cascade::low_res::LowRes;
use ediffi_cascade::{ExpertConfig, PreconditionConfig, SamplerSettings, StageConfig};
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::unet::{DetailConfig, UNetConfig};
use ediffi_train::corruption::Corruption;
use ediffi_train::lora::LoraSettings;
use ediffi_train::noise::Tail;
use ediffi_train::noise_cell::NoiseCell;
use ediffi_train::plan::{NetworkTraining, Sampling, StageTraining, Training};
use serde::{Deserialize, Serialize};

use super::network::Network;
use crate::Result;
use crate::error::wrong;

/// One stage: what its networks are, how they are trained, and how they are sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StagePlan {
    /// Its name in the model.
    pub name: String,
    /// Side in pixels of the square pictures that it draws.
    pub side: u32,
    /// Side of the crops that super-resolution trains on, if not whole pictures.
    pub crop: Option<u32>,
    /// The dimensions of its networks, with the keys of a model folder's `config.json`, or the path of such a file.
    pub network: Network,
    /// How its networks become denoisers.
    pub precondition: PreconditionConfig,
    /// The distribution of noise levels; the paper's if there is none. The cells are parts of it.
    #[serde(default)]
    pub noise: LogNormal,
    /// More levels at the high end of the distribution.
    pub tail: Option<Tail>,
    /// How the smaller pictures are spoilt; the default for their side if there is none.
    pub corruption: Option<Corruption>,
    /// How the trained stage is sampled: solver, steps, schedule and guidance.
    pub sampler: SamplerSettings,
    /// Its networks. Each comes after the one that it starts from.
    pub networks: Vec<NetworkPlan>,
}

/// One network of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NetworkPlan {
    /// Its name, of small letters, digits and dashes. Its files are named after it.
    pub name: String,
    /// The noise levels that it is trained on. An expert owns them in sampling, too.
    pub cell: NoiseCell,
    /// The network of the same stage that it starts from.
    pub parent: Option<String>,
    /// The model folder that it starts from, if there is no parent; `icons` is the shipped model. Its stage of the same name has to have
    /// the same dimensions.
    pub start: Option<String>,
    /// Which weights of that folder, if not those of the one expert whose noise levels include this network's.
    pub start_weights: Option<PathBuf>,
    /// A detail head, beside the stage's dimensions. What it starts from may have none: the network answers as that one then, until it
    /// has learned.
    pub detail: Option<DetailConfig>,
    /// Trains changes of a low rank, and leaves what it starts from as it is. The model has them merged, and in files of their own.
    pub lora: Option<LoraSettings>,
    /// How long and how fast.
    pub training: Training,
}

impl StagePlan {
    /// The stage as `ediffi-train` plans it.
    pub(super) fn training(&self) -> StageTraining {
        let network = |network: &NetworkPlan| NetworkTraining {
            name: network.name.clone(),
            cell: network.cell.clone(),
            parent: network.parent.clone(),
            dimensions: None,
            detail: network.detail,
            precondition: None,
            redrawn: None,
            training: network.training,
        };
        StageTraining {
            name: self.name.clone(),
            noise: self.noise,
            tail: self.tail,
            sampling: Sampling { steps: self.sampler.steps, schedule: self.sampler.schedule.clone() },
            networks: self.networks.iter().map(network).collect(),
        }
    }

    /// The dimensions of one of its networks: those of the stage, with the network's own detail head.
    pub(crate) fn dimensions_of(&self, network: &NetworkPlan) -> Result<UNetConfig> {
        let dimensions = self.network.dimensions()?;
        let Some(detail) = network.detail else { return Ok(dimensions) };
        let detailed = dimensions.with_detail(detail).and_then(|detailed| detailed.validate().map(|()| detailed));
        detailed.or_else(|error| wrong(format!("{}.{}", self.name, network.name), error.to_string()))
    }

    /// The stage of a model whose experts have these weights.
    pub(crate) fn config(&self, experts: Vec<ExpertConfig>) -> StageConfig {
        StageConfig {
            name: self.name.clone(),
            size: i64::from(self.side),
            network: PathBuf::from(format!("{}/config.json", self.name)),
            precondition: self.precondition,
            experts,
            weaker: None,
            low_res: LowRes::default(),
            settings: self.sampler.clone(),
        }
    }

    /// How the smaller pictures of `side` pixels are spoilt.
    pub(crate) fn corruption_of(&self, side: u32) -> Corruption {
        let default = || if side > 64 { Corruption::for_256() } else { Corruption::for_64() };
        self.corruption.unwrap_or_else(default)
    }

    /// Checks sides, network and sampler. `smaller` is the side of the stage before.
    pub(super) fn check(&self, smaller: Option<u32>) -> Result<()> {
        let Self { name, side, crop, .. } = self;
        let dimensions = self.network.dimensions()?;
        dimensions.validate().or_else(|error| wrong(format!("{name}.network"), error.to_string()))?;
        check_io(name, &dimensions, smaller.is_some())?;
        let multiple = dimensions.io().size_multiple;
        for (key, value) in std::iter::once(("side", *side)).chain(crop.map(|crop| ("crop", crop))) {
            if value == 0 || value > 1 << 14 || i64::from(value) % multiple != 0 {
                let reason = format!("{value} is not a multiple of {multiple} pixels, which the network needs");
                return wrong(format!("{name}.{key}"), reason);
            }
        }
        match (smaller, crop) {
            (None, Some(_)) => return wrong(format!("{name}.crop"), "the base is trained on whole pictures"),
            (None, None) if self.corruption.is_some() => {
                return wrong(format!("{name}.corruption"), "the base has no smaller pictures");
            }
            (Some(smaller), _) => {
                if side % smaller != 0 || *side == smaller {
                    let reason = format!("{side} is not a larger multiple of {smaller}, the side of the stage before");
                    return wrong(format!("{name}.side"), reason);
                }
                let (factor, crop) = (side / smaller, crop.unwrap_or(*side));
                if crop > *side || crop % factor != 0 {
                    let reason = format!("{crop} is above the side, or no multiple of {factor}");
                    return wrong(format!("{name}.crop"), reason);
                }
            }
            (None, None) => {}
        }
        for network in &self.networks {
            let what = || format!("{name}.{}", network.name);
            if network.parent.is_some() && network.start.is_some() {
                return wrong(what(), "it starts either from a `parent` or from a folder, `start`");
            }
            if network.start_weights.is_some() && network.start.is_none() {
                return wrong(what(), "`start-weights` are of the folder `start`, which is missing");
            }
            let dimensions = self.dimensions_of(network)?;
            let parent =
                network.parent.as_ref().and_then(|name| self.networks.iter().find(|other| other.name == *name));
            if parent.is_some_and(|parent| parent.lora.is_some()) {
                return wrong(what(), "its parent is trained as a LoRA, and has no weights of its own");
            }
            if network.detail.is_some() && network.name == "config" {
                return wrong(what(), "a model has another file of this name");
            }
            let Some(lora) = &network.lora else { continue };
            if network.parent.is_none() && network.start.is_none() {
                return wrong(what(), "a LoRA changes a network that is there: it has a `parent` or a `start`");
            }
            let other = parent.map(|parent| self.dimensions_of(parent)).transpose()?;
            if other.is_some_and(|other| other != dimensions) {
                return wrong(what(), "a LoRA changes the layers that its parent has, which has no such detail head");
            }
            lora.check(&dimensions).or_else(|error| wrong(what(), error.to_string()))?;
        }
        let all = ExpertConfig::new("weights.safetensors", SigmaInterval::ALL);
        Ok(self.config(vec![all]).validate()?)
    }
}

/// Refuses networks that this crate cannot train.
fn check_io(stage: &str, dimensions: &UNetConfig, enlarges: bool) -> Result<()> {
    let io = dimensions.io();
    let reason = match (io.low_res, enlarges) {
        (true, false) => "`low_res` is set, but the first stage has no smaller pictures",
        (false, true) => "`low_res` is not set, but every later stage enlarges pictures",
        _ if io.channels != 3 => "its pictures are not RGB",
        _ if io.variance || io.noise_level || io.embeddings.micro.is_some() => {
            "published networks of this layout are not trained here: take `adm` or `efficient`"
        }
        _ => return Ok(()),
    };
    wrong(format!("{stage}.network"), reason)
}
