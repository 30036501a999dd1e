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
            "StableDiffusionXLPipeline" | "StableDiffusionXLImg2ImgPipeline" => {
                let second = index.has("text_encoder_2") && !index.has("text_encoder");
                if second { Model::Refiner } else { Model::Xl }
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::warnings::with_warnings;

    fn read(text: &str) -> (Result<Folder>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model_index.json"), text).unwrap();
        with_warnings(|| Folder::read(folder.path()))
    }

    #[test]
    fn what_does_not_run_is_in_the_log() {
        let checker = r#"["stable_diffusion", "StableDiffusionSafetyChecker"]"#;
        let extractor =
            r#""feature_extractor": ["transformers", "CLIPImageProcessor"], "requires_safety_checker": true"#;
        let class = r#""_class_name": "StableDiffusionPipeline""#;
        let (found, warnings) = read(&format!(r#"{{ {class}, "safety_checker": {checker}, {extractor} }}"#));
        assert_eq!((found.unwrap().model, warnings.len()), (Model::Early, 1));
        assert!(warnings[0].contains("safety_checker"), "{warnings:?}");
        let (_, warnings) = read(&format!(r#"{{ {class}, "safety_checker": [null, null], {extractor} }}"#));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn base_and_refiner_are_told_apart_by_their_encoders() {
        let text = |part: &str| format!(r#""{part}": ["transformers", "CLIPTextModelWithProjection"]"#);
        let of = |class: &str, parts: &[String], flags: &str| {
            let parts = parts.join(", ");
            read(&format!(r#"{{ "_class_name": "{class}", {parts}{flags} }}"#))
                .0
                .map(|folder| (folder.model, folder.zeros))
        };
        let both = [text("text_encoder"), text("text_encoder_2")];
        let second = [r#""text_encoder": [null, null]"#.to_owned(), text("text_encoder_2")];
        assert_eq!(of("StableDiffusionXLPipeline", &both, "").unwrap(), (Model::Xl, true));
        let zeros = r#", "force_zeros_for_empty_prompt": false"#;
        // The encoders of a refiner make none of another class.
        let other = of("StableDiffusion3Pipeline", &second, "").unwrap_err().to_string();
        assert!(other.contains("holds a `StableDiffusion3Pipeline`"), "{other}");
        // A base that was saved for pictures to start from.
        assert_eq!(of("StableDiffusionXLImg2ImgPipeline", &both, zeros).unwrap(), (Model::Xl, false));
        let score = r#", "force_zeros_for_empty_prompt": false, "requires_aesthetics_score": true"#;
        assert_eq!(of("StableDiffusionXLImg2ImgPipeline", &second, score).unwrap(), (Model::Refiner, false));
        assert!(of("StableDiffusionXLPipeline", &both, score).unwrap_err().to_string().contains("aesthetic score"));
        assert!(of("StableDiffusionXLPipeline", &both, r#", "force_zeros_for_empty_prompt": 1"#).is_err());
        assert_eq!(of("StableDiffusionPipeline", &both[..1], "").unwrap(), (Model::Early, false));
    }
}
