//! The linear maps of T5, whose weights are nearly all of the model.

use ediffi_core::weights::{Init, Role, Scope};
use ediffi_core::{Result, interrupt};
use tch::{Kind, Tensor};

/// How the weights of the linear maps are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum T5Weights {
    /// In the precision of the network.
    #[default]
    Full,
    /// In eight bits, with a scale for each output: half the memory of bf16. A weight w becomes the whole number nearest to w / s,
    /// where s is the size of the largest weight of its output over 127, rounded to bf16. The network then computes in bf16. On the
    /// CPU only. A map whose inputs are no multiple of 64 stays in full, as do parameters that may change
    /// ([`Scope::is_fixed`]); published models have no such map.
    Int8,
}

impl T5Weights {
    /// What the network computes in where `kind` is asked for.
    pub(super) fn computes_in(self, kind: Kind) -> Kind {
        if self == Self::Int8 { Kind::BFloat16 } else { kind }
    }
}

/// libtorch's product of eight bits reads whole vectors of inputs, also beyond the end of a weight. 64 is a multiple of the numbers in
/// a vector of any processor, and the inputs of all published models are multiples of it.
const WHOLE_VECTORS: i64 = 64;

/// y = x Wᵀ.
#[derive(Debug)]
pub(super) enum Product {
    /// [outputs, inputs]
    Full(Tensor),
    /// Whole numbers [outputs, inputs], and what they are multiplied by, `[outputs]` bf16.
    Int8 { weight: Tensor, scale: Tensor },
}

impl Product {
    /// From `inputs` to `outputs` numbers. Weights in full are held as `role` says.
    pub(super) fn new(
        mut scope: Scope<'_>,
        (inputs, outputs): (i64, i64),
        init: Init,
        weights: T5Weights,
        role: Role,
    ) -> Result<Self> {
        let shape = [outputs, inputs];
        match weights {
            T5Weights::Int8 if inputs % WHOLE_VECTORS == 0 && scope.is_fixed() => {
                Self::int8(&scope.lend("weight", &shape, init, Role::Stored)?.tensor()?)
            }
            _ => Ok(Self::Full(scope.get("weight", &shape, init, role)?)),
        }
    }

    fn int8(weight: &Tensor) -> Result<Self> {
        let weight = weight.f_to_kind(Kind::Float)?;
        let scale = weight.f_abs()?.f_amax([1], true)?.f_div_scalar(127.0)?.f_to_kind(Kind::BFloat16)?;
        // Divided by the scale as it is held. An output whose weights are all zero has none.
        let divisor = scale.f_to_kind(Kind::Float)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        let whole = weight.f_div(&divisor)?.f_round()?.f_clamp(-127.0, 127.0)?.f_to_kind(Kind::Int8)?;
        Ok(Self::Int8 { weight: whole, scale: scale.f_squeeze_dim(1)? })
    }

    /// # Shapes
    /// `x`: [..., inputs] → [..., outputs]
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        interrupt::check()?;
        match self {
            Self::Full(weight) => Ok(x.f_linear(&weight.f_to_kind(x.kind())?, None::<&Tensor>)?),
            Self::Int8 { weight, scale } => {
                let mut shape = x.size();
                let rows = x.f_flatten(0, -2)?.f_contiguous()?;
                let y = rows.f_internal_weight_int8pack_mm(weight, scale)?;
                if let Some(last) = shape.last_mut() {
                    *last = -1;
                }
                Ok(y.f_reshape(shape)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ediffi_core::weights::Fresh;
    use tch::Device;

    use super::*;

    fn product(inputs: i64, weights: T5Weights) -> Product {
        let mut loaded = Fresh::new(1, Device::Cpu).fixed();
        Product::new(Scope::root(&mut loaded), (inputs, 96), Init::fan_in(inputs), weights, Role::Weight).unwrap()
    }

    /// A weight is off by half of its output's step at most, the largest one by what the rounding of the step to bf16 takes from it, too.
    #[test]
    fn eight_bits_are_within_a_step() {
        let weight = Tensor::from_slice(&[0.1_f32, -1.27, 0.005, 0.0, 0.0, 0.0, 3.0, 2.0, -1.0]).reshape([3, 3]);
        let Product::Int8 { weight: whole, scale } = Product::int8(&weight).unwrap() else { panic!("not in 8 bits") };
        let back = whole.to_kind(Kind::Float) * scale.to_kind(Kind::Float).unsqueeze(1);
        let steps = (back - &weight).abs() / (scale.to_kind(Kind::Float).unsqueeze(1) + 1e-30);
        assert!(steps.max().double_value(&[]) <= 0.5 + 0.26, "{steps}");
        assert_eq!(Vec::<i64>::try_from(whole.get(1)).unwrap(), [0, 0, 0]);
        assert_eq!(whole.int64_value(&[2, 0]), 127);
    }

    #[test]
    fn a_product_in_eight_bits_is_near_that_in_full() {
        let x = Tensor::arange(2 * 5 * 256, (Kind::Float, Device::Cpu)).sin().reshape([2, 5, 256]);
        let full = product(256, T5Weights::Full).forward(&x).unwrap();
        let int8 = product(256, T5Weights::Int8).forward(&x.to_kind(Kind::BFloat16)).unwrap();
        assert_eq!((int8.size(), int8.kind()), (full.size(), Kind::BFloat16));
        let off = (int8.to_kind(Kind::Float) - &full).norm().double_value(&[]) / full.norm().double_value(&[]);
        assert!(off > 1e-3 && off < 2e-2, "{off:.1e}");
    }

    /// libtorch would read beyond the end of the weight.
    #[test]
    fn inputs_that_fill_no_whole_vectors_stay_in_full() {
        for (inputs, int8) in [(12, false), (33, false), (96, false), (64, true), (128, true)] {
            assert_eq!(matches!(product(inputs, T5Weights::Int8), Product::Int8 { .. }), int8, "{inputs}");
        }
    }
}
