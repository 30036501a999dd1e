//! Folders of Karlo (unCLIP) as diffusers saves them, opened as a prior and a cascade.
//!
//! Such a folder holds a whole model: `model_index.json`, the prior in `prior`, the decoder in `decoder` with what it reads in `text_proj`, the two
//! networks of super-resolution in `super_res_first` and `super_res_last`, a sampler for each, and CLIP in `text_encoder`. A folder for
//! variations has CLIP's picture half in `image_encoder` in the place of a prior.

mod advice;
mod folder;
mod index;
mod scheduler;
mod vision;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ediffi_cascade::low_res::LowRes;
use ediffi_cascade::{ExpertConfig, ExpertFiles, Prior, Stage, StageConfig};
use ediffi_core::expert_interval::ExpertInterval;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::pool::Residency;
use ediffi_core::runtime::Runtime;

use folder::UnClipFolder;
pub(crate) use vision::PublishedVision;

use crate::manifest::{EncoderFolders, MANIFEST_FORMAT, Manifest};
use crate::micro::Told;
use crate::published::{Owner, owners};
use crate::stable_diffusion::LatentText;
use crate::{Error, Result};

/// The timestep below which the second network of super-resolution draws: the last step of its sampler is that of timestep 0.
const LAST_BELOW: usize = 1;

/// What the folders make together.
#[derive(Debug)]
pub(crate) struct UnClip {
    pub(crate) manifest: Manifest,
    pub(crate) stages: Vec<Stage>,
    pub(crate) text: LatentText,
    /// What draws image embeddings; none where pictures are varied.
    pub(crate) prior: Option<Prior>,
    /// What makes image embeddings of pictures.
    pub(crate) vision: Option<PublishedVision>,
}

impl UnClip {
    /// Reads the configurations of all folders and looks for their weights. `experts` take noise levels of the decoder over from `base`.
    pub(crate) fn open(
        base: &Path,
        experts: &[(ExpertInterval, PathBuf)],
        runtime: Runtime,
        residency: Residency,
    ) -> Result<Self> {
        let half = runtime.kind != tch::Kind::Float;
        let main = UnClipFolder::open(base, half)?;
        let mut others = Vec::with_capacity(experts.len());
        for (_, folder) in experts {
            let other = UnClipFolder::open(folder, half)?;
            fits(&main, &other)?;
            others.push(other);
        }
        let scheduler = &main.decoder_scheduler;
        let owners = owners(base, experts, scheduler.precondition.timesteps(), &scheduler.settings)?;
        let (config, files) = decoders(&main, &others, &owners);
        let mut stages = vec![Stage::with_experts(&config, files, runtime, residency)?];
        let (config, files) = enlargers(&main)?;
        stages.push(Stage::with_experts(&config, files, runtime, residency)?);
        let UnClipFolder { text, vision, prior, .. } = main;
        let prior = prior.map(|found| {
            let (precondition, settings) = (found.scheduler.precondition, found.scheduler.settings);
            Prior::new(found.files, precondition, settings, runtime, residency)
        });
        let encoders = EncoderFolders { t5: None, clip: Some(PathBuf::from("text_encoder")) };
        let manifest = Manifest {
            format: MANIFEST_FORMAT.to_owned(),
            encoders,
            stages: stages.iter().map(|stage| stage.config().clone()).collect(),
            presets: BTreeMap::new(),
        };
        let text = LatentText { encoders: vec![text], zeros: false, told: Told::Nothing };
        Ok(Self { manifest, stages, text, prior, vision })
    }
}

/// Refuses an expert whose texts and images are not those of the main folder.
fn fits(main: &UnClipFolder, other: &UnClipFolder) -> Result<()> {
    let widths = |folder: &UnClipFolder| folder.decoder.network.dimensions.context.map(|context| context.clip_text);
    let reason = if widths(main) != widths(other) {
        "its decoder takes embeddings of another width than that of the folder of the pipeline"
    } else if main.text.reading() != other.text.reading() {
        "what its files say of the text encoder differs from the folder of the pipeline, whose encoder it shares"
    } else {
        return Ok(());
    };
    Err(Error::Compose(format!("{}: {reason}", other.path().display())))
}

/// The decoder of `main`, from which those of `others` take over their noise levels.
fn decoders(main: &UnClipFolder, others: &[UnClipFolder], owners: &[Owner]) -> (StageConfig, Vec<ExpertFiles>) {
    let main_precondition = main.decoder_scheduler.precondition;
    let of = |owner: &Owner| owner.other.and_then(|number| others.get(number)).unwrap_or(main);
    let experts = owners.iter().map(|owner| ExpertConfig {
        interval: owner.interval,
        precondition: Some(of(owner).decoder_scheduler.precondition).filter(|own| *own != main_precondition),
        ..ExpertConfig::new(of(owner).label("decoder", &of(owner).decoder_weights), owner.sigma)
    });
    let files = owners.iter().map(of).map(|folder| ExpertFiles {
        weights: folder.decoder_weights.clone(),
        original: false,
        network: folder.decoder.network.clone().into(),
        part: Some(("text_proj".to_owned(), folder.text_proj_weights.clone())),
        loras: Vec::new(),
    });
    let config = StageConfig {
        name: "base".to_owned(),
        size: main.size,
        network: PathBuf::from("decoder/config.json"),
        precondition: main_precondition,
        experts: experts.collect(),
        weaker: None,
        low_res: LowRes::default(),
        settings: main.decoder_scheduler.settings.clone(),
    };
    (config, files.collect())
}

/// Both networks of super-resolution as the experts of one stage: the second draws the last step.
fn enlargers(main: &UnClipFolder) -> Result<(StageConfig, Vec<ExpertFiles>)> {
    let scheduler = &main.super_res_scheduler;
    let last = scheduler.precondition.timesteps().below(LAST_BELOW)?;
    let first = SigmaInterval::new(last.high(), f64::INFINITY)?;
    let [(first_network, first_weights), (last_network, last_weights)] = &main.super_res;
    let expert = |part: &str, weights: &Path, sigma| ExpertConfig::new(main.label(part, weights), sigma);
    let experts = vec![expert("super_res_first", first_weights, first), expert("super_res_last", last_weights, last)];
    let networks = [(first_network, first_weights), (last_network, last_weights)];
    let files = networks.map(|(network, weights)| ExpertFiles {
        weights: weights.clone(),
        original: false,
        network: network.network.clone().into(),
        part: None,
        loras: Vec::new(),
    });
    let config = StageConfig {
        name: format!("sr-{}", main.enlarged),
        size: main.enlarged,
        network: PathBuf::from("super_res_first/config.json"),
        precondition: scheduler.precondition,
        experts,
        weaker: None,
        low_res: LowRes::unclip(),
        settings: scheduler.settings.clone(),
    };
    Ok((config, files.into()))
}
