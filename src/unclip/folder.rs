//! One folder that diffusers saved.

use std::path::{Path, PathBuf};

use ediffi_cascade::PriorFiles;
use ediffi_core::prior::PriorConfig;
use ediffi_core::unet::PublishedUnClip;
use ediffi_core::weights::WeightsFile;
use ediffi_encoders::clip::text_names;

use super::advice::ADVICE;
use super::index::Kind;
use super::scheduler::Scheduler;
use super::vision::PublishedVision;
use crate::Result;
use crate::published::{unusable, weights};
use crate::stable_diffusion::{Layer, PublishedClip};

/// Tokens that unCLIP pads every text to: all that CLIP takes.
const TEXT_TOKENS: i64 = 77;

/// Steps and strength of guidance that diffusers' pipelines take by themselves, for the prior, the decoder and super-resolution.
const PRIOR: (usize, f64) = (25, 4.0);
const DECODER: (usize, f64) = (25, 8.0);
const SUPER_RES: (usize, f64) = (7, 1.0);

/// A prior and its sampler.
#[derive(Debug)]
pub(super) struct FoundPrior {
    pub(super) files: PriorFiles,
    pub(super) scheduler: Scheduler,
}

/// What one published folder holds, looked at and not loaded.
#[derive(Debug)]
pub(super) struct UnClipFolder {
    folder: PathBuf,
    pub(super) decoder: PublishedUnClip,
    pub(super) decoder_weights: PathBuf,
    pub(super) text_proj_weights: PathBuf,
    pub(super) decoder_scheduler: Scheduler,
    /// Side in pixels of what the decoder draws.
    pub(super) size: i64,
    /// Both networks of super-resolution and their weights.
    pub(super) super_res: [(PublishedUnClip, PathBuf); 2],
    pub(super) super_res_scheduler: Scheduler,
    /// Side in pixels of what they draw.
    pub(super) enlarged: i64,
    pub(super) text: PublishedClip,
    pub(super) prior: Option<FoundPrior>,
    pub(super) vision: Option<PublishedVision>,
}

impl UnClipFolder {
    /// Opens the folder of a whole model.
    pub(super) fn open(folder: &Path, half: bool) -> Result<Self> {
        let kind = Kind::read(folder)?;
        let file = |name: &str| part(folder, name);
        let find = |part: &str| weights::find(&folder.join(part), "diffusion_pytorch_model", half, ADVICE);
        let text = PublishedClip::find(folder, ("text_encoder", Layer::Masked), half, None)?;
        if !WeightsFile::open(&text.weights()?, text_names)?.contains("text_projection.weight") {
            return Err(unusable(folder, "the weights of its text_encoder have no text_projection"));
        }
        let decoder =
            PublishedUnClip::decoder(&file("decoder/config.json")?, &file("text_proj/config.json")?, TEXT_TOKENS)?;
        let Some(size) = decoder.sample_size else {
            return Err(unusable(folder, "decoder/config.json says no sample_size"));
        };
        let taken = decoder.network.dimensions.context.and_then(|context| context.clip_image).unwrap_or(0);
        for (what, given) in [("has", text.config.hidden_size), ("projects to", text.projection)] {
            if given != taken {
                let reason = format!("its text_encoder {what} a width of {given}, its text_proj takes {taken}");
                return Err(unusable(folder, reason));
            }
        }
        let enlarger = |part: &str| -> Result<(PublishedUnClip, PathBuf)> {
            Ok((PublishedUnClip::enlarger(&file(&format!("{part}/config.json"))?)?, find(part)?))
        };
        let super_res = [enlarger("super_res_first")?, enlarger("super_res_last")?];
        let [(first, _), (last, _)] = &super_res;
        let Some(enlarged) = first.sample_size else {
            return Err(unusable(folder, "super_res_first/config.json says no sample_size"));
        };
        let variance = first.network.switches.variance;
        if last.network.switches.variance != variance {
            return Err(unusable(
                folder,
                "of its networks of super-resolution one predicts a variance, the other none",
            ));
        }
        let scheduler = |name: &str, (steps, scale): (usize, f64), variance: bool| {
            Scheduler::read(&file(&format!("{name}/scheduler_config.json"))?, steps, scale, variance)
        };
        let decoder_scheduler = scheduler("decoder_scheduler", DECODER, decoder.network.switches.variance)?;
        let super_res_scheduler = scheduler("super_res_scheduler", SUPER_RES, variance)?;
        let (mut prior, mut vision) = (None, None);
        match kind {
            Kind::Text => {
                let config = PriorConfig::read_published(&file("prior/config.json")?)?;
                prior_fits(folder, &config, taken)?;
                let path = find("prior")?;
                let files = PriorFiles { label: label(folder, "prior", &path), weights: path, config };
                prior = Some(FoundPrior { files, scheduler: scheduler("prior_scheduler", PRIOR, false)? });
            }
            Kind::Variations => {
                let found = PublishedVision::find(folder, half)?;
                if found.projection != taken {
                    let given = found.projection;
                    let reason =
                        format!("its image_encoder projects to a width of {given}, its text_proj takes {taken}");
                    return Err(unusable(folder, reason));
                }
                vision = Some(found);
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            decoder_weights: find("decoder")?,
            text_proj_weights: find("text_proj")?,
            decoder,
            decoder_scheduler,
            size,
            super_res,
            super_res_scheduler,
            enlarged,
            text,
            prior,
            vision,
        })
    }

    /// How plans and errors name the weights of a part: by the folder's name and the file's.
    pub(super) fn label(&self, part: &str, weights: &Path) -> PathBuf {
        label(&self.folder, part, weights)
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

fn label(folder: &Path, part: &str, weights: &Path) -> PathBuf {
    let name = |path: &Path| path.file_name().map(PathBuf::from).unwrap_or_default();
    name(folder).join(part).join(name(weights))
}

/// Refuses a prior that reads or draws embeddings of another width than the decoder takes.
fn prior_fits(folder: &Path, config: &PriorConfig, taken: i64) -> Result<()> {
    for (what, given, expected) in [
        ("embeddings of", config.width, taken),
        ("pooled texts of", config.pooled, taken),
        ("texts of", config.tokens, TEXT_TOKENS),
    ] {
        if given != expected {
            return Err(unusable(folder, format!("its prior has {what} {given}, where {expected} are needed")));
        }
    }
    Ok(())
}

/// A file that every published folder has.
fn part(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let reason = format!(
        "it has no {name}: the folders decoder, text_proj, super_res_first, super_res_last, their schedulers, text_encoder, tokenizer, \
         and prior with its scheduler or image_encoder with feature_extractor are needed, as downloaded"
    );
    Err(unusable(folder, reason))
}
