//! Norms in bf16: their statistics are f32.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::devices;
use ediffi_core::nn::{GroupNorm, LayerNorm, RmsNorm, channels_last};
use ediffi_core::noise::NoiseSource;
use ediffi_core::seed::Noise;
use ediffi_core::weights::{Fresh, Scope};
use tch::{Kind, Tensor};

const EPS: f64 = 1e-5;

/// (x − mean) / √(variance + ε) over the last axis, in f64.
fn normed(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Double);
    let centred = &x - x.mean_dim(-1_i64, true, Kind::Double);
    let variance = centred.square().mean_dim(-1_i64, true, Kind::Double);
    centred / (variance + EPS).sqrt()
}

/// The rounding of the result to bf16, up to 2⁻⁸ of it, is all that may be lost. Statistics in bf16 would lose more: a mean of 4 is
/// off by up to 2⁻⁶, which is 2⁻⁵ of the spread.
fn check(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.kind(), Kind::BFloat16, "{name}");
    let excess = (found.to_kind(Kind::Double) - expected).abs() - expected.abs() * 2_f64.powi(-8);
    let excess = excess.max().double_value(&[]);
    assert!(excess < 1e-5, "{name} is off by {excess:.1e} more than its result is rounded");
}

#[test]
fn statistics_are_f32() {
    let (n, channels, groups, height, width) = (2, 12, 3, 10, 6);
    for device in devices() {
        let x = Noise::new(&[1, 2], 0).normal(&[n, channels, height, width]).unwrap() * 0.5 + 4.0;
        let x = x.to_device(device).to_kind(Kind::BFloat16);
        let mut fresh = Fresh::new(1, device);
        let group = GroupNorm::new(Scope::root(&mut fresh), channels, groups, EPS).unwrap();
        let layer = LayerNorm::new(Scope::root(&mut fresh), width, EPS).unwrap();
        let rms = RmsNorm::new(Scope::root(&mut fresh), width, EPS).unwrap();

        let expected = normed(&x.view([n, groups, -1])).view([n, channels, height, width]);
        check("group norm", &group.forward(&x).unwrap(), &expected);
        check("group norm, channels last", &group.forward(&channels_last(&x).unwrap()).unwrap(), &expected);
        check("layer norm", &layer.forward(&x).unwrap(), &normed(&x));
        let wide = x.to_kind(Kind::Double);
        let mean_square = wide.square().mean_dim(-1_i64, true, Kind::Double);
        check("RMS norm", &rms.forward(&x).unwrap(), &(wide / (mean_square + EPS).sqrt()));
        assert_eq!(group.forward(&x).unwrap().device(), device);
    }
}
