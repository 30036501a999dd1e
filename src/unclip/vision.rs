//! CLIP's picture half as unCLIP's variations read it.

use std::path::{Path, PathBuf};

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{self, WeightsFile};
use ediffi_encoders::ClipVision;
use ediffi_encoders::clip::{Preprocess, vision_names};

use super::advice::ADVICE;
use crate::published;
use crate::{Error, Result};

/// The picture encoder of a published folder, looked at and not loaded.
#[derive(Debug, Clone)]
pub(crate) struct PublishedVision {
    folder: PathBuf,
    /// The file that says how pictures are prepared.
    preprocessor: PathBuf,
    /// The name of the weights' variant, if it is one.
    variant: Option<&'static str>,
    /// Width of an embedding.
    pub(crate) projection: i64,
}

impl PublishedVision {
    /// The encoder in `image_encoder` of a folder.
    pub(super) fn find(folder: &Path, half: bool) -> Result<Self> {
        let encoder = folder.join("image_encoder");
        let preprocessor = folder.join("feature_extractor/preprocessor_config.json");
        for file in [&encoder.join("config.json"), &preprocessor] {
            if !file.is_file() {
                let name = file.strip_prefix(folder).unwrap_or(file).display();
                return Err(published::unusable(
                    folder,
                    format!("it has no {name}: pictures are varied by what CLIP sees"),
                ));
            }
        }
        let (config, projection) = ClipVision::read_config(&encoder).map_err(Error::of_config)?;
        Preprocess::open(&preprocessor, config.image_size).map_err(Error::of_config)?;
        let file = published::weights::find(&encoder, "model", half, ADVICE)?;
        if !WeightsFile::open(&file, vision_names)?.contains("visual_projection.weight") {
            let reason = "the weights of its image_encoder have no visual_projection";
            return Err(published::unusable(folder, reason));
        }
        let half = published::weights::HALF;
        let variant = file.file_name().is_some_and(|name| name.to_string_lossy().contains(half)).then_some(half);
        Ok(Self { folder: encoder, preprocessor, variant, projection })
    }

    /// The file of the weights.
    pub(crate) fn weights(&self) -> Result<PathBuf> {
        Ok(weights::find(&self.folder, self.variant)?)
    }

    pub(crate) fn load(&self, runtime: Runtime) -> ediffi_encoders::Result<ClipVision> {
        ClipVision::open_prepared(&self.folder, &self.preprocessor, self.variant, runtime)
    }
}
