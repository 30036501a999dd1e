//! The text encoders of Stable Diffusion, one after the other.

use ediffi_core::unet::ClipText as Needed;
use tch::Tensor;

use super::{EncoderSet, LoadedEncoders, NEGATIVE, started};
use crate::embeddings::{EncodedText, EncodedTokens, Source};
use crate::on_cpu::to_cpu;
use crate::stable_diffusion::LatentText;
use crate::{Observer, Result};

impl EncoderSet {
    /// Embeds `texts` into `encoded`: the tokens of all encoders side by side, and the pooled text of the last. One encoder is in memory at a
    /// time, unless `keep`.
    pub(super) fn encode_latent(
        &self,
        (files, needed): (&LatentText, Needed),
        (loaded, keep): (&mut LoadedEncoders, bool),
        (texts, encoded): (&[(&'static str, &str)], &mut [EncodedText]),
        source: &Source,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        for (index, files) in files.encoders.iter().enumerate() {
            started("clip", observer)?;
            let clip = match loaded.latent.remove(&index) {
                Some(clip) => clip,
                None => self.own(files.load(self.runtime))?,
            };
            for ((_, text), into) in texts.iter().zip(encoded.iter_mut()) {
                let mut output = clip.encode_with_padding(&[text], needed.tokens)?;
                let tokens = to_cpu(&files.seen(&output))?;
                into.clip = Some(match into.clip.take() {
                    None => EncodedTokens { tokens, spans: output.spans.pop().unwrap_or_default() },
                    Some(before) => {
                        let tokens = Tensor::f_cat(&[&before.tokens, &tokens], -1)?;
                        EncodedTokens { tokens, ..before }
                    }
                });
                into.clip_pooled = needed.pooled.map(|_| to_cpu(&output.pooled)).transpose()?;
            }
            if keep {
                loaded.latent.insert(index, clip);
            }
        }
        if files.zeros && source.negative_prompt.is_none() {
            let negative = texts.iter().zip(encoded).filter(|((which, _), _)| *which == NEGATIVE);
            negative.map(|(_, into)| into).try_for_each(zero)?;
        }
        Ok(())
    }
}

/// Zeros in the place of what stands for no text.
fn zero(text: &mut EncodedText) -> Result<()> {
    if let Some(clip) = &mut text.clip {
        clip.tokens = clip.tokens.f_zeros_like()?;
    }
    if let Some(pooled) = &mut text.clip_pooled {
        *pooled = pooled.f_zeros_like()?;
    }
    Ok(())
}
