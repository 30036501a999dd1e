//! Models by their names on the Hugging Face hub (feature `hub`).
//!
//! A repository holds what a model folder holds: a `pipeline.json` and the files that it names, or the `model_index.json` of a published
//! model as diffusers saves it. They are downloaded into the cache that all programs of Hugging Face share, under the rules of
//! [`ediffi_encoders::hub`]: weights as safetensors, checked, all of one commit, going on where a download broke off, and from the cache alone
//! if the hub does not answer or `HF_HUB_OFFLINE` is set.
//!
//! Of a published model only those files come that are read here, and of weights that are there in two precisions one: the half for
//! pipelines that compute in 16 bits, else the full one, or the other where there is one alone.

mod own;
mod published;

use std::ops::ControlFlow;
use std::path::PathBuf;

use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};
use ediffi_encoders::hub::HubModel;

pub use ediffi_encoders::hub::Fetched;

use crate::manifest::MANIFEST_FILE;
use crate::published::INDEX_FILE;
use crate::{Pipeline, PipelineBuilder, Result};

impl Pipeline {
    /// Opens the model `repository`, such as `owner/name`, of the hub: one of this library, or a published one. [`HubPipeline`] opens one with
    /// settings of your own.
    ///
    /// # Errors
    /// As [`HubPipeline::download`] and [`Pipeline::open`].
    pub fn from_hub(repository: &str) -> Result<Self> {
        HubPipeline::new(repository).builder()?.open()
    }
}

/// Downloads the files of the model `repository` that the cache lacks, and returns their folder, for [`Pipeline::builder`].
///
/// # Errors
/// As [`HubPipeline::download`].
pub fn download(repository: &str) -> Result<PathBuf> {
    HubPipeline::new(repository).download()
}

/// A model on the hub, and how it is to be downloaded.
///
/// ```no_run
/// use std::ops::ControlFlow;
///
/// use ediffi::hub::HubPipeline;
/// use ediffi::{ExpertInterval, Precision};
///
/// let hub = |name: &str| {
///     HubPipeline::new(name).precision(Precision::F16).watch(|fetched| {
///         println!("{}: {} of {} bytes", fetched.file, fetched.have, fetched.size);
///         ControlFlow::Continue(())
///     })
/// };
/// let refiner = hub("stabilityai/stable-diffusion-xl-refiner-1.0").download()?;
/// let pipeline = hub("stabilityai/stable-diffusion-xl-base-1.0")
///     .builder()?
///     .expert(ExpertInterval::fraction(0.8..), refiner)
///     .open()?;
/// # Ok::<(), ediffi::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct HubPipeline {
    model: HubModel,
    device: DeviceChoice,
    precision: Precision,
}

impl HubPipeline {
    /// The newest commit of the model `repository`, such as `owner/name`, or with `owner/name@revision` that of a branch, a tag or a commit.
    pub fn new(repository: impl AsRef<str>) -> Self {
        let (repository, revision) = match repository.as_ref().split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (repository.as_ref(), None),
        };
        let model = HubModel::new(repository);
        let model = revision.map_or(model.clone(), |revision| model.revision(revision));
        Self { model, device: DeviceChoice::Auto, precision: Precision::Auto }
    }

    /// Chooses a branch, a tag or a commit (default: `main`).
    pub fn revision(self, revision: impl Into<String>) -> Self {
        Self { model: self.model.revision(revision), ..self }
    }

    /// Where it will compute (default: as [`PipelineBuilder::device`]): that says which numbers are best, and so which weights come.
    pub fn device(self, device: DeviceChoice) -> Self {
        Self { device, ..self }
    }

    /// In which precision it will compute (default: as [`PipelineBuilder::precision`]). In 16 bits the half of the weights is enough.
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Tells `watcher` of every part of a file that arrives: a megabyte of large ones. `Break` ends the download with
    /// [`Error::Cancelled`](crate::Error::Cancelled); the next one goes on from there. What the cache has is not told of.
    pub fn watch(self, watcher: impl Fn(&Fetched<'_>) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self { model: self.model.watch(watcher), ..self }
    }

    /// Downloads the files that the cache lacks, and returns their folder, for [`Pipeline::builder`] and [`PipelineBuilder::expert`]. What
    /// is refused is refused before its weights come.
    ///
    /// # Errors
    /// As [`HubModel::files`] for files that there are not, [`HubModel::t5`] and [`HubModel::clip`] for the encoders;
    /// [`Manifest::read`](crate::Manifest::read); [`Error::Published`](crate::Error::Published) for a published model of another family, or
    /// without safetensors; [`Error::Core`](crate::Error::Core) for a device that there is not.
    pub fn download(&self) -> Result<PathBuf> {
        let (folder, which) = self.model.first_of(&[MANIFEST_FILE, INDEX_FILE])?;
        // What `main` stands for may change meanwhile: all that follows is of the commit that the first file is of.
        let commit = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let model = commit.map_or(self.model.clone(), |commit| self.model.clone().revision(commit));
        if which == 0 {
            own::download(&model, &folder)?;
        } else {
            let half = Runtime::new(self.device, self.precision)?.kind != tch::Kind::Float;
            published::download(&model, &folder, half)?;
        }
        Ok(folder)
    }

    /// A builder of the downloaded model, with this device and precision.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn builder(&self) -> Result<PipelineBuilder> {
        Ok(Pipeline::builder(self.download()?).device(self.device).precision(self.precision))
    }
}
