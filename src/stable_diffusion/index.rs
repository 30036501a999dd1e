//! What a folder of Stable Diffusion holds, by its `model_index.json`.

use std::path::Path;

use crate::Result;
use crate::micro::Told;
use crate::published::{Index, unusable};

/// The parts that are read, and the classes of Python that do what is done here. Those of samplers and tokenizers are for their files to say.
const PARTS: [(&str, &[&str]); 7] = [
    ("unet", &["UNet2DConditionModel"]),
    ("unet_2", &["UNet2DConditionModel"]),
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
    /// Up to which timestep a second network, in `unet_2`, is the expert.
    pub(super) boundary: Option<usize>,
}

/// How many timesteps all models of the family have: schedulers of others are refused.
const TIMESTEPS: f64 = 1000.0;

/// The `boundary_ratio` of a folder with two networks, as a timestep. It is diffusers' key for pairs of experts (`WanPipeline`): the first
/// network runs the timesteps that are not below ratio times their number, the second the others.
fn boundary(index: &mut Index) -> Result<Option<usize>> {
    let (key, second) = ("boundary_ratio", index.has("unet_2"));
    let Some(ratio) = index.number(key)? else {
        if second {
            return Err(
                index.wrong("unet_2", "the file has no `boundary_ratio`, which says when it takes over".to_owned())
            );
        }
        return Ok(None);
    };
    if !second {
        return Err(index.wrong(key, "there is no `unet_2` that could take over there".to_owned()));
    }
    let first = (ratio * TIMESTEPS).ceil();
    if !(1.0..TIMESTEPS).contains(&first) {
        return Err(index.wrong(key, format!("{ratio} leaves one of the two networks no timestep")));
    }
    Ok(Some(first as usize))
}

impl Folder {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut index = Index::read(folder)?;
        let zeros = index.flag("force_zeros_for_empty_prompt")?;
        let scored = index.flag("requires_aesthetics_score")?;
        let boundary = boundary(&mut index)?;
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
        Ok(Self { model, zeros: zeros.unwrap_or(true) && model != Model::Early, boundary })
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

    /// diffusers: the second runs `t < boundary_ratio * 1000`.
    #[test]
    fn a_boundary_is_between_two_networks() {
        let of = |keys: &str| read(&format!(r#"{{ "_class_name": "StableDiffusionPipeline"{keys} }}"#)).0;
        let second = r#", "unet_2": ["diffusers", "UNet2DConditionModel"]"#;
        let ratio = |ratio: &str| format!(r#", "boundary_ratio": {ratio}"#);
        let boundary = |ratio_: &str| of(&format!("{second}{}", ratio(ratio_))).map(|folder| folder.boundary);
        assert_eq!(boundary("0.875").unwrap(), Some(875));
        assert_eq!(boundary("0.4005").unwrap(), Some(401));
        assert_eq!(of(&ratio("null")).unwrap().boundary, None);
        for (keys, words) in [
            (ratio("0.4"), "boundary_ratio: there is no `unet_2`"),
            (second.to_owned(), "unet_2: the file has no `boundary_ratio`"),
            (format!("{second}{}", ratio("1.0")), "no timestep"),
            (format!("{second}{}", ratio("0")), "no timestep"),
            (format!("{second}{}", ratio("\"0.4\"")), "no number"),
        ] {
            let error = of(&keys).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
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
