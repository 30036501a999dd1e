//! Attention of pixels to each other, and to the conditioning tokens.

use tch::Tensor;

use crate::nn::{
    Linear, MapNorm, Norm, add_to, attend, attend_biased_masked, attend_masked, chunks, map_to_tokens, merge_heads,
    split_heads, tokens_to_map,
};
use crate::unet::pass::{Block, KeysValues, Pass};
use crate::weights::Scope;
use crate::{Error, Result};

/// How the channels of an attention layer are shared out to heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// This many heads, whatever the channels.
    Count(i64),
    /// Heads of this many channels.
    Width(i64),
}

impl Heads {
    /// How many heads `channels` channels have.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] if they cannot be shared out evenly.
    pub fn count(self, channels: i64) -> Result<i64> {
        let (Self::Count(number) | Self::Width(number)) = self;
        if number < 1 || channels % number != 0 {
            let reason = format!("{self:?} does not divide {channels} channels");
            return Err(Error::NetworkConfig { field: "heads", reason });
        }
        Ok(if matches!(self, Self::Count(_)) { number } else { channels / number })
    }
}

/// Pixels attend to each other.
#[derive(Debug)]
pub struct SelfAttention {
    norm: MapNorm,
    qkv: Linear,
    out: Linear,
    heads: i64,
}

impl SelfAttention {
    /// Over maps of `width` channels.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, width: i64, heads: Heads, norm: Norm, eps: f64) -> Result<Self> {
        Ok(Self {
            norm: MapNorm::new(scope.at("norm"), norm, width, eps)?,
            qkv: Linear::new(scope.at("qkv"), width, 3 * width)?,
            out: Linear::zeroed(scope.at("out"), width, width)?,
            heads: heads.count(width)?,
        })
    }
}

impl Block for SelfAttention {
    fn forward(&self, h: Tensor, _pass: &mut Pass<'_>) -> Result<Tensor> {
        let qkv = self.qkv.forward(&map_to_tokens(&self.norm.forward(&h)?)?)?;
        let [q, k, v] = chunks(&qkv, -1)?;
        let split = |x: &Tensor| split_heads(x, self.heads);
        let attended = attend(&split(&q)?, &split(&k)?, &split(&v)?)?;
        add_to(tokens_to_map(&self.out.forward(&merge_heads(&attended)?)?, &h)?, &h)
    }
}

/// Pixels attend to the conditioning tokens.
#[derive(Debug)]
pub struct CrossAttention {
    norm: MapNorm,
    q: Linear,
    kv: Linear,
    out: Linear,
    heads: i64,
}

impl CrossAttention {
    /// From maps of `width` channels to tokens of `context_width`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(
        mut scope: Scope<'_>,
        (width, context_width): (i64, i64),
        heads: Heads,
        norm: Norm,
        eps: f64,
    ) -> Result<Self> {
        Ok(Self {
            norm: MapNorm::new(scope.at("norm"), norm, width, eps)?,
            q: Linear::new(scope.at("q"), width, width)?,
            kv: Linear::new(scope.at("kv"), context_width, 2 * width)?,
            out: Linear::zeroed(scope.at("out"), width, width)?,
            heads: heads.count(width)?,
        })
    }
}

impl Block for CrossAttention {
    fn prepare(&self, tokens: &Tensor) -> Result<Option<KeysValues>> {
        let [keys, values] = chunks(&self.kv.forward(tokens)?, -1)?;
        let split = |x: &Tensor| -> Result<Tensor> { Ok(split_heads(x, self.heads)?.f_contiguous()?) };
        Ok(Some(KeysValues { keys: split(&keys)?, values: split(&values)? }))
    }

    fn forward(&self, h: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let KeysValues { keys, values } = pass.keys_values()?;
        let (_, _, height, width) = h.size4()?;
        let q = split_heads(&self.q.forward(&map_to_tokens(&self.norm.forward(&h)?)?)?, self.heads)?;
        let attended = match pass.painted {
            Some(painted) => {
                let (size, text) = ((height, width), pass.text_columns);
                attend_biased_masked(&q, keys, values, size, text, pass.mask, painted)?
            }
            None => attend_masked(&q, keys, values, pass.mask)?,
        };
        add_to(tokens_to_map(&self.out.forward(&merge_heads(&attended)?)?, &h)?, &h)
    }
}
