//! Model folders by their names on the Hugging Face hub (feature `hub`).
//!
//! A repository holds what a model folder holds: a `pipeline.json`, and the files that it names. They are downloaded into the cache
//! that all programs of Hugging Face share, under the rules of [`ediffi_encoders::hub`]: weights as safetensors, checked, all of one
//! commit, and from the cache alone if the hub does not answer. The folders of DeepFloyd IF are not downloaded by name.

use std::path::{Path, PathBuf};

use ediffi_encoders::hub::HubModel;

use crate::manifest::{MANIFEST_FILE, Manifest};
use crate::{Pipeline, Result};

impl Pipeline {
    /// Opens the model `repository`, such as `owner/name`, of the hub: see [`download`].
    ///
    /// # Errors
    /// As [`download`] and [`Pipeline::open`].
    pub fn from_hub(repository: &str) -> Result<Self> {
        Self::open(download(repository)?)
    }
}

/// Downloads the files of the model `repository` that the cache lacks, and returns their folder, for [`Pipeline::builder`].
///
/// # Errors
/// As [`HubModel::files`] for the `pipeline.json` and the files that it names, [`HubModel::t5`] and [`HubModel::clip`] for the
/// encoders; those of [`Manifest::read`].
pub fn download(repository: &str) -> Result<PathBuf> {
    let newest = HubModel::new(repository);
    let folder = newest.files(&[MANIFEST_FILE])?;
    let manifest = Manifest::read(&folder)?;
    // What `main` stands for may change meanwhile: all that follows is of the commit that the manifest is of.
    let commit = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let model = commit.map_or(newest.clone(), |commit| newest.revision(commit));
    let paths = manifest.stages.iter().flat_map(|stage| stage.paths().map(|(_, path)| slashed(path)));
    let paths: Vec<String> = paths.collect();
    // The small ones first, so that what is refused is refused before its weights come.
    let (weights, small): (Vec<&str>, Vec<&str>) =
        paths.iter().map(String::as_str).partition(|path| path.ends_with(".safetensors"));
    model.files(&small)?;
    if let Some(t5) = &manifest.encoders.t5 {
        model.clone().subfolder(slashed(t5)).t5()?;
    }
    if let Some(clip) = &manifest.encoders.clip {
        model.clone().subfolder(slashed(clip)).clip()?;
    }
    model.files(&weights)?;
    Ok(folder)
}

/// A path of a manifest, as the hub writes it.
fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}
