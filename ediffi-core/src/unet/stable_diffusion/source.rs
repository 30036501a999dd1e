//! What a network of Stable Diffusion derives from the text and from the numbers said of the picture.

use tch::{Device, Kind, Tensor};

use super::beside::Beside;
use crate::conditioning::Conditioning;
use crate::unet::context::{ContextSource, Encoded};
use crate::unet::io::{ClipText, EmbeddingShapes};
use crate::unet::parts::{Micro, MicroEmbedding};
use crate::{Error, Result};

/// The tokens of CLIP as they are; pooled text and numbers through their own embedding where the network has one.
#[derive(Debug)]
pub(super) struct ClipSource {
    pub(super) text: ClipText,
    pub(super) micro: Option<(Micro, MicroEmbedding)>,
    /// Where its inputs stand in those that are given.
    pub(super) places: Beside,
    /// Where the network is.
    pub(super) device: Device,
}

/// An embedding of this shape; without it the network cannot do.
fn needed<'a>(name: &'static str, given: Option<&'a Tensor>, shape: &[i64]) -> Result<&'a Tensor> {
    EmbeddingShapes::checked(name, given, shape)?.ok_or(Error::EmbeddingNeeded(name))
}

impl ContextSource for ClipSource {
    /// The absence of a text is the embedding of an empty one or, for SDXL's base, zeros that the caller gives.
    fn encode(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Encoded> {
        let ClipText { tokens, width, pooled } = self.text;
        let Beside { text: place, pooled: pool, numbers } = self.places;
        let text = needed("clip_text", conditioning.clip_text.as_ref(), &[rows, tokens, place.all])?;
        let added = match (&self.micro, pooled) {
            (Some((micro, embedding)), Some(pooled)) => {
                let texts = needed("clip_text_pooled", conditioning.clip_text_pooled.as_ref(), &[rows, pool.all])?;
                let told = needed("micro", conditioning.micro.as_ref(), &[rows, numbers.all])?;
                Some(embedding.forward(&pool.of(texts, pooled)?, &numbers.of(told, micro.numbers)?)?)
            }
            _ => None,
        };
        let text = place.of(text, width)?.f_to_device(self.device)?.f_to_kind(kind)?;
        Ok(Encoded { pooled: added, tokens: text, text_columns: tokens, mask: None })
    }
}
