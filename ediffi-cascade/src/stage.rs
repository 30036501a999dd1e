//! A stage: an ensemble of experts at one resolution, opened.

use std::path::Path;

use ediffi_core::ensemble::Ensemble;
use ediffi_core::experts::Experts;
use ediffi_core::multiple::lcm;
use ediffi_core::pool::Residency;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::{EmbeddingShapes, Io, UNetConfig};

use crate::Result;
use crate::config::StageConfig;
use crate::expert::Expert;
use crate::files::{ExpertFiles, existing, read_network};
use crate::settings::SamplerSettings;
use crate::sizes::StageSize;

/// One stage of a model, opened. Its experts are loaded when they are first needed.
#[derive(Debug)]
pub struct Stage {
    config: StageConfig,
    /// One for each expert.
    files: Vec<ExpertFiles>,
    pub(crate) ensemble: Ensemble<Expert>,
    residency: Residency,
    runtime: Runtime,
    size_multiple: i64,
}

impl Stage {
    /// Opens a stage of the model in `folder`. The networks' dimensions are read, the weights only looked for.
    ///
    /// # Errors
    /// A configuration that [`StageConfig::validate`] refuses, a file that is missing or does not say what it should, or
    /// experts that do not take the same inputs.
    pub fn open(folder: &Path, config: &StageConfig, runtime: Runtime, residency: Residency) -> Result<Self> {
        config.validate()?;
        let mut files = Vec::with_capacity(config.experts.len());
        for (index, expert) in config.experts.iter().enumerate() {
            let (field, path) = match &expert.network {
                Some(path) => (format!("experts[{index}].network"), path),
                None => ("network".to_owned(), &config.network),
            };
            let network = read_network(folder, path).map_err(|source| config.refused(&field, source))?;
            let field = format!("experts[{index}].weights");
            let weights = existing(folder, &expert.weights).map_err(|source| config.refused(&field, source))?;
            files.push(ExpertFiles { weights, network });
        }
        Self::with_experts(config, files, runtime, residency)
    }

    /// A stage of experts whose files may lie anywhere: those of several published models, say. The paths in `config` only
    /// name them then.
    ///
    /// # Errors
    /// A configuration that [`StageConfig::validate`] refuses, another number of experts than it has, or experts that do
    /// not take the same inputs.
    pub fn with_experts(
        config: &StageConfig,
        files: Vec<ExpertFiles>,
        runtime: Runtime,
        residency: Residency,
    ) -> Result<Self> {
        config.validate()?;
        let experts = config.experts()?;
        if files.len() != experts.len() {
            let reason = format!("{} are configured, the files of {} are given", experts.len(), files.len());
            return Err(config.wrong("experts", reason));
        }
        for (index, ExpertFiles { network, .. }) in files.iter().enumerate() {
            if files.first().is_some_and(|first| inputs(&first.network) != inputs(network)) {
                let reason = "its network takes other inputs than that of experts[0]".to_owned();
                return Err(config.wrong(&format!("experts[{index}].network"), reason));
            }
            let told = config.low_res.noise_level.is_some();
            if network.io().noise_level != told {
                let reason =
                    if told { "the network is not told a noise_level" } else { "the network needs a noise_level" };
                return Err(config.wrong("low_res", reason.to_owned()));
            }
        }
        let size_multiple = files.iter().map(|files| files.network.io().size_multiple).fold(1, lcm);
        if config.size % size_multiple != 0 {
            let reason = format!("{} is no multiple of {size_multiple}, which the network needs", config.size);
            return Err(config.wrong("size", reason));
        }
        let (precondition, sources) = (config.precondition.clone(), files.clone());
        let loader = Box::new(move |index: usize| {
            let missing = ediffi_core::Error::NoSuchExpert { index, experts: sources.len() };
            let ExpertFiles { weights, network } = sources.get(index).ok_or(missing)?;
            Expert::load(weights, network, precondition.clone(), runtime)
        });
        let ensemble = Ensemble::new(experts, residency, loader);
        Ok(Self { config: config.clone(), files, ensemble, residency, runtime, size_multiple })
    }

    /// The configuration it was opened from.
    #[must_use]
    pub fn config(&self) -> &StageConfig {
        &self.config
    }

    /// What the stage is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Side in pixels of the square pictures that it was trained for.
    #[must_use]
    pub fn size(&self) -> i64 {
        self.config.size
    }

    /// The sizes of its pictures: what it was trained for, and what height and width have to be multiples of.
    #[must_use]
    pub fn sizes(&self) -> StageSize {
        StageSize { size: self.config.size, multiple: self.size_multiple }
    }

    /// Channels of its pictures: 3 for RGB.
    #[must_use]
    pub fn channels(&self) -> i64 {
        self.files.first().map_or(3, |files| files.network.io().channels)
    }

    /// Whether it enlarges the pictures of a stage before it.
    #[must_use]
    pub fn is_super_resolution(&self) -> bool {
        self.files.first().is_some_and(|files| files.network.io().low_res)
    }

    /// The embeddings it takes; all experts take the same.
    #[must_use]
    pub fn embeddings(&self) -> EmbeddingShapes {
        self.files.first().map_or_else(EmbeddingShapes::default, |files| files.network.io().embeddings)
    }

    /// The weights of each expert, and the dimensions of its network.
    #[must_use]
    pub fn files(&self) -> &[ExpertFiles] {
        &self.files
    }

    /// Which expert owns which noise level.
    #[must_use]
    pub fn experts(&self) -> &Experts {
        self.ensemble.experts()
    }

    /// Where and in which precision it computes.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// How many experts are in memory at a time.
    #[must_use]
    pub fn residency(&self) -> Residency {
        self.residency
    }

    /// The experts that are in memory now.
    #[must_use]
    pub fn resident(&self) -> Vec<usize> {
        self.ensemble.resident().collect()
    }

    /// Drops every expert from memory; they are loaded again when they are next needed.
    pub fn release(&mut self) {
        self.ensemble.pool().clear();
    }

    /// The sampler settings of its configuration.
    #[must_use]
    pub fn settings(&self) -> &SamplerSettings {
        &self.config.settings
    }
}

/// What a network takes besides the noisy picture, apart from inner widths: the experts of a stage share it.
fn inputs(network: &UNetConfig) -> impl PartialEq {
    let Io { channels, low_res, embeddings, .. } = network.io();
    (channels, low_res, embeddings)
}
