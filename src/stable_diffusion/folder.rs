//! One folder that diffusers saved.

use std::path::{Path, PathBuf};

use ediffi_cascade::AutoencoderFiles;
use ediffi_core::autoencoder::AutoencoderConfig;
use ediffi_core::unet::PublishedStableDiffusion;
use ediffi_core::weights::{Lora, OriginalModel};

use super::checkpoint;
use super::index::{Folder, Model};
use super::scheduler::Scheduler;
use super::text::{ADVICE, Layer, PublishedClip};
use crate::Result;
use crate::published::{unusable, weights};

/// The strength of guidance that diffusers' pipelines take by themselves.
const GUIDANCE: f64 = 7.5;
const GUIDANCE_XL: f64 = 5.0;

/// What one published folder holds, looked at and not loaded.
#[derive(Debug)]
pub(super) struct LatentFolder {
    /// The folder, or the checkpoint.
    folder: PathBuf,
    /// Whether the weights are those of a checkpoint.
    pub(super) original: bool,
    pub(super) said: Folder,
    pub(super) unet: PublishedStableDiffusion,
    /// The network's weights.
    pub(super) weights: PathBuf,
    /// A second network for the lowest timesteps, and its weights.
    pub(super) second: Option<(PublishedStableDiffusion, PathBuf)>,
    /// What is merged into them.
    pub(super) loras: Vec<Lora>,
    pub(super) autoencoder: AutoencoderFiles,
    pub(super) scheduler: Scheduler,
    /// The text encoders, whose embeddings stand side by side; the pooled one is the last's.
    pub(super) text: Vec<PublishedClip>,
}

impl LatentFolder {
    /// Opens the folder of a whole model, or a checkpoint of one file: then the configurations and tokenizers are those of the folder among
    /// `likes` that holds such a model.
    pub(super) fn open(path: &Path, likes: &[&Path], half: bool) -> Result<Self> {
        if !path.is_file() {
            return Self::of(path, None, half);
        }
        let (like, model) = checkpoint::like(path, likes)?;
        let opened = Self::of(&like, Some((path, model)), half)?;
        checkpoint::check(path, &opened.unet.network, &opened.autoencoder.config)?;
        Ok(opened)
    }

    /// Opens the model in `folder`, with the weights of a checkpoint if one is given.
    fn of(folder: &Path, checkpoint: Option<(&Path, OriginalModel)>, half: bool) -> Result<Self> {
        let said = Folder::read(folder)?;
        // The last is which embedder of a checkpoint's conditioner it is.
        let parts: &[(&str, Layer, Option<usize>)] = match said.model {
            Model::Early => &[("text_encoder", Layer::Last, None)],
            Model::Xl => {
                &[("text_encoder", Layer::Penultimate, Some(0)), ("text_encoder_2", Layer::Penultimate, Some(1))]
            }
            Model::Refiner => &[("text_encoder_2", Layer::Penultimate, Some(0))],
        };
        let text = parts.iter().map(|(part, layer, embedder)| {
            PublishedClip::find(folder, (part, *layer), half, checkpoint.map(|(file, _)| (file, *embedder)))
        });
        let text = text.collect::<Result<Vec<_>>>()?;
        let pooled = text.last().map(|text| text.projection);
        let unet = PublishedStableDiffusion::read(&part(folder, "unet/config.json")?, pooled)?;
        let second = said.boundary.map(|_| -> Result<_> {
            let network = PublishedStableDiffusion::read(&part(folder, "unet_2/config.json")?, pooled)?;
            Ok((network, weights::find(&folder.join("unet_2"), "diffusion_pytorch_model", half, ADVICE)?))
        });
        let second = second.transpose()?;
        let width: i64 = text.iter().map(|text| text.config.hidden_size).sum();
        if unet.network.text.width != width {
            let reason =
                format!("its text encoders give a width of {width}, its network takes {}", unet.network.text.width);
            return Err(unusable(folder, reason));
        }
        let numbers = unet.network.micro.map_or(0, |micro| micro.numbers);
        let told = said.model.told().count();
        if numbers != told {
            let reason = format!("its network is told {numbers} numbers of a picture, that of its kind {told}");
            return Err(unusable(folder, reason));
        }
        let config = AutoencoderConfig::read_published(&part(folder, "vae/config.json")?)?;
        let of = |part: &str| match checkpoint {
            Some((file, _)) => Ok(file.to_owned()),
            None => weights::find(&folder.join(part), "diffusion_pytorch_model", half, ADVICE),
        };
        let original = checkpoint.is_some();
        let guidance = if said.model == Model::Early { GUIDANCE } else { GUIDANCE_XL };
        let scheduler = part(folder, "scheduler/scheduler_config.json")?;
        Ok(Self {
            folder: checkpoint.map_or(folder, |(file, _)| file).to_owned(),
            original,
            said,
            unet,
            weights: of("unet")?,
            second,
            loras: Vec::new(),
            autoencoder: AutoencoderFiles { weights: of("vae")?, original, config },
            scheduler: Scheduler::read(&scheduler, said.model == Model::Early, guidance)?,
            text,
        })
    }

    /// How plans and errors name the file of a network's weights in `part`: by the folder's name and the file's.
    pub(super) fn label(&self, part: &str, weights: &Path) -> PathBuf {
        let name = |path: &Path| path.file_name().map(PathBuf::from).unwrap_or_default();
        if self.original { name(weights) } else { name(&self.folder).join(part).join(name(weights)) }
    }

    /// What is different of `other`, a folder of the same model, among all that its networks would share with those of this one.
    pub(super) fn differs(&self, other: &Self) -> Option<&'static str> {
        let readings = |folder: &Self| folder.text.iter().map(PublishedClip::reading).collect::<Vec<_>>();
        let parts = [
            ("the shape of the text that its network takes", self.unet.network.text == other.unet.network.text),
            (
                "what stands for no negative prompt (`force_zeros_for_empty_prompt`)",
                self.said.zeros == other.said.zeros,
            ),
            ("what its files say of the text encoder, the layer or the padding", readings(self) == readings(other)),
        ];
        parts.into_iter().find(|(_, same)| !same).map(|(part, _)| part)
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

/// A file that every published folder has.
fn part(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let reason = format!(
        "it has no {name}: the folders unet, vae, scheduler, text_encoder and tokenizer are needed, as downloaded"
    );
    Err(unusable(folder, reason))
}
