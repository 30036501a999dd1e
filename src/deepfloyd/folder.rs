//! One folder that diffusers saved.

use std::path::{Path, PathBuf};

use ediffi_cascade::SamplerSettings;
use ediffi_core::unet::PublishedUNet;

use super::advice::ADVICE;
use super::index;
use super::published_stage::PublishedStage;
use super::scheduler::Scheduler;
use crate::published::{unusable, weights};
use crate::{Error, Result};

/// What one published folder holds, looked at and not loaded.
#[derive(Debug)]
pub(crate) struct PublishedFolder {
    folder: PathBuf,
    pub(crate) stage: PublishedStage,
    pub(crate) unet: PublishedUNet,
    /// The network's weights.
    pub(crate) weights: PathBuf,
    pub(crate) settings: SamplerSettings,
}

impl PublishedFolder {
    /// Opens the folder of a published stage.
    pub(crate) fn open(folder: &Path, stage: PublishedStage, half: bool) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::NoFolder(folder.to_owned()));
        }
        let found = index::stage(folder)?;
        if found != stage {
            let reason = format!("it is {}, where {} is expected", found.words(), stage.words());
            return Err(unusable(folder, reason));
        }
        let unet = PublishedUNet::read(&part(folder, "unet/config.json")?)?;
        if unet.network.dimensions.low_res != (stage == PublishedStage::SuperResolution) {
            let reason = format!("its network is not that of {}: in_channels does not fit", stage.words());
            return Err(unusable(folder, reason));
        }
        let weights = weights::find(&folder.join("unet"), "diffusion_pytorch_model", half, ADVICE)?;
        let scheduler_file = part(folder, "scheduler/scheduler_config.json")?;
        let scheduler = Scheduler::read(&scheduler_file)?;
        if scheduler.learns_variance() && !unet.network.switches.variance {
            let reason = "its network predicts no variance (out_channels): set fixed_small".to_owned();
            return Err(Error::Manifest { path: scheduler_file, key: "variance_type".to_owned(), reason });
        }
        let noising = folder.join("image_noising_scheduler/scheduler_config.json");
        if stage == PublishedStage::SuperResolution && noising.is_file() {
            // The network is told a timestep of this table.
            Scheduler::read(&noising)?;
        }
        Ok(Self { folder: folder.to_owned(), stage, unet, weights, settings: scheduler.settings(stage) })
    }

    /// How plans and errors name its weights: by the folder's name and the file's.
    pub(crate) fn label(&self) -> PathBuf {
        let name = |path: &Path| path.file_name().map(PathBuf::from).unwrap_or_default();
        name(&self.folder).join("unet").join(name(&self.weights))
    }
}

/// A file that every published folder has.
fn part(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let reason = format!("it has no {name}: of a whole model the folders `unet` and `scheduler` are needed");
    Err(unusable(folder, reason))
}
