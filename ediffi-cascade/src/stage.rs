//! A stage: an ensemble of experts at one resolution, opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ediffi_core::ensemble::Ensemble;
use ediffi_core::files::{path_inside, read_json};
use ediffi_core::folders::Identity;
use ediffi_core::multiple::lcm;
use ediffi_core::pool::{ExpertPool, Loader, Residency};
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::Io;
use ediffi_core::weights::Lora;
use tch::Device;

use crate::Result;
use crate::config::{ExpertConfig, PreconditionConfig, StageConfig};
use crate::expert::Expert;
use crate::expert_files::ExpertFiles;
use crate::latent::{AutoencoderFiles, LatentDecoder};
use crate::sizes::StageSize;

/// One stage of a model, opened. Its experts are loaded when they are first needed.
#[derive(Debug)]
pub struct Stage {
    config: StageConfig,
    /// The folders that the files are of, if they are known.
    folders: Option<Arc<Identity>>,
    /// One for each expert.
    files: Vec<ExpertFiles>,
    pub(crate) ensemble: Ensemble<Expert>,
    /// The weaker network that guidance may move away from, the only one of its pool.
    pub(crate) weaker: Option<ExpertPool<Expert>>,
    weaker_files: Option<ExpertFiles>,
    /// What makes pictures of latents, if the stage draws those.
    pub(crate) decoder: Option<LatentDecoder>,
    pub(crate) residency: Residency,
    pub(crate) runtime: Runtime,
    io: Io,
    size_multiple: i64,
}

impl Stage {
    /// Opens a stage of the model in `folder`. The networks' dimensions are read, the weights only looked for.
    ///
    /// # Errors
    /// A configuration that [`StageConfig::validate`] refuses, a file that is missing or does not say what it should, or
    /// experts that do not take the same inputs.
    pub fn open(folder: &Path, config: &StageConfig, runtime: Runtime, residency: Residency) -> Result<Self> {
        Self::open_with_loras(folder, config, |_| Vec::new(), runtime, residency)
    }

    /// As [`open`](Self::open). `loras` are merged into the weights of the expert of that number when they are loaded; a weaker network has none.
    ///
    /// # Errors
    /// As [`open`](Self::open). Whether the LoRAs fit is seen when the [files](ExpertFiles::open) are opened.
    pub fn open_with_loras(
        folder: &Path,
        config: &StageConfig,
        loras: impl Fn(usize) -> Vec<Lora>,
        runtime: Runtime,
        residency: Residency,
    ) -> Result<Self> {
        config.validate()?;
        let identity = Arc::new(Identity::of(folder));
        let find = |name: &str, network: Option<&Path>, weights: &Path| {
            let (field, path) = (config.network_field(name, network), network.unwrap_or(&config.network));
            let read = path_inside(folder, path).and_then(|path| read_json(&path));
            let network = read.map_err(|source| config.refused(&field, source))?;
            let refused = |source| config.refused(&format!("{name}.weights"), source);
            let weights = existing(folder, weights).map_err(refused)?;
            Ok(ExpertFiles { weights, original: false, network, part: None, loras: Vec::new() })
        };
        let experts = config.experts.iter().enumerate().map(|(index, ExpertConfig { weights, network, .. })| {
            let files = find(&format!("experts[{index}]"), network.as_deref(), weights);
            files.map(|files| ExpertFiles { loras: loras(index), ..files })
        });
        let files = experts.collect::<Result<Vec<_>>>()?;
        let weaker = config.weaker.as_ref();
        let weaker = weaker.map(|weaker| find("weaker", weaker.network.as_deref(), &weaker.weights)).transpose()?;
        Self::of_files(config, Some(identity), files, weaker, runtime, residency)
    }

    /// A stage of experts whose files may lie anywhere: those of several published models, say. The paths in `config` only
    /// name them then.
    ///
    /// # Errors
    /// A configuration that [`StageConfig::validate`] refuses, another number of experts than it has, dimensions that make
    /// no network, experts that do not take the same inputs, or a weaker network, which only [`open`](Self::open) finds.
    pub fn with_experts(
        config: &StageConfig,
        files: Vec<ExpertFiles>,
        runtime: Runtime,
        residency: Residency,
    ) -> Result<Self> {
        config.validate()?;
        if config.weaker.is_some() {
            return Err(config.wrong("weaker", "a stage of given experts has none".to_owned()));
        }
        Self::of_files(config, None, files, None, runtime, residency)
    }

    /// A stage of a configuration that is valid.
    fn of_files(
        config: &StageConfig,
        folders: Option<Arc<Identity>>,
        files: Vec<ExpertFiles>,
        weaker: Option<ExpertFiles>,
        runtime: Runtime,
        residency: Residency,
    ) -> Result<Self> {
        let experts = config.experts()?;
        if files.len() != experts.len() {
            let reason = format!("{} are configured, the files of {} are given", experts.len(), files.len());
            return Err(config.wrong("experts", reason));
        }
        let Some(io) = files.first().map(|first| first.network.io()) else {
            return Err(config.refused("experts", ediffi_core::Error::NoExperts));
        };
        let own = config.experts.iter().map(|expert| expert.network.as_deref()).enumerate();
        let own = own.map(|(index, own)| (format!("experts[{index}]"), own));
        let leaning = config.weaker.iter().map(|weaker| ("weaker".to_owned(), weaker.network.as_deref()));
        for ((name, own), ExpertFiles { network, .. }) in own.chain(leaning).zip(files.iter().chain(&weaker)) {
            network.validate().map_err(|source| config.refused(&config.network_field(&name, own), source))?;
            if inputs(network.io()) != inputs(io) {
                let reason = "its network takes other inputs than that of experts[0]".to_owned();
                return Err(config.wrong(&format!("{name}.network"), reason));
            }
            let told = config.low_res.noise_level.is_some();
            if network.io().noise_level != told {
                let reason =
                    if told { "the network is not told a noise_level" } else { "the network needs a noise_level" };
                return Err(config.wrong("low_res", reason.to_owned()));
            }
        }
        let multiples = files.iter().chain(&weaker).map(|files| files.network.io().size_multiple);
        let size_multiple = multiples.fold(1, lcm);
        if config.size % size_multiple != 0 {
            let reason = format!("{} is no multiple of {size_multiple}, which the network needs", config.size);
            return Err(config.wrong("size", reason));
        }
        let ensemble =
            Ensemble::new(experts, residency, loader(folders.clone(), denoisers(config, &files), vec![runtime]));
        let weaker_files = weaker.clone();
        let weaker = weaker.zip(config.weaker.as_ref()).map(|(files, own)| {
            let precondition = own.precondition.unwrap_or(config.precondition);
            // It works at every noise level, so it stays as long as the stage works.
            ExpertPool::new(1, Residency::All, loader(folders.clone(), vec![(files, precondition)], vec![runtime]))
        });
        Ok(Self {
            config: config.clone(),
            folders,
            files,
            ensemble,
            weaker,
            weaker_files,
            decoder: None,
            residency,
            runtime,
            io,
            size_multiple,
        })
    }

    /// Loads no expert and no decoder that was put in the place of one of these folders. A stage that was [opened](Self::open) from a folder
    /// watches that one by itself; the files of [given experts](Self::with_experts) may lie anywhere. What is loaded is dropped.
    ///
    /// # Errors
    /// As [`spread`](Self::spread).
    pub fn of(mut self, folders: Arc<Identity>) -> Result<Self> {
        if let Some(decoder) = &mut self.decoder {
            decoder.of(Arc::clone(&folders));
        }
        self.folders = Some(folders);
        let device = self.runtime.device;
        self.spread(&[device])
    }

    /// Makes it a latent stage: its networks draw latents, and the decoder of this autoencoder makes pictures of them. The sizes of the
    /// stage, its configuration's among them, are those of pictures.
    ///
    /// # Errors
    /// [`Error::StageConfig`](crate::Error::StageConfig) for networks of other latents, for super-resolution, and for a size that makes no
    /// whole latents.
    pub fn with_decoder(mut self, files: AutoencoderFiles) -> Result<Self> {
        let wrong = |field, reason| Err(self.config.wrong(field, reason));
        let (drawn, decoded) = (self.io.channels, files.config.latent_channels);
        if drawn != decoded {
            return wrong("network", format!("it draws {drawn} channels, the autoencoder decodes {decoded}"));
        }
        if self.io.low_res {
            return wrong("network", "a stage of super-resolution draws pixels, and has no decoder".to_owned());
        }
        let decoder = LatentDecoder::new(files, self.runtime, self.folders.clone());
        let multiple = self.size_multiple.saturating_mul(decoder.scale());
        if self.config.size % multiple != 0 {
            let reason = format!("{} is no multiple of {multiple}, which network and decoder need", self.config.size);
            return wrong("size", reason);
        }
        self.decoder = Some(decoder);
        Ok(self)
    }

    /// Spreads the experts over devices: the first computes on the first, the second on the second, and so on, beginning again
    /// where there are more experts. What is drawn waits on the device that the stage was opened with, and goes to the expert's for
    /// each evaluation. A weaker network stays on that device. No devices leave the stage as it is.
    /// Experts that are loaded are dropped.
    ///
    /// # Errors
    /// None that [`with_experts`](Self::with_experts) has not found before.
    pub fn spread(mut self, devices: &[Device]) -> Result<Self> {
        if !devices.is_empty() {
            let runtimes = devices.iter().map(|&device| Runtime { device, ..self.runtime }).collect();
            let loader = loader(self.folders.clone(), denoisers(&self.config, &self.files), runtimes);
            self.ensemble = Ensemble::new(self.config.experts()?, self.residency, loader);
        }
        Ok(self)
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

    /// The sizes of its pictures: what it was trained for, and what height and width have to be multiples of.
    #[must_use]
    pub fn sizes(&self) -> StageSize {
        StageSize { size: self.config.size, multiple: self.size_multiple.saturating_mul(self.latent_scale()) }
    }

    /// Channels of its pictures: 3 for RGB. Those of its networks are latents' if it has a decoder.
    #[must_use]
    pub fn picture_channels(&self) -> i64 {
        self.decoder.as_ref().map_or(self.io.channels, |decoder| decoder.files.config.picture_channels)
    }

    /// The autoencoder of a latent stage.
    #[must_use]
    pub fn autoencoder(&self) -> Option<&AutoencoderFiles> {
        self.decoder.as_ref().map(|decoder| &decoder.files)
    }

    /// How many pixels of a side one of the networks' stands for: 1 without a decoder.
    pub(crate) fn latent_scale(&self) -> i64 {
        self.decoder.as_ref().map_or(1, LatentDecoder::scale)
    }

    /// What its networks take and give. `size_multiple` is that of the first expert; [`sizes`](Self::sizes) has that of all.
    #[must_use]
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// The weights of each expert, and the dimensions of its network.
    #[must_use]
    pub fn files(&self) -> &[ExpertFiles] {
        &self.files
    }

    /// The weights of the weaker network that guidance may move away from, and its dimensions.
    #[must_use]
    pub fn weaker_files(&self) -> Option<&ExpertFiles> {
        self.weaker_files.as_ref()
    }

    /// The experts that are in memory now.
    #[must_use]
    pub fn resident(&self) -> Vec<usize> {
        self.ensemble.resident().collect()
    }

    /// Drops what does not stay in memory when the stage is done.
    pub(crate) fn finish(&mut self) {
        if self.residency != Residency::All {
            self.release();
        }
    }

    /// Drops every expert from memory, and the decoder; they are loaded again when they are next needed.
    pub fn release(&mut self) {
        self.release_experts();
        if let Some(decoder) = &mut self.decoder {
            decoder.release();
        }
    }

    /// Drops every expert from memory.
    pub(crate) fn release_experts(&mut self) {
        self.ensemble.pool().clear();
        if let Some(weaker) = &mut self.weaker {
            weaker.clear();
        }
    }
}

/// The files of the experts, each with how its network becomes a denoiser.
fn denoisers(config: &StageConfig, files: &[ExpertFiles]) -> Vec<(ExpertFiles, PreconditionConfig)> {
    let own = config.experts.iter().map(|expert| expert.precondition.unwrap_or(config.precondition));
    files.iter().cloned().zip(own).collect()
}

/// Loads each expert for its device, as long as `folders` are those that the stage was opened from.
fn loader(
    folders: Option<Arc<Identity>>,
    files: Vec<(ExpertFiles, PreconditionConfig)>,
    runtimes: Vec<Runtime>,
) -> Loader<Expert> {
    Box::new(move |index| {
        let missing = ediffi_core::Error::NoSuchExpert { index, experts: files.len() };
        let placed = files.get(index).zip(in_rotation(&runtimes, index));
        let ((files, precondition), runtime) = placed.ok_or(missing)?;
        let loaded = Expert::load(files, *precondition, *runtime);
        // Weights of another training would be no error of their own.
        folders.as_ref().map_or(Ok(()), |folders| folders.check())?;
        loaded
    })
}

/// The one at `index` of all that follow each other again and again.
fn in_rotation<T>(all: &[T], index: usize) -> Option<&T> {
    all.get(index.checked_rem(all.len())?)
}

/// What a network takes besides the noisy picture, apart from inner widths: the experts of a stage share it.
fn inputs(Io { channels, low_res, embeddings, .. }: Io) -> impl PartialEq {
    (channels, low_res, embeddings)
}

/// A path in the folder at which there is something.
fn existing(folder: &Path, path: &Path) -> ediffi_core::Result<PathBuf> {
    let path = path_inside(folder, path)?;
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(source) => Err(ediffi_core::Error::ReadFile { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_take_one_device_after_the_other() {
        let devices = [Device::Cuda(0), Device::Cuda(2), Device::Cpu];
        let placed: Vec<_> = (0..5).filter_map(|expert| in_rotation(&devices, expert)).copied().collect();
        assert_eq!(placed, [Device::Cuda(0), Device::Cuda(2), Device::Cpu, Device::Cuda(0), Device::Cuda(2)]);
        assert_eq!(in_rotation::<Device>(&[], 0), None);
    }
}
