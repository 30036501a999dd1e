//! The text encoders of Stable Diffusion, one after the other.

use ediffi_core::unet::ClipText as Needed;
use tch::Tensor;

use super::{EncoderSet, LoadedEncoders, NEGATIVE, started};
use crate::embeddings::{EncodedText, EncodedTokens, Source};
use crate::micro::MicroConditioning;
use crate::on_cpu::to_cpu;
use crate::{Observer, Result};

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
                    let mut output = clip.encode_with_padding(&[text], needed.tokens)?;
                    let seen = |x: &Tensor| if zeros(which) { Ok(x.f_zeros_like()?) } else { to_cpu(x) };
                    let tokens = to_cpu(&seen(&files.seen(&output))?)?;
                    into.clip = Some(match into.clip.take() {
                        None => EncodedTokens { tokens, spans: output.spans.pop().unwrap_or_default() },
                        Some(EncodedTokens { tokens: before, spans }) => {
                            EncodedTokens { tokens: Tensor::f_cat(&[&before, &tokens], -1)?, spans }
                        }
                    });
                    if last {
                        let pooled = to_cpu(&seen(&output.pooled)?)?;
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
