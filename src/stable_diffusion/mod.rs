//! Folders of Stable Diffusion as diffusers saves them, opened as a latent stage.
//!
//! Such a folder holds a whole model: `model_index.json`, the network in `unet`, the autoencoder in `vae`, the sampler in `scheduler`, and CLIP in
//! `text_encoder` with its tokenizer in `tokenizer`. Several folders of one kind become one ensemble.

mod checkpoint;
mod classes;
mod folder;
mod index;
mod scheduler;
mod scheduler_keys;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ediffi_cascade::low_res::LowRes;
use ediffi_cascade::{ExpertConfig, ExpertFiles, Stage, StageConfig};
use ediffi_core::expert_interval::ExpertInterval;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::pool::Residency;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::{Beside, Place, PublishedStableDiffusion, StableDiffusion};
use ediffi_core::weights::Lora;

use folder::LatentFolder;
use index::Model;
pub(crate) use text::{Layer, PublishedClip};

use crate::loras::Loras;
use crate::manifest::{EncoderFolders, MANIFEST_FORMAT, Manifest};
use crate::micro::Told;
use crate::published::{Owner, owners, unusable};
use crate::{Error, Result};

/// What the folders make together.
#[derive(Debug)]
pub(crate) struct Latent {
    pub(crate) manifest: Manifest,
    pub(crate) stage: Stage,
    pub(crate) text: Vec<LatentText>,
}

/// What the networks of one model read and are told; that of several stands side by side.
#[derive(Debug, Clone)]
pub(crate) struct LatentText {
    /// Their embeddings stand side by side; the pooled one is the last's.
    pub(crate) encoders: Vec<PublishedClip>,
    /// Whether no negative prompt is zeros and not the empty text's embedding.
    pub(crate) zeros: bool,
    /// Which numbers of a picture they are told.
    pub(crate) told: Told,
}

impl LatentText {
    fn of(folder: &LatentFolder) -> Self {
        Self { encoders: folder.text.clone(), zeros: folder.said.zeros, told: folder.said.model.told() }
    }
}

impl Latent {
    /// Reads the configurations of all folders and looks for their weights. `experts` take noise levels over from `base`. What `loras` has is
    /// checked, and merged when weights are loaded.
    pub(crate) fn open(
        base: &Path,
        experts: &[(ExpertInterval, PathBuf)],
        likes: &[PathBuf],
        loras: &Loras,
        runtime: Runtime,
        residency: Residency,
    ) -> Result<Self> {
        let half = runtime.kind != tch::Kind::Float;
        // A checkpoint takes its configurations from any of the folders that are there.
        let likes = likes.iter().chain(experts.iter().map(|(_, folder)| folder)).map(PathBuf::as_path);
        let likes: Vec<&Path> = likes.chain([base]).collect();
        let mut main = LatentFolder::open(base, &likes, half)?;
        if main.said.model == Model::Refiner {
            let reason = "it is SDXL's refiner, which was trained on the lowest noise alone: open the base, and give this \
                          folder to `PipelineBuilder::expert`";
            return Err(unusable(base, reason));
        }
        main.loras = loras.of_network(0, true);
        let mut others = Vec::with_capacity(experts.len());
        for (index, (_, folder)) in experts.iter().enumerate() {
            let mut other = LatentFolder::open(folder, &likes, half)?;
            fits(&main, refiner(&others), &other)?;
            other.loras = loras.of_network(index + 1, other.said.model == main.said.model);
            others.push(other);
        }
        let refiner = refiner(&others);
        let table = main.scheduler.precondition.timesteps();
        let (networks, owners) = match (&main.second, main.said.boundary) {
            (Some((unet, weights)), Some(boundary)) => {
                if !experts.is_empty() {
                    let reason = "it has two networks of its own, from which no other can take over";
                    return Err(Error::Compose(format!("{}: {reason}", base.display())));
                }
                let second =
                    Network { unet, weights, part: "unet_2", loras: loras.of_network(1, true), ..Network::of(&main) };
                let low = table.below(boundary)?;
                let first = Owner { sigma: SigmaInterval::new(low.high(), f64::INFINITY)?, ..Owner::ALONE };
                let owners = vec![first, Owner { sigma: low, interval: None, other: Some(0) }];
                (vec![Network::of(&main), second], owners)
            }
            _ => {
                let networks = std::iter::once(&main).chain(&others).map(Network::of).collect();
                (networks, owners(base, experts, table, &main.scheduler.settings)?)
            }
        };
        let (config, files) = ensemble(&main, &networks, &owners, refiner);
        loras.check(networks.len(), &files)?;
        let stage = Stage::with_experts(&config, files, runtime, residency)?.with_decoder(main.autoencoder.clone())?;
        let encoders = EncoderFolders { t5: None, clip: Some(PathBuf::from("text_encoder")) };
        let manifest = Manifest {
            format: MANIFEST_FORMAT.to_owned(),
            encoders,
            stages: vec![stage.config().clone()],
            presets: BTreeMap::new(),
        };
        let mut text: Vec<LatentText> = std::iter::once(&main).chain(refiner).map(LatentText::of).collect();
        if let Some(own) = text.first_mut() {
            for (encoder, (part, loras)) in own.encoders.iter_mut().zip(loras.of_text(main.text.len())?) {
                encoder.merge(part, loras)?;
            }
        }
        Ok(Self { manifest, stage, text })
    }
}

/// The first of the refiner's folders, whose texts the others share.
fn refiner(others: &[LatentFolder]) -> Option<&LatentFolder> {
    others.iter().find(|other| other.said.model == Model::Refiner)
}

/// A network of a folder.
struct Network<'a> {
    folder: &'a LatentFolder,
    /// Its own folder within that one.
    part: &'static str,
    unet: &'a PublishedStableDiffusion,
    weights: &'a Path,
    loras: Vec<Lora>,
}

impl<'a> Network<'a> {
    /// The first network of a folder.
    fn of(folder: &'a LatentFolder) -> Self {
        let LatentFolder { unet, weights, loras, .. } = folder;
        Self { folder, part: "unet", unet, weights, loras: loras.clone() }
    }
}

/// Refuses an expert of another family, whose latents or texts are not those of the main folder, or of the first refiner.
fn fits(main: &LatentFolder, refiner: Option<&LatentFolder>, other: &LatentFolder) -> Result<()> {
    let latents = |folder: &LatentFolder| {
        let config = &folder.autoencoder.config;
        (config.scaling_factor, config.shift_factor, config.size_multiple())
    };
    let refines = main.said.model == Model::Xl && other.said.model == Model::Refiner;
    let kin = if main.said.model == other.said.model { Some(main) } else { refiner };
    let reason = if main.said.model != other.said.model && !refines {
        "it is another model of the family than the folder of the pipeline".to_owned()
    } else if other.second.is_some() {
        "it has two networks (`boundary_ratio`), and an expert has one".to_owned()
    } else if latents(main) != latents(other) {
        "its latents have another scale than those of the folder of the pipeline".to_owned()
    } else if let Some((kin, part)) = kin.and_then(|kin| Some((kin, kin.differs(other)?))) {
        format!("{part} differs from {}, whose text encoders it shares", kin.path().display())
    } else {
        return Ok(());
    };
    Err(Error::Compose(format!("{}: {reason}", other.path().display())))
}

/// A stage of `networks`, those of `main` first, which own the noise levels that `owners` says.
///
/// What `refiner` reads stands beside what `main` reads; another folder of the kind of either reads the same.
fn ensemble(
    main: &LatentFolder,
    networks: &[Network<'_>],
    owners: &[Owner],
    refiner: Option<&LatentFolder>,
) -> (StageConfig, Vec<ExpertFiles>) {
    let owned = owners.iter().filter_map(|owner| {
        let number = owner.other.map_or(0, |number| number + 1);
        Some((owner, networks.get(number)?))
    });
    let experts = owned.clone().map(|(owner, network)| ExpertConfig {
        interval: owner.interval,
        precondition: Some(network.folder.scheduler.precondition).filter(|own| *own != main.scheduler.precondition),
        ..ExpertConfig::new(network.folder.label(network.part, network.weights), owner.sigma)
    });
    let files = owned.map(|(_, Network { folder, unet, weights, loras, .. })| {
        let beside = refiner.map(|refiner| beside(main, refiner, folder.said.model == Model::Refiner));
        let network = StableDiffusion { beside, ..unet.network.clone() };
        let (weights, original) = (weights.to_path_buf(), folder.original);
        ExpertFiles { weights, original, network: network.into(), part: None, loras: loras.clone() }
    });
    let config = StageConfig {
        name: "base".to_owned(),
        size: main.unet.sample_size.saturating_mul(main.autoencoder.config.size_multiple()),
        network: PathBuf::from("unet/config.json"),
        precondition: main.scheduler.precondition,
        experts: experts.collect(),
        weaker: None,
        low_res: LowRes::default(),
        settings: main.scheduler.settings.clone(),
    };
    (config, files.collect())
}

/// Where the inputs of a network stand: those of `refiner` after those of `main`.
fn beside(main: &LatentFolder, refiner: &LatentFolder, refines: bool) -> Beside {
    let place = |width: fn(&StableDiffusion) -> i64| {
        let [first, second] = [main, refiner].map(|folder| width(&folder.unet.network));
        Place { first: if refines { first } else { 0 }, all: first + second }
    };
    Beside {
        text: place(|network| network.text.width),
        pooled: place(|network| network.text.pooled.unwrap_or(0)),
        numbers: place(|network| network.micro.map_or(0, |micro| micro.numbers)),
    }
}
