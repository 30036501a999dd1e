//! Folders of DeepFloyd IF as diffusers saves them, opened as a cascade.
//!
//! Such a folder holds one stage: `model_index.json`, the network in `unet`, the sampler in `scheduler`, and for stage I T5
//! in `text_encoder` with its tokenizer in `tokenizer`. Several folders become one cascade, several of stage I one ensemble.

mod advice;
mod caption;
mod folder;
mod index;
mod published_stage;
mod scheduler;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ediffi_cascade::low_res::LowRes;
use ediffi_cascade::{ExpertConfig, ExpertFiles, PreconditionConfig, Stage, StageConfig};
use ediffi_core::expert_interval::ExpertInterval;
use ediffi_core::pool::Residency;
use ediffi_core::precondition::Epsilon;
use ediffi_core::runtime::Runtime;
use ediffi_core::timesteps::NoiseTable;

pub(crate) use caption::clean;
pub(crate) use folder::PublishedFolder;
pub(crate) use published_stage::PublishedStage;
pub(crate) use text::PublishedText;

use crate::Result;
use crate::manifest::{EncoderFolders, MANIFEST_FORMAT, Manifest};
use crate::published::{Owner, owners};

/// What the folders of a cascade make together.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) manifest: Manifest,
    pub(crate) stages: Vec<Stage>,
    pub(crate) text: Option<PublishedText>,
}

/// What to open.
#[derive(Debug)]
pub(crate) struct Folders<'a> {
    /// Stage I.
    pub(crate) base: &'a Path,
    /// Other folders of stage I, and the noise levels that they take over from `base`.
    pub(crate) experts: &'a [(ExpertInterval, PathBuf)],
    /// The stages of super-resolution.
    pub(crate) stages: &'a [PathBuf],
    /// How much noise goes into the smaller picture, if not as much as published.
    pub(crate) noise_level: Option<usize>,
}

impl Published {
    /// Reads the configurations of all folders and looks for their weights.
    pub(crate) fn open(folders: &Folders<'_>, runtime: Runtime, residency: Residency) -> Result<Self> {
        let half = runtime.kind != tch::Kind::Float;
        let base = PublishedFolder::open(folders.base, PublishedStage::Base, half)?;
        let others =
            folders.experts.iter().map(|(_, folder)| PublishedFolder::open(folder, PublishedStage::Base, half));
        let others = others.collect::<Result<Vec<_>>>()?;
        let owners = owners(folders.base, folders.experts, NoiseTable::SquaredCosine, &base.settings)?;
        let (config, files) = ensemble(&base, &others, &owners);
        let mut stages = vec![Stage::with_experts(&config, files, runtime, residency)?];
        for folder in folders.stages {
            let folder = PublishedFolder::open(folder, PublishedStage::SuperResolution, half)?;
            let (mut config, files) = ensemble(&folder, &[], &[Owner::ALONE]);
            config.low_res.noise_level = folders.noise_level.or(config.low_res.noise_level);
            stages.push(Stage::with_experts(&config, files, runtime, residency)?);
        }
        let others = folders.experts.iter().map(|(_, folder)| folder).chain(folders.stages);
        let text = PublishedText::first(std::iter::once(folders.base).chain(others.map(PathBuf::as_path)), half)?;
        let encoders = EncoderFolders { t5: text.as_ref().map(|_| PathBuf::from("text_encoder")), clip: None };
        let stage_configs = stages.iter().map(|stage| stage.config().clone()).collect();
        let manifest =
            Manifest { format: MANIFEST_FORMAT.to_owned(), encoders, stages: stage_configs, presets: BTreeMap::new() };
        tracing::info!(
            folder = %folders.base.display(),
            "DeepFloyd IF's weights are under a licence of their own, for research alone: see their page"
        );
        Ok(Self { manifest, stages, text })
    }
}

/// A stage of `main`, from which `others` take over their noise levels, as `owners` says.
fn ensemble(main: &PublishedFolder, others: &[PublishedFolder], owners: &[Owner]) -> (StageConfig, Vec<ExpertFiles>) {
    let of = |owner: &Owner| owner.other.and_then(|number| others.get(number)).unwrap_or(main);
    let experts = owners
        .iter()
        .map(|owner| ExpertConfig { interval: owner.interval, ..ExpertConfig::new(of(owner).label(), owner.sigma) });
    let files = owners.iter().map(|owner| {
        let (weights, network) = (of(owner).weights.clone(), of(owner).unet.network.clone().into());
        ExpertFiles { weights, original: false, network, part: None, loras: Vec::new() }
    });
    let (experts, files) = (experts.collect(), files.collect());
    let (name, low_res) = match main.stage {
        PublishedStage::Base => ("base".to_owned(), LowRes::default()),
        PublishedStage::SuperResolution => (format!("sr-{}", main.unet.sample_size), LowRes::deepfloyd()),
    };
    let config = StageConfig {
        name,
        size: main.unet.sample_size,
        network: PathBuf::from("unet/config.json"),
        precondition: PreconditionConfig::Epsilon(Epsilon::new(NoiseTable::SquaredCosine)),
        experts,
        weaker: None,
        low_res,
        settings: main.settings.clone(),
    };
    (config, files)
}
