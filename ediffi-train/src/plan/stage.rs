//! The training of one stage: its networks, the noise levels of each, and which of them are the experts.

use ediffi_cascade::PreconditionConfig;
use ediffi_core::experts::Experts;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::schedule::Schedule;
use ediffi_core::unet::{DetailConfig, UNetConfig};
use serde::{Deserialize, Serialize};

use super::redrawn::Redrawn;
use super::training::Training;
use crate::error::wrong;
use crate::noise::{NoiseLevels, Tail};
use crate::noise_cell::NoiseCell;
use crate::{Error, Result};

/// The training of the experts of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StageTraining {
    /// Its name. The program that trains it knows its resolution and its network.
    pub name: String,
    /// The distribution of noise levels. The cells are parts of it.
    #[serde(default)]
    pub noise: LogNormal,
    /// More levels at the high end of the distribution.
    pub tail: Option<Tail>,
    /// How the trained stage is sampled.
    pub sampling: Sampling,
    /// Its networks. Each comes after the one that it starts from.
    pub networks: Vec<NetworkTraining>,
}

/// The steps that a trained stage is sampled with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sampling {
    /// How many.
    pub steps: usize,
    /// Their noise levels.
    pub schedule: Schedule,
}

/// The training of one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NetworkTraining {
    /// Its name, of small letters, digits and dashes. Its files are named after it.
    pub name: String,
    /// The noise levels that it is trained on. An expert owns them in sampling, too.
    pub cell: NoiseCell,
    /// The network of the same stage that it starts from. Without one it begins with new weights.
    pub parent: Option<String>,
    /// Its dimensions, if they are not those that the program gives the networks of the stage.
    pub dimensions: Option<UNetConfig>,
    /// A detail head, beside those dimensions. A network that starts from one without a head answers as that one until it has learned.
    pub detail: Option<DetailConfig>,
    /// How it becomes a denoiser, if not as the program's networks of the stage do.
    pub precondition: Option<PreconditionConfig>,
    /// The smaller pictures that it learns from, if not only those of the data.
    pub redrawn: Option<Redrawn>,
    /// How long and how fast.
    pub training: Training,
}

/// A network that is part of the ensemble, and the noise levels that it owns there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expert<'a> {
    /// The network.
    pub network: &'a NetworkTraining,
    /// Its noise levels.
    pub interval: SigmaInterval,
}

impl NetworkTraining {
    /// The dimensions that the plan gives it, with its detail head; `None` if they are the program's.
    fn own_dimensions(&self) -> ediffi_core::Result<Option<UNetConfig>> {
        self.dimensions.as_ref().map(|own| self.detailed(own.clone())).transpose()
    }

    /// `dimensions` with its detail head, if it has one.
    ///
    /// # Errors
    /// A layout that has no detail head; dimensions with a head, beside another.
    pub fn detailed(&self, dimensions: UNetConfig) -> ediffi_core::Result<UNetConfig> {
        self.detail.map_or(Ok(dimensions.clone()), |detail| dimensions.with_detail(detail))
    }
}

impl StageTraining {
    pub(super) fn check(&self) -> Result<()> {
        if let Some(tail) = &self.tail {
            tail.validate()?;
        }
        self.sampling.schedule.sigmas(self.sampling.steps)?;
        for (index, network) in self.networks.iter().enumerate() {
            let interval = network.cell.interval(&self.noise)?;
            network.redrawn.as_ref().map_or(Ok(()), Redrawn::check)?;
            let dimensions = network.own_dimensions().and_then(|own| own.as_ref().map_or(Ok(()), UNetConfig::validate));
            let head = network.detail.map_or(Ok(()), DetailConfig::check);
            dimensions
                .and(head)
                .or_else(|error| wrong(format!("{}.{}", self.name, network.name), error.to_string()))?;
            let Some(parent) = &network.parent else { continue };
            let what = format!("{}.{}", self.name, network.name);
            let Some(before) = self.networks.iter().take(index).find(|other| other.name == *parent) else {
                return wrong(what, format!("no network called {parent:?}, its parent, comes before it"));
            };
            let known = before.cell.interval(&self.noise)?;
            if interval.low() < known.low() || interval.high() > known.high() {
                return wrong(what, format!("its noise levels, {interval}, are not all among its parent's, {known}"));
            }
            if (&network.dimensions, &network.precondition) != (&before.dimensions, &before.precondition) {
                return wrong(
                    what,
                    format!("it starts from {parent:?}, which has other dimensions or another precondition"),
                );
            }
            if before.detail.is_some() && network.detail != before.detail {
                return wrong(what, format!("it starts from {parent:?}, which has another detail head"));
            }
        }
        self.experts().map(|_| ())
    }

    /// The networks of the ensemble with their noise levels, lowest noise first.
    ///
    /// # Errors
    /// [`Error::Ensemble`] unless their noise levels tile (0, ∞).
    pub fn experts(&self) -> Result<Vec<Expert<'_>>> {
        let leaf = |network: &&NetworkTraining| {
            !self.networks.iter().any(|other| other.parent.as_deref() == Some(network.name.as_str()))
        };
        let leaves = self.networks.iter().filter(leaf);
        let experts = leaves.map(|network| Ok(Expert { network, interval: network.cell.interval(&self.noise)? }));
        let mut experts = experts.collect::<Result<Vec<_>>>()?;
        experts.sort_by(|a, b| a.interval.low().total_cmp(&b.interval.low()));
        Experts::new(experts.iter().map(|expert| expert.interval).collect())
            .map_err(|source| Error::Ensemble { stage: self.name.clone(), source })?;
        Ok(experts)
    }

    /// How the noise levels of a network's training are drawn.
    ///
    /// # Errors
    /// Those of [`NoiseCell::interval`] and of [`NoiseLevels::with_tail`].
    pub fn levels(&self, network: &NetworkTraining) -> Result<NoiseLevels> {
        let levels = NoiseLevels::new(self.noise, network.cell.interval(&self.noise)?);
        self.tail.as_ref().map_or(Ok(levels), |tail| levels.with_tail(tail))
    }

    /// How many steps of sampling each expert runs, in the order of [`experts`](Self::experts).
    pub(super) fn sampling_steps(&self) -> Result<Vec<usize>> {
        let intervals: Vec<_> = self.experts()?.iter().map(|expert| expert.interval).collect();
        let experts = 0..intervals.len();
        let plan = Experts::new(intervals)?.plan(&self.sampling.schedule.sigmas(self.sampling.steps)?)?;
        Ok(experts.map(|expert| plan.steps().iter().filter(|step| step.expert == expert).count()).collect())
    }
}
