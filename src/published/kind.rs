//! Which family of models a published folder is of.

use std::path::Path;

use super::index::{INDEX_FILE, Index};
use super::unusable::unusable;
use crate::Result;

/// A family of models that are opened in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// DeepFloyd IF.
    DeepFloyd,
    /// Stable Diffusion 1, 2 and XL.
    StableDiffusion,
    /// Karlo.
    UnClip,
}

/// Beginnings of the names of diffusers' pipelines that are of other families, and what these are. The first that fits is right.
const OTHERS: [(&str, &str); 16] = [
    ("StableDiffusion3", "Stable Diffusion 3, a transformer trained by flow matching"),
    ("Flux", "FLUX, a transformer trained by flow matching"),
    ("StableDiffusionXLControlNet", "SDXL with a ControlNet"),
    ("StableDiffusionXLInpaint", "SDXL for inpainting, whose network sees a mask"),
    ("StableDiffusionInpaint", "Stable Diffusion for inpainting, whose network sees a mask"),
    ("StableDiffusionUpscale", "Stable Diffusion's upscaler, whose network sees a smaller picture"),
    ("StableDiffusionLatentUpscale", "Stable Diffusion's latent upscaler"),
    ("StableDiffusionDepth2Img", "Stable Diffusion 2 with depth, whose network sees it"),
    ("StableDiffusionInstructPix2Pix", "InstructPix2Pix, whose network sees a picture"),
    ("StableDiffusionControlNet", "Stable Diffusion with a ControlNet"),
    ("StableCascade", "Stable Cascade"),
    ("StableUnCLIP", "Stable unCLIP, whose network sees the embedding of an image"),
    ("Kandinsky", "Kandinsky"),
    ("PixArt", "PixArt, a transformer"),
    ("LatentConsistencyModel", "a latent consistency model, whose network is told the guidance"),
    ("Sana", "SANA, a transformer"),
];

/// Whether a folder is one that diffusers saved and not one of this library's.
pub(crate) fn is_published(folder: &Path) -> bool {
    folder.join(INDEX_FILE).is_file() && !folder.join(crate::MANIFEST_FILE).is_file()
}

/// The family of a folder.
///
/// # Errors
/// [`Error::Published`](crate::Error::Published) saying what it is of and what can be opened.
pub(crate) fn family(folder: &Path) -> Result<Family> {
    let Index { class, .. } = Index::read(folder)?;
    match class.as_str() {
        "StableDiffusionPipeline"
        | "StableDiffusionImg2ImgPipeline"
        | "StableDiffusionXLPipeline"
        | "StableDiffusionXLImg2ImgPipeline" => Ok(Family::StableDiffusion),
        "UnCLIPPipeline" | "UnCLIPImageVariationPipeline" => Ok(Family::UnClip),
        other if other.starts_with("IF") => Ok(Family::DeepFloyd),
        other => {
            let known = OTHERS.iter().find(|(start, _)| other.starts_with(start));
            let what = known.map(|(_, what)| format!(", {what}")).unwrap_or_default();
            let opened = "this library opens Stable Diffusion 1, 2 and XL (StableDiffusionPipeline, StableDiffusionXLPipeline), \
                          DeepFloyd IF (IFPipeline) and Karlo (UnCLIPPipeline, UnCLIPImageVariationPipeline)";
            Err(unusable(folder, format!("it holds a `{other}`{what}, which cannot be drawn here: {opened}")))
        }
    }
}
