//! The numbers of maps, and nonlinearities of one number, written so that a compiler makes vector instructions of them.

#[cfg(test)]
use super::Activation;

/// A number as it lies in memory.
pub(super) trait Number: Copy + Send + Sync {
    fn read(self) -> f32;
    fn write(value: f32) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn read(self) -> f32 {
        self
    }

    #[inline(always)]
    fn write(value: f32) -> Self {
        value
    }
}

/// The upper half of an f32.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Bf16(u16);

impl Number for Bf16 {
    #[inline(always)]
    fn read(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// Rounded to the nearest, of two as near to the even one, as libtorch does.
    #[inline(always)]
    fn write(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
        Self(if value.is_nan() { 0x7fc0 } else { rounded })
    }
}

/// A function of one number.
pub(super) trait Function: Send + Sync {
    fn of(x: f32) -> f32;
}

/// x itself.
pub(super) struct Identity;

impl Function for Identity {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x
    }
}

/// [`Activation::Silu`](crate::nn::Activation::Silu).
pub(super) struct Silu;

impl Function for Silu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x / (1.0 + exp(-x))
    }
}

/// [`Activation::QuickGelu`](crate::nn::Activation::QuickGelu).
pub(super) struct QuickGelu;

impl Function for QuickGelu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x / (1.0 + exp(-1.702 * x))
    }
}

/// [`Activation::Gelu`](crate::nn::Activation::Gelu).
pub(super) struct Gelu;

impl Function for Gelu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
    }
}

/// e^x to two units in the last place, between about 1e-38 and 1e38: smaller and larger results are those at the ends. With n the whole
/// number nearest to x / ln 2 it is 2^n · e^(x - n ln 2), and the latter Cephes' polynomial (`expf.c`).
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// ln 2 in two parts: n times the first is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// Added to a small number, it leaves the nearest whole number in the last bits.
    const SHIFT: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let [most, rest] = LN_2;
    let r = n.mul_add(-rest, n.mul_add(-most, x));
    let terms = [1.398_199_9e-3_f32, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let sum = terms.iter().fold(1.987_569_2e-4_f32, |sum, term| sum.mul_add(r, *term));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    (sum * r).mul_add(r, r + 1.0) * power
}

/// The error function to 3e-7, by the ratio of two polynomials that Eigen has (`generic_fast_erf_float`).
#[inline(always)]
fn erf(x: f32) -> f32 {
    const ABOVE: [f32; 6] =
        [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_4e-4, -2.954_6e-3, -1.609_603_3e-2];
    const BELOW: [f32; 4] = [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let above = ABOVE.iter().fold(-2.726_142_3e-10_f32, |sum, term| sum.mul_add(square, *term));
    let below = BELOW.iter().fold(-1.456_607_2e-5_f32, |sum, term| sum.mul_add(square, *term));
    x * above / below
}

/// Calls `$call` with the type that stands for an activation.
macro_rules! with_function {
    ($activation:expr, $function:ident => $call:expr) => {
        match $activation {
            None => {
                type $function = $crate::nn::fused::number::Identity;
                $call
            }
            Some(Activation::Silu) => {
                type $function = $crate::nn::fused::number::Silu;
                $call
            }
            Some(Activation::Gelu) => {
                type $function = $crate::nn::fused::number::Gelu;
                $call
            }
            Some(Activation::QuickGelu) => {
                type $function = $crate::nn::fused::number::QuickGelu;
                $call
            }
        }
    };
}
pub(super) use with_function;

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;

    fn apart(function: fn(f32) -> f32, activation: Activation) -> f64 {
        let at: Vec<f32> = (-4000..=4000).map(|step| step as f32 * 0.005).collect();
        let values: Vec<f32> = at.iter().map(|&x| function(x)).collect();
        let expected = activation.apply(&Tensor::from_slice(&at).to_kind(Kind::Double)).unwrap();
        let size = expected.abs().clamp_min(1.0);
        ((Tensor::from_slice(&values).to_kind(Kind::Double) - expected) / size).abs().max().double_value(&[])
    }

    #[test]
    fn nonlinearities_are_those_of_libtorch() {
        assert!(apart(Silu::of, Activation::Silu) < 5e-7);
        assert!(apart(Gelu::of, Activation::Gelu) < 2e-6);
        assert!(apart(QuickGelu::of, Activation::QuickGelu) < 2e-6);
        for function in [Silu::of, Gelu::of, QuickGelu::of] {
            assert!(function(f32::NAN).is_nan());
            assert_eq!(function(0.0), 0.0);
            assert!((function(1e30) / 1e30 - 1.0).abs() < 1e-6);
            assert!(function(-1e4).abs() < 1e-2, "{}", function(-1e4));
        }
    }

    #[test]
    fn rounding_is_that_of_libtorch() {
        let values = [1.0, 1.003_906_3, 1.011_718_8, -3.3e38, 1e-40, f32::INFINITY, 0.1, f32::MAX];
        let expected = Tensor::from_slice(&values).to_kind(Kind::BFloat16).to_kind(Kind::Float);
        let got: Vec<f32> = values.iter().map(|&value| Bf16::write(value).read()).collect();
        assert_eq!(Vec::<f32>::try_from(expected).unwrap(), got);
        assert!(Bf16::write(f32::NAN).read().is_nan());
    }
}
