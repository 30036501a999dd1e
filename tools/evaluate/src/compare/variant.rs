//! What is compared: a model folder, whole or with less.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum as _;
use ediffi::{SettingsPreset, StageConfig};
use ediffi_cascade::SamplerSettings;
use ediffi_core::guidance::Guidance;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::Without;

/// One of those that are compared: `NAME=FOLDER`, with `,without=t5` (or `clip`), `,preset=fast` and `,guidance=2` after it where wanted. A
/// folder's name has no comma.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Variant {
    /// What tables and plots call it.
    pub name: String,
    /// The model folder.
    pub model: PathBuf,
    /// The encoder that is left out.
    pub without: Option<Without>,
    /// A preset of the model, in place of its own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Another scale of guidance than that of the settings.
    pub guidance: Option<f64>,
}

impl Variant {
    /// Whether its estimates without guidance are those of the other.
    pub(super) fn estimates_as(&self, other: &Self) -> bool {
        self.model == other.model && self.without == other.without
    }

    /// What its pictures are sampled with.
    pub(super) fn sampler(
        &self,
        presets: &BTreeMap<String, SettingsPreset>,
        base: &StageConfig,
    ) -> Result<SamplerSettings> {
        let preset = self.preset.as_ref().map(|name| -> Result<_> {
            let unknown = || Error::Setting { what: "variant", reason: format!("the model has no preset `{name}`") };
            Ok(presets.get(name).ok_or_else(unknown)?.stages.get(&base.name))
        });
        let own = base.settings.patched(preset.transpose()?.flatten());
        let guidance = Guidance { scale: self.guidance.unwrap_or(own.guidance.scale), ..own.guidance };
        Ok(SamplerSettings { guidance, ..own })
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("not of the form NAME=FOLDER")?;
        let mut parts = rest.split(',');
        let model = parts.next().unwrap_or_default();
        if name.is_empty() || model.is_empty() {
            return Err("neither the name nor the folder may be empty".to_owned());
        }
        let mut variant =
            Self { name: name.to_owned(), model: model.into(), without: None, preset: None, guidance: None };
        for part in parts {
            match part.split_once('=') {
                Some(("without", _)) if variant.without.is_some() => return Err("without= stands twice".to_owned()),
                Some(("preset", _)) if variant.preset.is_some() => return Err("preset= stands twice".to_owned()),
                Some(("preset", "")) => return Err("preset= has no name".to_owned()),
                Some(("preset", preset)) => variant.preset = Some(preset.to_owned()),
                Some(("guidance", _)) if variant.guidance.is_some() => return Err("guidance= stands twice".to_owned()),
                Some(("without", encoder)) => variant.without = Some(Without::from_str(encoder, true)?),
                Some(("guidance", scale)) => {
                    let scale = scale.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale >= 0.0);
                    variant.guidance = Some(scale.ok_or("guidance is not a number from 0 on")?);
                }
                _ => return Err(format!("`{part}` is neither without=ENCODER, preset=NAME nor guidance=SCALE")),
            }
        }
        Ok(variant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_a_name_a_folder_and_what_is_different() {
        let variant = |text: &str| text.parse::<Variant>();
        let plain =
            Variant { name: "A".to_owned(), model: "runs/a".into(), without: None, preset: None, guidance: None };
        assert_eq!(variant("A=runs/a").unwrap(), plain);
        let less = Variant { without: Some(Without::T5), ..plain.clone() };
        assert_eq!(variant("A=runs/a,without=t5").unwrap(), less);
        let both = Variant { guidance: Some(1.5), ..less.clone() };
        assert_eq!(variant("A=runs/a,guidance=1.5,without=t5").unwrap(), both);
        assert!(both.estimates_as(&less) && !both.estimates_as(&plain));
        for wrong in [
            "runs/a",
            "=runs/a",
            "A=",
            "A=runs/a,without=vae",
            "A=runs/a,guidance=-1",
            "A=runs/a,steps=3",
            "A=runs/a,preset=",
            "A=runs/a,preset=fast,preset=fast",
            "A=a,guidance=1,guidance=2",
        ] {
            assert!(variant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_scale_replaces_the_scale_alone() {
        let stage = include_str!("../../../../models/icons/pipeline.json");
        let manifest: ediffi::Manifest = serde_json::from_str(stage).unwrap();
        let own = manifest.stages[0].settings.clone();
        let variant: Variant = "A=runs/a,guidance=7.5".parse().unwrap();
        let sampler = |variant: &Variant| variant.sampler(&manifest.presets, &manifest.stages[0]);
        let other = sampler(&variant).unwrap();
        assert_eq!(
            (other.guidance.scale, other.steps, other.guidance.interval),
            (7.5, own.steps, own.guidance.interval)
        );
        assert_eq!(sampler(&Variant { guidance: None, ..variant.clone() }).unwrap(), own);
        let fast = sampler(&"A=runs/a,preset=fast".parse().unwrap()).unwrap();
        assert!(fast.steps < own.steps, "{fast:?}");
        let unknown = sampler(&"A=runs/a,preset=slow".parse().unwrap()).unwrap_err();
        assert!(unknown.to_string().contains("`slow`"), "{unknown}");
    }
}
