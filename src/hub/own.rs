//! The files of a model of this library.

use std::path::Path;

use ediffi_encoders::hub::HubModel;

use crate::Result;
use crate::manifest::Manifest;

/// Downloads what the manifest in `folder` names.
pub(super) fn download(model: &HubModel, folder: &Path) -> Result<()> {
    let manifest = Manifest::read(folder)?;
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
    Ok(())
}

/// A path of a manifest, as the hub writes it.
fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}
