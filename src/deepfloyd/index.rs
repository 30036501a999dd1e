//! Which stage a folder of DeepFloyd IF holds.

use std::path::Path;

use super::published_stage::PublishedStage;
use crate::Result;
use crate::published::{Index, unusable};

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

/// The stage that the folder holds.
///
/// # Errors
/// A folder without the file or of another model; [`Error::Manifest`](crate::Error::Manifest) for a part of another class and a key that nobody
/// knows.
pub(super) fn stage(folder: &Path) -> Result<PublishedStage> {
    let index = Index::read(folder)?;
    let found = match index.class.as_str() {
        "IFPipeline" | "IFImg2ImgPipeline" | "IFInpaintingPipeline" => PublishedStage::Base,
        "IFSuperResolutionPipeline" | "IFImg2ImgSuperResolutionPipeline" | "IFInpaintingSuperResolutionPipeline" => {
            PublishedStage::SuperResolution
        }
        other => {
            let reason = format!("it holds a `{other}`, where one of DeepFloyd IF is expected");
            return Err(unusable(folder, reason));
        }
    };
    index.check(&PARTS, &WITHOUT_EFFECT)?;
    Ok(found)
}
