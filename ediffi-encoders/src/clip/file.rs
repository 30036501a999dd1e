//! The `config.json` of CLIP, which holds both halves or one.

use std::path::Path;

use serde_json::{Value, json};

use super::config::{ClipConfig, ClipTextConfig, ClipVisionConfig, in_range};
use crate::encoded::read_config;
use crate::{Result, settings};

/// The key of each half in a file of both, and the key under which early files repeat it.
const HALVES: [(&str, &str); 2] = [("text_config", "text_config_dict"), ("vision_config", "vision_config_dict")];

/// Keys that change no embedding: what training sees, and the scale of similarities.
const WITHOUT_EFFECT: [&str; 3] = ["attention_dropout", "dropout", "logit_scale_init_value"];

/// The same in a half: the token of padding stands behind the end of a text, where causal attention does not see it, and the width of
/// the projection is that of its weights.
const WITHOUT_EFFECT_IN_A_HALF: [&str; 4] = ["attention_dropout", "dropout", "pad_token_id", "projection_dim"];

/// The configuration of a folder with both halves.
pub(super) fn both(folder: &Path) -> Result<ClipConfig> {
    let path = folder.join("config.json");
    let json = read(&path, &["clip"], "clip")?;
    let has_vision = json.get("vision_config").is_some_and(|half| !half.is_null());
    let (text_config, projection_dim) = half(&path, json.clone(), "text_config", |_| Vec::new())?;
    let vision = has_vision.then(|| half(&path, json, "vision_config", vision_fixed)).transpose()?;
    let config = ClipConfig { text_config, vision_config: vision.map(|(half, _)| half), projection_dim };
    config.validate()?;
    Ok(config)
}

/// The configuration of the text half, and the width of the space that it projects into.
pub(super) fn text(folder: &Path) -> Result<(ClipTextConfig, i64)> {
    let path = folder.join("config.json");
    let json = read(&path, &["clip", "clip_text_model"], "clip or clip_text_model")?;
    let (config, projection): (ClipTextConfig, i64) = half(&path, json, "text_config", |_| Vec::new())?;
    config.validate()?;
    Ok((config, projection))
}

/// The configuration of the picture half, and the width of the space that it projects into.
pub(super) fn vision(folder: &Path) -> Result<(ClipVisionConfig, i64)> {
    let path = folder.join("config.json");
    let json = read(&path, &["clip", "clip_vision_model"], "clip or clip_vision_model")?;
    let (config, projection): (ClipVisionConfig, i64) = half(&path, json, "vision_config", vision_fixed)?;
    config.validate()?;
    Ok((config, projection))
}

/// Whether the configuration in a folder is one of a CLIP model with a text half.
#[cfg(feature = "hub")]
pub(crate) fn has_text(folder: &Path) -> Result<bool> {
    let types = ["clip", "clip_text_model", "clip_vision_model"];
    let json = read(&folder.join("config.json"), &types, "clip, clip_text_model or clip_vision_model")?;
    Ok(json.get("model_type").is_none_or(|kind| kind != "clip_vision_model"))
}

/// The patches of a picture are cut from its three channels.
fn vision_fixed(_: &ClipVisionConfig) -> Vec<(&'static str, Value)> {
    vec![("num_channels", json!(3))]
}

/// Reads a file. Where it repeats a half, the repetition stands for the half, with the values of ViT-B/32 for what it leaves out, as in
/// transformers.
fn read(path: &Path, types: &[&str], expected: &'static str) -> Result<Value> {
    let mut json = read_config(path, types, expected)?;
    if let Some(keys) = json.as_object_mut() {
        for (half, again) in HALVES {
            if let Some(again) = keys.remove(again).filter(|again| !again.is_null()) {
                keys.insert(half.to_owned(), again);
            }
        }
    }
    Ok(json)
}

/// The configuration of one half, and the width of the space that it projects into. In a file of both halves, the half stands under
/// `key`.
fn half<T: serde::de::DeserializeOwned>(
    path: &Path,
    mut json: Value,
    key: &str,
    fixed: impl Fn(&T) -> Vec<(&'static str, Value)>,
) -> Result<(T, i64)> {
    let projection = json.get("projection_dim").and_then(Value::as_i64).unwrap_or(512);
    in_range("projection_dim", projection)?;
    let whole = json.get("model_type").is_none_or(|kind| kind == "clip");
    let part = match json.get_mut(key).map(Value::take) {
        Some(part) => {
            whole_file(path, json)?;
            part
        }
        None if whole => {
            let source = serde::de::Error::custom(format!("missing field `{key}`"));
            return Err(ediffi_core::Error::Json { path: path.to_owned(), source }.into());
        }
        None => json,
    };
    Ok((settings::parse(path, part, &WITHOUT_EFFECT_IN_A_HALF, fixed)?, projection))
}

/// Checks the keys beside the halves of a file of both.
fn whole_file(path: &Path, json: Value) -> Result<()> {
    let halves = HALVES.map(|(half, _)| half);
    let known = [WITHOUT_EFFECT.as_slice(), &halves, &["projection_dim"]].concat();
    match json {
        Value::Object(keys) => settings::check(path, keys, &known, Vec::new()),
        _ => Ok(()),
    }
}
