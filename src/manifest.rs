//! `pipeline.json`: what a model folder holds.

use std::path::{Path, PathBuf};

use ediffi_cascade::{StageConfig, path_inside};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, files};

/// The name of the manifest within its folder.
pub const MANIFEST_FILE: &str = "pipeline.json";

/// The format this version reads and writes.
pub const MANIFEST_FORMAT: &str = "ediffi-pipeline/1";

/// What a model folder holds: `pipeline.json`. Beside it lie weights and configurations, nothing that can be run.
///
/// ```json
/// { "format": "ediffi-pipeline/1",
///   "encoders": { "t5": "t5", "clip": "clip" },
///   "stages": [
///     { "name": "base", "size": 64, "network": "base/config.json",
///       "precondition": { "edm": { "sigma_data": 0.5 } },
///       "experts": [ { "weights": "base/high.safetensors", "sigma": [9.61, null] },
///                    { "weights": "base/low.safetensors", "sigma": [0, 9.61] } ],
///       "sampler": { "solver": "dpmpp-2m", "steps": 25, "schedule": { "karras": { "min": 0.002, "max": 80, "rho": 7 } } },
///       "guidance": { "scale": 5.0 } } ] }
/// ```
///
/// Paths are relative to the folder and stay inside it. An unknown key is an error that names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: String,
    /// The encoders; each is optional.
    #[serde(default)]
    pub encoders: EncoderFolders,
    /// The stages in the order they run.
    pub stages: Vec<StageConfig>,
}

/// The folders of the encoders, in the layout of published models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderFolders {
    /// T5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t5: Option<PathBuf>,
    /// CLIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<PathBuf>,
}

impl Manifest {
    /// Reads and checks the manifest of a model folder.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::NoManifest`], [`Error::ReadFile`], [`Error::Json`] naming an unknown key,
    /// [`Error::Format`], [`Error::Manifest`], [`Error::PathOutside`], and [`Error::Cascade`] for a stage.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST_FILE);
        if !folder.is_dir() {
            return Err(Error::NoFolder { folder: folder.to_owned() });
        }
        if !path.is_file() {
            return Err(Error::NoManifest { folder: folder.to_owned() });
        }
        let manifest = Self::parse(&files::read_text(&path)?, &path)?;
        manifest.validate(&path)?;
        Ok(manifest)
    }

    /// Writes the manifest into a model folder.
    ///
    /// # Errors
    /// Those of [`Manifest::read`] for what it would refuse, and [`Error::WriteFile`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST_FILE);
        self.validate(&path)?;
        let mut text =
            serde_json::to_string_pretty(self).map_err(|source| Error::Json { path: path.clone(), source })?;
        text.push('\n');
        files::write(&path, text.as_bytes())
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        /// The format is read first: a later one may have keys that this version cannot know.
        #[derive(Deserialize)]
        struct Head {
            format: Option<String>,
        }
        let json = |source| Error::Json { path: path.to_owned(), source };
        let head: Head = serde_json::from_str(text).map_err(json)?;
        if let Some(found) = head.format.filter(|format| format != MANIFEST_FORMAT) {
            return Err(Error::Format { path: path.to_owned(), found, expected: MANIFEST_FORMAT });
        }
        serde_json::from_str(text).map_err(json)
    }

    fn validate(&self, path: &Path) -> Result<()> {
        if self.format != MANIFEST_FORMAT {
            let found = self.format.clone();
            return Err(Error::Format { path: path.to_owned(), found, expected: MANIFEST_FORMAT });
        }
        if self.stages.is_empty() {
            let (key, reason) = ("stages".to_owned(), "there is none".to_owned());
            return Err(Error::Manifest { path: path.to_owned(), key, reason });
        }
        for stage in &self.stages {
            stage.validate()?;
        }
        for (key, folder) in [("encoders.t5", &self.encoders.t5), ("encoders.clip", &self.encoders.clip)] {
            if let Some(folder) = folder
                && path_inside(Path::new("."), folder).is_err()
            {
                let (manifest, key) = (path.to_owned(), key.to_owned());
                return Err(Error::PathOutside { manifest, key, path: folder.clone() });
            }
        }
        Ok(())
    }
}
