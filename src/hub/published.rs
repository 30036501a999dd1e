//! The files of a published model, by its `model_index.json`.

use std::path::Path;

use ediffi_core::weights;
use ediffi_encoders::hub::HubModel;

use crate::Result;
use crate::published::weights::HALF;
use crate::published::{Index, Part, family, unusable};

/// Parts that are not read.
const LEFT_OUT: [&str; 4] = ["feature_extractor", "image_encoder", "safety_checker", "watermarker"];

/// What diffusers calls the weights of its networks, and transformers those of its own.
const NETWORK: &str = "diffusion_pytorch_model";
const ENCODER: &str = "model";

/// What is read of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// A configuration alone.
    Scheduler,
    /// A network of diffusers.
    Network,
    /// An encoder of transformers with its tokenizer, which lies beside it.
    Clip,
    T5,
}

/// Downloads what is read of the model in `folder`, which has its index; `half`: the weights in half precision are wanted, if there are some.
pub(super) fn download(model: &HubModel, folder: &Path, half: bool) -> Result<()> {
    // Another family is refused here, with what it is.
    family(folder)?;
    let index = Index::read(folder)?;
    let parts: Vec<(&str, Read)> =
        index.parts().filter_map(|part| Some((part.name, read(&index.class, &part)?))).collect();
    let configs = parts.iter().filter_map(|(part, read)| match read {
        Read::Scheduler => Some(format!("{part}/scheduler_config.json")),
        Read::Network => Some(format!("{part}/config.json")),
        Read::Clip | Read::T5 => None,
    });
    // The small ones first, so that what is refused is refused before its weights come.
    let configs: Vec<String> = configs.collect();
    model.files(&configs.iter().map(String::as_str).collect::<Vec<_>>())?;
    for (part, read) in &parts {
        let stem = match read {
            Read::Scheduler => continue,
            Read::Network => NETWORK,
            Read::Clip | Read::T5 => ENCODER,
        };
        let own = model.clone().subfolder(*part);
        let (file, variant) = chosen(&own, stem, half)?.ok_or_else(|| {
            unusable(
                folder,
                format!("the repository has no {part}/{stem}.safetensors, nor its half-precision variant or index"),
            )
        })?;
        let encoder = variant.map_or(own.clone(), |variant| own.clone().variant(variant));
        match read {
            Read::Clip => drop(encoder.clip()?),
            Read::T5 => drop(encoder.t5()?),
            Read::Scheduler | Read::Network => network(&own, &file)?,
        }
    }
    Ok(())
}

/// What is read of a part, if it is.
fn read(pipeline: &str, part: &Part<'_>) -> Option<Read> {
    let Part { name, library, class } = *part;
    if LEFT_OUT.contains(&name) || name.starts_with("tokenizer") {
        return None;
    }
    // All stages of DeepFloyd IF have the same encoder, whose weights are the largest: the first stage brings it.
    let shared = pipeline.starts_with("IF") && pipeline.contains("SuperResolution");
    match library {
        _ if class.ends_with("Scheduler") => Some(Read::Scheduler),
        "transformers" if class.starts_with("T5") => (!shared).then_some(Read::T5),
        "transformers" => Some(Read::Clip),
        _ => Some(Read::Network),
    }
}

/// The file of the weights called `stem` that is opened then, as `published::weights::find` chooses, and its variant.
fn chosen(own: &HubModel, stem: &str, half: bool) -> Result<Option<(String, Option<&'static str>)>> {
    let variants = if half { [Some(HALF), None] } else { [None, Some(HALF)] };
    let files = variants.iter().flat_map(|variant| weights::candidates(stem, *variant).map(|file| (file, *variant)));
    let files: Vec<_> = files.collect();
    let there = own.there(&files.iter().map(|(file, _)| file.as_str()).collect::<Vec<_>>())?;
    Ok(files.into_iter().zip(there).find(|(_, there)| *there).map(|(file, _)| file))
}

/// Downloads the weights of a network: a file, or the shards of an index.
fn network(own: &HubModel, file: &str) -> Result<()> {
    let folder = own.files(&[file])?;
    if file.ends_with(".json") {
        let shards = weights::shards(&folder.join(file), |name| Some(name.to_owned()))?;
        let names: Vec<&str> = shards.iter().filter_map(|shard| shard.file_name()?.to_str()).collect();
        own.files(&names)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_by_their_classes() {
        let of = |pipeline: &str, name, library, class| read(pipeline, &Part { name, library, class });
        let first = |name, library, class| of("StableDiffusionPipeline", name, library, class);
        assert_eq!(first("unet", "diffusers", "UNet2DConditionModel"), Some(Read::Network));
        assert_eq!(first("vae", "diffusers", "AutoencoderKL"), Some(Read::Network));
        assert_eq!(first("scheduler", "diffusers", "PNDMScheduler"), Some(Read::Scheduler));
        assert_eq!(first("text_encoder_2", "transformers", "CLIPTextModelWithProjection"), Some(Read::Clip));
        for (name, class) in [
            ("tokenizer_2", "CLIPTokenizer"),
            ("safety_checker", "StableDiffusionSafetyChecker"),
            ("feature_extractor", "CLIPImageProcessor"),
        ] {
            assert_eq!(first(name, "transformers", class), None, "{name}");
        }
        let encoder = |pipeline| of(pipeline, "text_encoder", "transformers", "T5EncoderModel");
        assert_eq!(encoder("IFPipeline"), Some(Read::T5));
        assert_eq!(encoder("IFSuperResolutionPipeline"), None);
    }
}
