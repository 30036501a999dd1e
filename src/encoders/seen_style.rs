//! What CLIP sees in the pictures of a style.

use ediffi_encoders::Clip;
use ediffi_encoders::clip::rgb8;
use tch::Tensor;

use crate::Result;
use crate::on_cpu::to_cpu;
use crate::style::{self, StyleReference, StyleSource};

/// Whether CLIP has to look at any of them.
pub(super) fn has_pictures(references: &[StyleReference]) -> bool {
    references.iter().any(|reference| reference.weight > 0.0 && matches!(reference.source, StyleSource::Image(_)))
}

/// The mean of references; `clip` looks at those that are pictures, each alone, so that none depends on the others.
pub(super) fn style_of(references: &[StyleReference], clip: Option<&Clip>) -> Result<Option<Tensor>> {
    let mut embeddings = Vec::with_capacity(references.len());
    for reference in references.iter().filter(|reference| reference.weight > 0.0) {
        let embedding = match (&reference.source, clip) {
            (StyleSource::Embedding(embedding), _) => embedding.tensor()?,
            (StyleSource::Image(image), Some(clip)) => {
                let pixels = image.pixels()?;
                let picture = rgb8(pixels.as_raw(), pixels.width() as usize, pixels.height() as usize)?;
                to_cpu(&clip.encode_image(&[picture])?)?
            }
            // Refused when the request was checked: a model without CLIP takes no style.
            (StyleSource::Image(_), None) => continue,
        };
        embeddings.push((embedding, reference.weight));
    }
    style::mean(&embeddings)
}
