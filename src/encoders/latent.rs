//! The text encoders of Stable Diffusion, one after the other.

use ediffi_core::unet::ClipText as Needed;
use tch::{Device, Kind, Tensor};

use super::{EncoderSet, LoadedEncoders, NEGATIVE, started};
use crate::embeddings::{EncodedText, EncodedTokens, Source};
use crate::micro::MicroConditioning;
use crate::on_cpu::to_cpu;
use crate::{Observer, Result};

/// The embedding that stands for no text.
fn nothing(shape: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?)
}

impl EncoderSet {
    /// Embeds `texts` into `encoded`: the tokens of all encoders side by side, and the pooled text of the last of each model. One encoder is in
    /// memory at a time, unless `keep`.
    pub(super) fn encode_latent(
        &self,
        needed: Needed,
        (loaded, keep): (&mut LoadedEncoders, bool),
        (texts, encoded): (&[(&'static str, &str)], &mut [EncodedText]),
        source: &Source,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let mut number = 0;
        for model in &self.latent {
            let zeros = |which: &str| model.zeros && which == NEGATIVE && source.negative_prompt.is_none();
            for (index, files) in model.encoders.iter().enumerate() {
                started("clip", observer)?;
                let clip = match loaded.latent.remove(&number) {
                    Some(clip) => clip,
                    None => self.own(files.load(self.runtime))?,
                };
                let last = needed.pooled.is_some() && index + 1 == model.encoders.len();
                for ((which, text), into) in texts.iter().zip(encoded.iter_mut()) {
                    let (tokens, pooled, own) = if zeros(which) {
                        let blank = vec![None; usize::try_from(needed.tokens).unwrap_or(0)];
                        (
                            nothing(&[1, needed.tokens, files.config.hidden_size])?,
                            nothing(&[1, files.projection])?,
                            blank,
                        )
                    } else {
                        let mut output = files.encode(&clip, text, needed.tokens)?;
                        let spans = output.spans.pop().unwrap_or_default();
                        (to_cpu(&files.seen(&output))?, to_cpu(&output.pooled)?, spans)
                    };
                    into.clip = Some(match into.clip.take() {
                        None => EncodedTokens { tokens, spans: own },
                        Some(EncodedTokens { tokens: before, spans }) => {
                            EncodedTokens { tokens: Tensor::f_cat(&[&before, &tokens], -1)?, spans }
                        }
                    });
                    if last {
                        into.clip_pooled = Some(match into.clip_pooled.take() {
                            None => pooled,
                            Some(before) => Tensor::f_cat(&[&before, &pooled], -1)?,
                        });
                    }
                }
                if keep {
                    loaded.latent.insert(number, clip);
                }
                number += 1;
            }
        }
        Ok(())
    }

    /// The numbers that the networks are told of a picture of this width and height, if any; `negative`: those that guidance leads away from.
    ///
    /// # Shapes
    /// → [1, numbers] f32
    pub(crate) fn micro(&self, micro: &MicroConditioning, size: (u32, u32), negative: bool) -> Result<Option<Tensor>> {
        let numbers: Vec<f32> =
            self.latent.iter().flat_map(|model| micro.numbers(model.told, size, negative)).collect();
        if numbers.is_empty() {
            return Ok(None);
        }
        Ok(Some(Tensor::f_from_slice(&numbers)?.f_unsqueeze(0)?))
    }
}
