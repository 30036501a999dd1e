//! Presets: settings of a model's stages under one name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ediffi_cascade::SettingsPatch;
use serde::{Deserialize, Serialize};

use crate::shape::{self, StageShape};
use crate::{Problem, Request};

/// A preset of a model: settings of its stages that go together, such as those of the fastest picture.
///
/// The manifest lists them by name, and [`Request::preset`] asks for one:
///
/// ```json
/// "presets": { "fast": { "about": "a first look", "stages": { "base": { "steps": 8 } } } }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SettingsPreset {
    /// What it is for, in a few words.
    pub about: String,
    /// What differs from the model's own settings, by the name of the stage.
    pub stages: BTreeMap<String, SettingsPatch>,
}

impl SettingsPreset {
    /// A preset that changes nothing yet.
    #[must_use]
    pub fn new(about: impl Into<String>) -> Self {
        Self { about: about.into(), stages: BTreeMap::new() }
    }
}

/// The request with the settings of its preset under its own. A preset may say more than the stages that run.
///
/// # Errors
/// [`Problem::UnknownPreset`].
pub(crate) fn resolved<'a>(
    request: &'a Request,
    presets: &BTreeMap<String, SettingsPreset>,
    stages: &[StageShape],
) -> Result<Cow<'a, Request>, Problem> {
    let Some(name) = &request.preset else { return Ok(Cow::Borrowed(request)) };
    let Some(preset) = presets.get(name) else {
        return Err(Problem::UnknownPreset { name: name.clone(), presets: presets.keys().cloned().collect() });
    };
    let mut resolved = request.clone();
    for stage in shape::running(request, stages) {
        let Some(patch) = preset.stages.get(&stage.name) else { continue };
        let own = request.stages.get(&stage.name);
        let settings = stage.settings.patched(Some(patch)).patched(own);
        let tiling = own.and_then(|own| own.tiling).or(patch.tiling);
        let mut whole = SettingsPatch::from(settings);
        whole.tiling = tiling;
        resolved.stages.insert(stage.name.clone(), whole);
    }
    Ok(Cow::Owned(resolved))
}
