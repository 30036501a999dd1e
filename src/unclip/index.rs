//! What a folder of unCLIP holds, by its `model_index.json`.

use std::path::Path;

use crate::Result;
use crate::published::{Index, unusable};

/// The parts that are read, and the classes of Python that do what is done here. Those of tokenizers are for their files to say.
const PARTS: [(&str, &[&str]); 12] = [
    ("prior", &["PriorTransformer"]),
    ("decoder", &["UNet2DConditionModel"]),
    ("text_proj", &["UnCLIPTextProjModel"]),
    ("super_res_first", &["UNet2DModel"]),
    ("super_res_last", &["UNet2DModel"]),
    ("prior_scheduler", &["UnCLIPScheduler"]),
    ("decoder_scheduler", &["UnCLIPScheduler"]),
    ("super_res_scheduler", &["UnCLIPScheduler"]),
    ("text_encoder", &["CLIPTextModelWithProjection"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]),
    ("image_encoder", &["CLIPVisionModelWithProjection"]),
    (
        "feature_extractor",
        &["CLIPFeatureExtractor", "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"],
    ),
];

/// Keys that change no picture: where the file came from.
const WITHOUT_EFFECT: [&str; 2] = ["_diffusers_version", "_name_or_path"];

/// Where the image embedding comes from that the decoder of a folder sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// From a text, by the prior.
    Text,
    /// From a picture.
    Variations,
}

impl Kind {
    /// Reads the file of a folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let index = Index::read(folder)?;
        let kind = match index.class.as_str() {
            "UnCLIPPipeline" => Self::Text,
            "UnCLIPImageVariationPipeline" => Self::Variations,
            other => return Err(unusable(folder, format!("it holds a `{other}`, where one of unCLIP is expected"))),
        };
        index.check(&PARTS, &WITHOUT_EFFECT)?;
        Ok(kind)
    }
}
