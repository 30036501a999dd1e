//! Attention to the text and to the pixels in one softmax.

use tch::Tensor;

use super::attention::Heads;
use crate::Result;
use crate::nn::{
    GroupNorm, Linear, MapNorm, Norm, add_to, attend, attend_biased, chunks, map_to_tokens, merge_heads, split_heads,
    tokens_to_map,
};
use crate::unet::pass::{Block, KeysValues, Pass};
use crate::weights::Scope;

/// Groups of the norm over the text in front of keys and values (diffusers' `Attention`: its
/// `cross_attention_norm_num_groups` is 32 and no configuration sets another).
pub const TEXT_NORM_GROUPS: i64 = 32;

/// What the layer makes of the pixels. Files hold a map for each.
#[derive(Debug)]
enum Pixels {
    /// Queries: the layer sees the text alone.
    Q(Linear),
    /// Queries, keys and values, whose maps may change: they are being trained.
    Apart([Linear; 3]),
    /// The same in one map, made of maps that do not change.
    Joined(Linear),
}

impl Pixels {
    fn new(mut scope: Scope<'_>, width: i64, see_pixels: bool) -> Result<Self> {
        let is_fixed = scope.is_fixed();
        let mut map = |name: &str| Linear::new(scope.at(name), width, width);
        if !see_pixels {
            return Ok(Self::Q(map("to_q")?));
        }
        let maps = [map("to_q")?, map("to_k")?, map("to_v")?];
        // The three are dropped before the next layer is read.
        Ok(if is_fixed { Self::Joined(Linear::joined(&maps)?) } else { Self::Apart(maps) })
    }

    /// Queries, and keys and values if the layer sees the pixels.
    ///
    /// # Shapes
    /// `pixels`: [n, pixels, width] → the same each
    fn forward(&self, pixels: &Tensor) -> Result<(Tensor, Option<[Tensor; 2]>)> {
        let [q, k, v] = match self {
            Self::Q(q) => return Ok((q.forward(pixels)?, None)),
            Self::Apart([q, k, v]) => [q.forward(pixels)?, k.forward(pixels)?, v.forward(pixels)?],
            Self::Joined(qkv) => chunks(&qkv.forward(pixels)?, -1)?,
        };
        Ok((q, Some([k, v])))
    }
}

/// Pixels attend to the text and, in the same softmax, to each other (diffusers' `AttnAddedKVProcessor`).
#[derive(Debug)]
pub struct JointAttention {
    norm: MapNorm,
    text_norm: GroupNorm,
    pixels: Pixels,
    text_k: Linear,
    text_v: Linear,
    out: Linear,
    heads: i64,
}

impl JointAttention {
    /// From maps of `width` channels to tokens of `context_width`, and to the pixels too if `see_pixels`.
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
    ) -> Result<Self> {
        Ok(Self {
            norm: MapNorm::new(scope.at("group_norm"), norm, width, eps)?,
            text_norm: GroupNorm::new(scope.at("norm_cross"), context_width, TEXT_NORM_GROUPS, eps)?,
            pixels: Pixels::new(scope.again(), width, see_pixels)?,
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
        let tokens = self.text_norm.forward(&tokens.f_transpose(1, 2)?)?.f_transpose(1, 2)?;
        let split = |layer: &Linear| -> Result<Tensor> {
            Ok(split_heads(&layer.forward(&tokens)?, self.heads)?.f_contiguous()?)
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
        let attended = match pass.painted {
            Some(painted) => attend_biased(&q, &keys, &values, (height, width), text.keys.size4()?.2, painted)?,
            None => attend(&q, &keys, &values)?,
        };
        add_to(tokens_to_map(&self.out.forward(&merge_heads(&attended)?)?, &h)?, &h)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::weights::Fresh;

    #[test]
    fn maps_that_do_not_change_are_joined_and_give_the_same() {
        const WIDTH: i64 = 32;
        let pixels = (Tensor::arange(2 * 12 * WIDTH, (Kind::Float, Device::Cpu)) * 1.7).sin().view([2, 12, WIDTH]);
        for see_pixels in [true, false] {
            let apart = Pixels::new(Scope::root(&mut Fresh::new(1, Device::Cpu)), WIDTH, see_pixels).unwrap();
            let joined = Pixels::new(Scope::root(&mut Fresh::new(1, Device::Cpu).fixed()), WIDTH, see_pixels).unwrap();
            assert_eq!(matches!(apart, Pixels::Apart(_)), see_pixels);
            assert_eq!(matches!(joined, Pixels::Joined(_)), see_pixels);
            let [(q, own), (q_joined, own_joined)] = [&apart, &joined].map(|maps| maps.forward(&pixels).unwrap());
            assert!(q.allclose(&q_joined, 1e-5, 1e-6, false));
            assert_eq!((own.is_some(), own_joined.is_some()), (see_pixels, see_pixels));
            for (a, b) in own.into_iter().flatten().zip(own_joined.into_iter().flatten()) {
                assert!(a.allclose(&b, 1e-5, 1e-6, false) && !a.allclose(&q, 1e-1, 1e-1, false));
            }
        }
    }
}
