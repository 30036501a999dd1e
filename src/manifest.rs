//! `pipeline.json`: what a model folder holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ediffi_cascade::StageConfig;
use ediffi_core::brief::{brief, told_json};
use ediffi_core::files;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, SettingsPreset};

/// The name of the manifest within its folder.
pub const MANIFEST_FILE: &str = "pipeline.json";

/// The format this version reads and writes.
pub const MANIFEST_FORMAT: &str = "ediffi-pipeline/1";

/// The manifest of a model folder: `pipeline.json`. Beside it lie weights and configurations, nothing executable.
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
    /// Settings of the stages that a request asks for by name: see [`Request::preset`](crate::Request::preset()).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub presets: BTreeMap<String, SettingsPreset>,
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
            return Err(Error::NoFolder(folder.to_owned()));
        }
        if !path.is_file() {
            return Err(Error::NoManifest(folder.to_owned()));
        }
        let manifest = Self::parse(&files::read_text(&path)?, &path)?;
        manifest.validate(&path)?;
        Ok(manifest)
    }

    /// Writes the manifest into a model folder.
    ///
    /// # Errors
    /// As [`Manifest::read`] for a manifest that it would refuse; [`Error::WriteFile`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST_FILE);
        self.validate(&path)?;
        let mut text =
            serde_json::to_string_pretty(self).map_err(|source| Error::Json { path: path.clone(), source })?;
        text.push('\n');
        Ok(files::write_atomic(&path, text.as_bytes())?)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        /// The format is read first: a later one may have keys that this version cannot know.
        #[derive(Deserialize)]
        struct Head {
            format: Option<String>,
        }
        let json = |source| Error::Json { path: path.to_owned(), source: told_json(source) };
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
        self.presets.iter().try_for_each(|(name, preset)| self.validate_preset(name, preset, path))?;
        for (key, folder) in [("encoders.t5", &self.encoders.t5), ("encoders.clip", &self.encoders.clip)] {
            if let Some(folder) = folder
                && files::path_inside(Path::new("."), folder).is_err()
            {
                let (manifest, key) = (path.to_owned(), key.to_owned());
                return Err(Error::PathOutside {
                    manifest,
                    key,
                    path: brief(&folder.to_string_lossy()).into_owned().into(),
                });
            }
        }
        Ok(())
    }

    fn validate_preset(&self, name: &str, preset: &SettingsPreset, path: &Path) -> Result<()> {
        for (stage, patch) in &preset.stages {
            let key = format!("presets.{}.stages.{}", brief(name), brief(stage));
            let wrong = |key, reason| Error::Manifest { path: path.to_owned(), key, reason };
            let Some(config) = self.stages.iter().find(|config| config.name == *stage) else {
                return Err(wrong(key, "there is no such stage".to_owned()));
            };
            let settings = config.settings.patched(Some(patch));
            let problems = settings.problems(config.precondition.timesteps(), config.weaker.is_some());
            if let Some((setting, error)) = problems.into_iter().next() {
                return Err(wrong(format!("{key}.{setting}"), error.to_string()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGE: &str = r#"{ "name": "base", "size": 64, "network": "base/config.json",
        "precondition": { "edm": { "sigma_data": 0.5 } },
        "experts": [ { "weights": "base/high.safetensors", "sigma": [9.61, null] },
                     { "weights": "base/low.safetensors", "sigma": [0, 9.61] } ],
        "sampler": { "solver": "dpmpp-2m", "steps": 25, "schedule": { "karras": { "min": 0.002, "max": 80, "rho": 7 } } },
        "guidance": { "scale": 5.0 } }"#;

    fn json(rest: &str, stage: &str) -> String {
        format!(r#"{{ "format": "ediffi-pipeline/1", {rest} "stages": [{stage}] }}"#)
    }

    fn read(text: &str) -> Result<Manifest> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MANIFEST_FILE), text).unwrap();
        Manifest::read(folder.path())
    }

    #[test]
    fn a_manifest_comes_back() {
        let manifest = read(&json(r#""encoders": { "t5": "t5" },"#, STAGE)).unwrap();
        assert_eq!((manifest.stages.len(), manifest.encoders.t5.as_deref()), (1, Some(Path::new("t5"))));
        let folder = tempfile::tempdir().unwrap();
        manifest.write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
    }

    #[test]
    fn a_folder_without_a_manifest_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Manifest::read(folder.path()), Err(Error::NoManifest(named)) if named == folder.path()));
        let none = folder.path().join("none");
        assert!(matches!(Manifest::read(&none), Err(Error::NoFolder(folder)) if folder == none));
    }

    #[test]
    fn unknown_keys_are_named() {
        for text in [
            json(r#""colour": 1,"#, STAGE),
            json(r#""encoders": { "colour": "t5" },"#, STAGE),
            json("", &STAGE.replace("\"size\"", "\"colour\": 1, \"size\"")),
        ] {
            let error = read(&text).unwrap_err();
            assert!(
                matches!(error, Error::Json { .. }) && error.to_string().contains("unknown field `colour`"),
                "{error}"
            );
        }
        assert!(matches!(read("{"), Err(Error::Json { .. })));
        assert!(read("{}").unwrap_err().to_string().contains("missing field `format`"));
    }

    #[test]
    fn another_format_is_said_before_its_keys_are() {
        let error = read(r#"{ "format": "ediffi-pipeline/2", "colour": 1 }"#).unwrap_err();
        assert!(matches!(error, Error::Format { ref found, .. } if found == "ediffi-pipeline/2"), "{error}");
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["../t5", "/t5", ""] {
            let error = read(&json(&format!(r#""encoders": {{ "clip": "{path}" }},"#), STAGE)).unwrap_err();
            assert!(matches!(error, Error::PathOutside { ref key, .. } if key == "encoders.clip"), "{error}");
        }
        let error = read(&json("", &STAGE.replace("base/config.json", "../config.json"))).unwrap_err();
        assert!(matches!(error, Error::Cascade(_)) && error.to_string().contains("network"), "{error}");
    }

    #[test]
    fn a_manifest_has_stages_that_make_sense() {
        assert!(matches!(read(&json("", "")), Err(Error::Manifest { key, .. }) if key == "stages"));
        let error = read(&json("", &STAGE.replace("\"steps\": 25", "\"steps\": 0"))).unwrap_err();
        assert!(matches!(error, Error::Cascade(_)), "{error}");
        let error = read(&json("", &STAGE.replace("[9.61, null]", "[9.62, null]"))).unwrap_err();
        assert!(error.to_string().contains("no expert owns"), "{error}");
    }

    #[test]
    fn presets_are_of_stages_that_there_are() {
        let presets = |patch: &str| format!(r#""presets": {{ "fast": {{ "about": "quick", "stages": {patch} }} }},"#);
        let manifest = read(&json(&presets(r#"{ "base": { "steps": 5 } }"#), STAGE)).unwrap();
        assert_eq!(manifest.presets["fast"].stages["base"].steps, Some(5));
        for (patch, named) in [
            (r#"{ "sr": { "steps": 5 } }"#, "presets.fast.stages.sr"),
            (r#"{ "base": { "steps": 0 } }"#, "presets.fast.stages.base.steps"),
        ] {
            let error = read(&json(&presets(patch), STAGE)).unwrap_err();
            assert!(matches!(&error, Error::Manifest { key, .. } if key == named), "{error}");
        }
        let error = read(&json(&presets(r#"{ "base": { "stps": 5 } }"#), STAGE)).unwrap_err();
        assert!(error.to_string().contains("unknown field `stps`"), "{error}");
    }
}
