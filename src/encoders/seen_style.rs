//! What CLIP sees in the pictures of a style.

use ediffi_encoders::clip::rgb8;
use ediffi_encoders::{Clip, ClipVision};
use tch::Tensor;

use crate::Result;
use crate::on_cpu::to_cpu;
use crate::style::{self, StyleReference, StyleSource};

/// What looks at pictures.
#[derive(Debug, Clone, Copy)]
pub(super) enum Eye<'a> {
    /// Both halves of CLIP.
    Clip(&'a Clip),
    /// The half that sees.
    Vision(&'a ClipVision),
}

impl Eye<'_> {
    fn encode(self, picture: Tensor) -> ediffi_encoders::Result<Tensor> {
        match self {
            Self::Clip(clip) => clip.encode_image(&[picture]),
            Self::Vision(vision) => vision.encode(&[picture]),
        }
    }
}

/// Whether CLIP has to look at any of them.
pub(super) fn has_pictures(references: &[StyleReference]) -> bool {
    references.iter().any(|reference| reference.weight > 0.0 && matches!(reference.source, StyleSource::Image(_)))
}

/// The mean of references; `eye` looks at those that are pictures, each alone, so that none depends on the others.
pub(super) fn style_of(references: &[StyleReference], eye: Option<Eye<'_>>) -> Result<Option<Tensor>> {
    let mut embeddings = Vec::with_capacity(references.len());
    for reference in references.iter().filter(|reference| reference.weight > 0.0) {
        let embedding = match (&reference.source, eye) {
            (StyleSource::Embedding(embedding), _) => embedding.tensor()?,
            (StyleSource::Image(image), Some(eye)) => {
                let pixels = image.pixels()?;
                let picture = rgb8(pixels.as_raw(), pixels.width() as usize, pixels.height() as usize)?;
                to_cpu(&eye.encode(picture)?)?
            }
            // Refused when the request was checked: a model without CLIP takes no style.
            (StyleSource::Image(_), None) => continue,
        };
        embeddings.push((embedding, reference.weight));
    }
    style::mean(&embeddings)
}
