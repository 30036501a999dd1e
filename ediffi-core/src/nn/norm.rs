//! Norms. libtorch computes their statistics in f32, whatever the precision of the input.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::conv::channels_last;
use super::fused::{Around, Parameters, over_groups, over_positions};
use crate::Result;
use crate::weights::{Init, Scope};

/// Group normalisation (Wu & He 2018).
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// Normalises `channels` channels in `groups` groups. `groups` has to divide `channels`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, channels: i64, groups: i64, eps: f64) -> Result<Self> {
        let weight = scope.weight_f32("weight", &[channels], Init::Ones)?;
        Ok(Self { weight, bias: scope.weight_f32("bias", &[channels], Init::Zeros)?, groups, eps })
    }

    /// Normalises each group of channels of each row.
    ///
    /// # Shapes
    /// `x`: [n, channels, ...] → the same
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_in(x, &Around::default())
    }

    /// As [`forward`](Self::forward), with what stands around it.
    pub(crate) fn forward_in(&self, x: &Tensor, around: &Around<'_>) -> Result<Tensor> {
        match over_groups(x, self.groups, self.parameters(), around)? {
            Some(y) => Ok(y),
            None => one_by_one(x, self.parameters(), around, |x, gain, bias| self.forward_with(x, gain, bias)),
        }
    }

    fn parameters(&self) -> Parameters<'_> {
        Parameters { weight: &self.weight, bias: &self.bias, eps: self.eps }
    }

    /// libtorch's own operation, with another gain and bias.
    fn forward_with(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let kind = x.kind();
        let (weight, bias) = (weight.f_to_kind(kind)?, bias.f_to_kind(kind)?);
        let norm = |x: &Tensor| x.f_group_norm(self.groups, Some(&weight), Some(&bias), self.eps, true);
        if self.is_faster_by_channel(x) {
            return channels_last(&norm(&x.f_contiguous()?)?);
        }
        let normed = norm(x)?;
        // libtorch's kernel for CUDA gives a map that is channels-first. The convolutions of a network want one order.
        let turned = matches!(x.device(), Device::Cuda(_)) && is_channels_last(x) && !is_channels_last(&normed);
        if turned { channels_last(&normed) } else { Ok(normed) }
    }

    /// Whether it is faster to make `x` channels-first, normalise it, and make it channels-last again.
    ///
    /// libtorch's CPU kernel for a small channels-last map fills a vector with the channels that one group has at one
    /// position. If these are few, most of the vector is empty, and the norm takes up to seven times as long as both
    /// conversions and the norm between them (`examples/group_norm_times.rs`). A map of 1024 positions and more goes through
    /// another kernel, which does not have this weakness.
    fn is_faster_by_channel(&self, x: &Tensor) -> bool {
        const FULL_VECTOR: i64 = 24;
        const LARGE_MAP: i64 = 1024;
        match *x.size().as_slice() {
            [_, channels, height, width] => {
                x.device() == Device::Cpu
                    && channels < FULL_VECTOR * self.groups
                    && height * width < LARGE_MAP
                    && is_channels_last(x)
            }
            _ => false,
        }
    }
}

/// Whether the channels of a map are innermost in memory.
fn is_channels_last(x: &Tensor) -> bool {
    x.dim() == 4 && x.stride().get(1) == Some(&1) && !x.is_contiguous()
}

/// Which norm the blocks of a network have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Group norms with this many groups (ADM). Their statistics are of the whole feature map.
    Group(i64),
    /// Layer norms over the channels of each position. The result at a position then depends on its surroundings alone, not
    /// on the size of the picture: networks that learn on crops need that, and it makes tiles exact.
    Position,
}

/// A norm of feature maps, of the kind that a [`Norm`] names.
#[derive(Debug)]
pub enum MapNorm {
    /// Over groups of channels of the whole map.
    Group(GroupNorm),
    /// Over the channels of each position.
    Position(LayerNorm),
}

impl MapNorm {
    /// A norm of maps with `channels` channels.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(scope: Scope<'_>, norm: Norm, channels: i64, eps: f64) -> Result<Self> {
        Ok(match norm {
            Norm::Group(groups) => Self::Group(GroupNorm::new(scope, channels, groups, eps)?),
            Norm::Position => Self::Position(LayerNorm::new(scope, channels, eps)?),
        })
    }

    /// Normalises a map.
    ///
    /// # Shapes
    /// `x`: [n, channels, h, w] → the same
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_in(x, &Around::default())
    }

    /// (1 + scale) · norm(x) + shift.
    ///
    /// # Shapes
    /// `x`: [n, channels, h, w], `scale` and `shift`: [n, channels, 1, 1] → the shape of `x`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn modulated(&self, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        self.forward_in(x, &Around { modulation: Some([scale, shift]), ..Around::default() })
    }

    /// As [`forward`](Self::forward), with what stands around it.
    pub(crate) fn forward_in(&self, x: &Tensor, around: &Around<'_>) -> Result<Tensor> {
        match self {
            Self::Group(norm) => norm.forward_in(x, around),
            Self::Position(norm) => match over_positions(x, norm.parameters(), around)? {
                Some(y) => Ok(y),
                None => one_by_one(x, norm.parameters(), around, |x, gain, bias| {
                    by_position(x, |x| norm.forward_with(x, gain, bias))
                }),
            },
        }
    }
}

/// A norm of a map and what stands around it, each by an operation of libtorch.
fn one_by_one(
    x: &Tensor,
    Parameters { weight: gain, bias, .. }: Parameters<'_>,
    around: &Around<'_>,
    norm: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut x = x.shallow_clone();
    if let Some(added) = around.added {
        x = x.f_add(added)?;
    }
    if let Some(kind) = around.kind {
        x = x.f_to_kind(kind)?;
    }
    let y = match around.modulation {
        None => norm(&x, gain, bias)?,
        // One for all rows: scale and shift become part of the norm's own gain and bias, and no map is gone through for them.
        Some([scale, shift]) if scale.size().first() == Some(&1) => {
            let factor = scale.f_add_scalar(1.0)?.f_flatten(0, -1)?.f_to_kind(gain.kind())?;
            let shift = shift.f_flatten(0, -1)?.f_to_kind(gain.kind())?;
            norm(&x, &gain.f_mul(&factor)?, &shift.f_addcmul(bias, &factor)?)?
        }
        Some([scale, shift]) => shift.f_addcmul(&norm(&x, gain, bias)?, &scale.f_add_scalar(1.0)?)?,
    };
    match around.activation {
        Some(activation) => activation.apply_to(y),
        None => Ok(y),
    }
}

/// Applies `norm` to the channels of each position. A channels-last map has them innermost: both permutations are free.
fn by_position(x: &Tensor, norm: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    Ok(norm(&x.f_permute([0, 2, 3, 1])?)?.f_permute([0, 3, 1, 2])?)
}

/// Layer normalisation over the last axis (Ba et al. 2016).
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    /// A norm of `width` features.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, width: i64, eps: f64) -> Result<Self> {
        let weight = scope.weight_f32("weight", &[width], Init::Ones)?;
        Ok(Self { weight, bias: scope.weight_f32("bias", &[width], Init::Zeros)?, width, eps })
    }

    fn parameters(&self) -> Parameters<'_> {
        Parameters { weight: &self.weight, bias: &self.bias, eps: self.eps }
    }

    /// Normalises the last axis.
    ///
    /// # Shapes
    /// `x`: [..., width] → the same
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, &self.weight, &self.bias)
    }

    /// As [`forward`](Self::forward) with another gain and bias.
    fn forward_with(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let kind = x.kind();
        let (weight, bias) = (weight.f_to_kind(kind)?, bias.f_to_kind(kind)?);
        Ok(x.f_layer_norm([self.width], Some(&weight), Some(&bias), self.eps, true)?)
    }
}

/// Root-mean-square normalisation (Zhang & Sennrich 2019) over the last axis, as T5 has it: without mean and bias.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// A norm of `width` features.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, width: i64, eps: f64) -> Result<Self> {
        Ok(Self { weight: scope.weight_f32("weight", &[width], Init::Ones)?, eps })
    }

    /// Normalises the last axis.
    ///
    /// # Shapes
    /// `x`: [..., width] → the same
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.f_to_kind(Kind::Float)?;
        let mean_square = wide.f_square()?.f_mean_dim(-1_i64, true, Kind::Float)?;
        let normed = wide.f_mul(&mean_square.f_add_scalar(self.eps)?.f_rsqrt()?)?;
        Ok(normed.f_to_kind(x.kind())?.f_mul(&self.weight.f_to_kind(x.kind())?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::NoiseSource as _;
    use crate::weights::Fresh;

    /// Values and gradients are those of libtorch's own kernel, whichever way they were computed, and a map keeps its memory order.
    #[test]
    fn a_turned_map_is_normed_as_any_other() {
        for (channels, groups, side, turned) in
            [(80, 16, 16, true), (320, 16, 8, true), (768, 32, 8, false), (64, 32, 32, false)]
        {
            let waves = |frequency: f64, shape: &[i64]| {
                let count = shape.iter().product::<i64>();
                (Tensor::arange(count, (Kind::Float, Device::Cpu)) * frequency).sin().reshape(shape)
            };
            let mut fresh = Fresh::new(1, Device::Cpu);
            let mut norm = GroupNorm::new(Scope::root(&mut fresh), channels, groups, 1e-5).unwrap();
            norm.weight = waves(1.1, &[channels]).set_requires_grad(true);
            norm.bias = waves(1.3, &[channels]).set_requires_grad(true);
            let shape = [2, channels, side, side];
            let (values, upstream) = (waves(1.7, &shape), waves(2.3, &shape));
            let map = channels_last(&values).unwrap().set_requires_grad(true);
            assert_eq!(norm.is_faster_by_channel(&map), turned, "{channels} channels in {groups} groups, {side} wide");
            let got = norm.forward(&map).unwrap();
            // As in training, what comes back is channels-last, too.
            (&got * channels_last(&upstream).unwrap()).sum(Kind::Float).backward();
            let values = values.set_requires_grad(true);
            let [weight, bias] = [&norm.weight, &norm.bias].map(|x| x.detach().copy().set_requires_grad(true));
            let expected = values.group_norm(groups, Some(&weight), Some(&bias), 1e-5, true);
            (&expected * &upstream).sum(Kind::Float).backward();
            assert_eq!(got.stride(), map.stride());
            let gradients = [(&map, &values), (&norm.weight, &weight), (&norm.bias, &bias)];
            let gradients = gradients.map(|(got, expected)| (got.grad(), expected.grad()));
            for (got, expected) in gradients.into_iter().chain([(got, expected)]) {
                let (apart, size) = ((got - &expected).abs().max(), expected.abs().max());
                assert!(apart.double_value(&[]) < 1e-5 * size.double_value(&[]));
            }
        }
    }

    #[test]
    fn a_map_that_is_not_channels_last_is_not_turned() {
        let norm = GroupNorm::new(Scope::root(&mut Fresh::new(1, Device::Cpu)), 80, 16, 1e-5).unwrap();
        let map = Tensor::zeros([2, 160, 16, 16], (Kind::Float, Device::Cpu));
        assert!(!norm.is_faster_by_channel(&map.narrow(1, 0, 80)));
        assert!(!norm.is_faster_by_channel(&map.narrow(1, 0, 80).contiguous()));
    }

    #[test]
    fn a_row_of_tokens_is_normed_too() {
        let norm = GroupNorm::new(Scope::root(&mut Fresh::new(1, Device::Cpu)), 8, 2, 1e-5).unwrap();
        let tokens = Tensor::arange(48, (Kind::Float, Device::Cpu)).reshape([1, 6, 8]).transpose(1, 2);
        let groups = norm.forward(&tokens).unwrap().reshape([2, 24]);
        assert!(groups.mean_dim(1, false, Kind::Float).abs().max().double_value(&[]) < 1e-5);
    }

    /// With one row the gain and the bias take the modulation in: the result is that of two rows that are alike.
    #[test]
    fn one_row_is_modulated_as_two_are() {
        let mut noise = crate::seed::Noise::new(&[1], 0);
        let mut random = |shape: &[i64]| noise.normal(&[&[1], shape].concat()).unwrap().squeeze_dim(0);
        for norm in [Norm::Group(4), Norm::Position] {
            let mut layer = MapNorm::new(Scope::root(&mut Fresh::new(1, Device::Cpu)), norm, 16, 1e-5).unwrap();
            match &mut layer {
                MapNorm::Group(GroupNorm { weight, bias, .. }) | MapNorm::Position(LayerNorm { weight, bias, .. }) => {
                    (*weight, *bias) = (random(&[16]), random(&[16]));
                }
            }
            let (x, scale, shift) = (random(&[1, 16, 6, 5]), random(&[1, 16, 1, 1]), random(&[1, 16, 1, 1]));
            let expected = &shift + layer.forward(&x).unwrap() * (&scale + 1.0);
            let [x, scale, shift] = [&x, &scale, &shift].map(|x| x.repeat([2, 1, 1, 1]));
            let two = layer.modulated(&x, &scale, &shift).unwrap();
            let one = layer.modulated(&x.narrow(0, 0, 1), &scale.narrow(0, 0, 1), &shift.narrow(0, 0, 1)).unwrap();
            for got in [one, two.narrow(0, 0, 1), two.narrow(0, 1, 1)] {
                assert!((got - &expected).abs().max().double_value(&[]) < 1e-5, "{norm:?}");
            }
        }
    }
}
