//! Attention to the text and to the pixels in one softmax.

use tch::Tensor;

use super::attention::Heads;
use super::pixels::Pixels;
use crate::Result;
use crate::nn::{
    GroupNorm, Linear, MapNorm, Norm, add_to, attend_biased_masked, attend_masked, map_to_tokens, merge_heads,
    split_heads, tokens_to_map,
};
use crate::unet::pass::{Block, KeysValues, Pass};
use crate::weights::Scope;

/// Groups of the norm over the text in front of keys and values (diffusers' `Attention`: its
/// `cross_attention_norm_num_groups` is 32 and no configuration sets another).
pub const TEXT_NORM_GROUPS: i64 = 32;

/// Pixels attend to the text and, in the same softmax, to each other (diffusers' `AttnAddedKVProcessor`).
#[derive(Debug)]
pub struct JointAttention {
    norm: MapNorm,
    text_norm: Option<GroupNorm>,
    pixels: Pixels,
    text_k: Linear,
    text_v: Linear,
    out: Linear,
    heads: i64,
}

impl JointAttention {
    /// From maps of `width` channels to tokens of `context_width`, and to the pixels too if `see_pixels`; `norm_text`: whether the tokens are
    /// normed before.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(
        mut scope: Scope<'_>,
        (width, context_width): (i64, i64),
        heads: Heads,
        norm: Norm,
        eps: f64,
        see_pixels: bool,
        norm_text: bool,
    ) -> Result<Self> {
        let text_norm = || GroupNorm::new(scope.at("norm_cross"), context_width, TEXT_NORM_GROUPS, eps);
        let text_norm = norm_text.then(text_norm).transpose()?;
        Ok(Self {
            norm: MapNorm::new(scope.at("group_norm"), norm, width, eps)?,
            text_norm,
            pixels: Pixels::new(scope.again(), width, see_pixels, Linear::new)?,
            text_k: Linear::new(scope.at("add_k_proj"), context_width, width)?,
            text_v: Linear::new(scope.at("add_v_proj"), context_width, width)?,
            out: Linear::zeroed(scope.at("to_out.0"), width, width)?,
            heads: heads.count(width)?,
        })
    }
}

impl Block for JointAttention {
    /// The norm's statistics are over all tokens of a text, padding included.
    fn prepare(&self, tokens: &Tensor) -> Result<Option<KeysValues>> {
        let normed = match &self.text_norm {
            Some(norm) => norm.forward(&tokens.f_transpose(1, 2)?)?.f_transpose(1, 2)?,
            None => tokens.shallow_clone(),
        };
        let split = |layer: &Linear| -> Result<Tensor> {
            Ok(split_heads(&layer.forward(&normed)?, self.heads)?.f_contiguous()?)
        };
        Ok(Some(KeysValues { keys: split(&self.text_k)?, values: split(&self.text_v)? }))
    }

    fn forward(&self, h: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let text = pass.keys_values()?;
        let (_, _, height, width) = h.size4()?;
        let (q, own) = self.pixels.forward(&map_to_tokens(&self.norm.forward(&h)?)?)?;
        let split = |x: &Tensor| split_heads(x, self.heads);
        let q = split(&q)?;
        let KeysValues { keys, values } = match own {
            // The text comes first: that is where paint-with-words looks for it.
            Some([k, v]) => KeysValues {
                keys: Tensor::f_cat(&[&text.keys, &split(&k)?], 2)?,
                values: Tensor::f_cat(&[&text.values, &split(&v)?], 2)?,
            },
            None => text.shallow_clone(),
        };
        // Pixels always count.
        let others = keys.size4()?.2 - text.keys.size4()?.2;
        let mask = pass.mask.map(|mask| mask.f_constant_pad_nd([0, others])).transpose()?;
        let (size, mask) = ((height, width), mask.as_ref());
        let attended = match pass.painted {
            Some(painted) => attend_biased_masked(&q, &keys, &values, size, pass.text_columns, mask, painted)?,
            None => attend_masked(&q, &keys, &values, mask)?,
        };
        add_to(tokens_to_map(&self.out.forward(&merge_heads(&attended)?)?, &h)?, &h)
    }
}
