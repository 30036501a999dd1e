//! What a folder of Stable Diffusion holds, by its `model_index.json`.

use std::path::Path;

use crate::Result;
use crate::micro::Told;
use crate::published::{Index, unusable};

/// The parts that are read, and the classes of Python that do what is done here. Those of samplers and tokenizers are for their files to say.
const PARTS: [(&str, &[&str]); 6] = [
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
    ("text_encoder", &TEXT),
    ("text_encoder_2", &TEXT),
    ("tokenizer", &TOKENIZERS),
    ("tokenizer_2", &TOKENIZERS),
];

const TEXT: [&str; 2] = ["CLIPTextModel", "CLIPTextModelWithProjection"];

const TOKENIZERS: [&str; 4] = ["CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"];

/// Keys that change no picture: where the file came from, the sampler, whose own file says what it is, and what diffusers does to pictures
/// that are drawn.
const WITHOUT_EFFECT: [&str; 9] = [
    "_diffusers_version",
    "_name_or_path",
    "add_watermarker",
    "feature_extractor",
    "image_encoder",
    "requires_safety_checker",
    "safety_checker",
    "scheduler",
    "watermarker",
];

/// What diffusers looks at or changes in pictures that are drawn, and this library does not.
const LEFT_OUT: [&str; 2] = ["safety_checker", "watermarker"];

/// Which model of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    /// Stable Diffusion 1 or 2.
    Early,
    /// SDXL's base.
    Xl,
    /// SDXL's refiner.
    Refiner,
}

impl Model {
    /// Which numbers of a picture its network is told.
    pub(super) fn told(self) -> Told {
        match self {
            Self::Early => Told::Nothing,
            Self::Xl => Told::Sizes,
            Self::Refiner => Told::Score,
        }
    }
}

/// What a folder says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder {
    pub(super) model: Model,
    /// Whether no negative prompt is zeros and not the empty text's embedding.
    pub(super) zeros: bool,
}

impl Folder {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut index = Index::read(folder)?;
        let zeros = index.flag("force_zeros_for_empty_prompt")?;
        let scored = index.flag("requires_aesthetics_score")?;
        let model = match index.class.as_str() {
            "StableDiffusionPipeline" | "StableDiffusionImg2ImgPipeline" => Model::Early,
            _ if index.has("text_encoder_2") && !index.has("text_encoder") => Model::Refiner,
            "StableDiffusionXLPipeline" | "StableDiffusionXLImg2ImgPipeline" => Model::Xl,
            other => {
                return Err(unusable(
                    folder,
                    format!("it holds a `{other}`, where one of Stable Diffusion is expected"),
                ));
            }
        };
        if scored == Some(true) && model != Model::Refiner {
            return Err(unusable(folder, "it asks for an aesthetic score, which only SDXL's refiner is told"));
        }
        index.check(&PARTS, &WITHOUT_EFFECT)?;
        for part in LEFT_OUT.iter().filter(|part| index.has(part)) {
            tracing::warn!(folder = %folder.display(), part, "is in the folder and does not run: pictures are given out as they are drawn");
        }
        Ok(Self { model, zeros: zeros.unwrap_or(true) && model != Model::Early })
    }
}
