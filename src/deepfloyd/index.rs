//! `model_index.json`: what a folder of diffusers holds.

use std::path::Path;

use ediffi_core::brief::brief;
use ediffi_core::files::read_json;
use ediffi_core::published::unknown_key;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::published_stage::PublishedStage;
use super::unusable::unusable;
use crate::{Error, Result};

/// Its name within the folder.
pub(crate) const INDEX_FILE: &str = "model_index.json";

/// The parts that are read, and the classes of Python that do what is done here. Those of a tokenizer are for its files to say.
const PARTS: [(&str, &[&str]); 5] = [
    ("unet", &["UNet2DConditionModel"]),
    ("scheduler", &["DDPMScheduler"]),
    ("image_noising_scheduler", &["DDPMScheduler"]),
    ("text_encoder", &["T5EncoderModel"]),
    ("tokenizer", &["T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]),
];

/// Keys that change no picture: where the file came from, and what diffusers does to pictures that are drawn.
const WITHOUT_EFFECT: [&str; 6] = [
    "_diffusers_version",
    "_name_or_path",
    "feature_extractor",
    "requires_safety_checker",
    "safety_checker",
    "watermarker",
];

#[derive(Deserialize)]
struct Index {
    #[serde(rename = "_class_name")]
    class: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The stage that the folder holds.
///
/// # Errors
/// A folder without the file or of another model; [`Error::Manifest`] for a part of another class and a key that nobody knows.
pub(super) fn stage(folder: &Path) -> Result<PublishedStage> {
    let path = folder.join(INDEX_FILE);
    if !path.is_file() {
        let reason = format!("it has no {INDEX_FILE}: the folder of the whole model is wanted, as it was downloaded");
        return Err(unusable(folder, reason));
    }
    let Index { class, mut others } = read_json(&path)?;
    let found = match class.as_str() {
        "IFPipeline" | "IFImg2ImgPipeline" | "IFInpaintingPipeline" => PublishedStage::Base,
        "IFSuperResolutionPipeline" | "IFImg2ImgSuperResolutionPipeline" | "IFInpaintingSuperResolutionPipeline" => {
            PublishedStage::SuperResolution
        }
        other => {
            return Err(unusable(folder, format!("it holds a `{other}`; this library opens those of DeepFloyd IF")));
        }
    };
    let wrong = |key: &str, reason| Err(Error::Manifest { path: path.clone(), key: brief(key).into_owned(), reason });
    for (part, classes) in PARTS {
        let stated = others.remove(part);
        // The library and its class: nulls where the folder has no such part.
        match stated.as_ref().and_then(|stated| stated.get(1)).filter(|class| !class.is_null()) {
            Some(class) if !class.as_str().is_some_and(|class| classes.contains(&class)) => {
                return wrong(part, format!("{class} is not supported, only {}", classes.join(", ")));
            }
            _ => {}
        }
    }
    // Nulls stand for a part that the folder does not have.
    others.retain(|_, stated| !stated.as_array().is_some_and(|stated| stated.iter().all(Value::is_null)));
    match unknown_key(&others, &WITHOUT_EFFECT) {
        None => Ok(found),
        Some(key) => wrong(key, "this library does not know it".to_owned()),
    }
}
