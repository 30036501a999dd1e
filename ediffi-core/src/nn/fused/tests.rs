//! Norms in one pass, beside libtorch's own operations one by one.

use tch::{Device, Kind, Tensor};

use super::{Around, Parameters, over_groups, over_positions};
use crate::nn::{Activation, MapNorm, Norm, channels_last};
use crate::weights::{Fresh, Scope};

const EPS: f64 = 1e-5;

/// A norm with gains and biases that are not those of a start.
fn norm(norm: Norm, channels: i64) -> MapNorm {
    let mut fresh = Fresh::new(1, Device::Cpu);
    let norm = MapNorm::new(Scope::root(&mut fresh), norm, channels, EPS).unwrap();
    for (frequency, (_, mut parameter)) in [1.1, 1.3].into_iter().zip(fresh.into_named()) {
        tch::no_grad(|| parameter.copy_(&waves(frequency, &[channels])));
    }
    norm
}

fn waves(frequency: f64, shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>();
    (Tensor::arange(count, (Kind::Float, Device::Cpu)) * frequency).sin().reshape(shape)
}

/// A map whose channels have other means, as those of networks do.
fn map(shape: [i64; 4], kind: Kind) -> Tensor {
    let x = waves(1.7, &shape) + waves(0.3, &[1, shape[1], 1, 1]) * 2.0;
    channels_last(&x.to_kind(kind)).unwrap()
}

/// libtorch's operations, which a map gets that wants a gradient.
fn one_by_one(norm: &MapNorm, x: &Tensor, around: &Around<'_>) -> Tensor {
    norm.forward_in(&x.detach().copy().set_requires_grad(true), around).unwrap().detach()
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = [a, b].map(|x| x.to_kind(Kind::Double));
    (&a - &b).abs().max().double_value(&[]) / b.abs().max().double_value(&[])
}

#[test]
fn one_pass_gives_what_the_operations_give() {
    let shapes =
        [([2, 64, 16, 16], 32), ([1, 160, 24, 40], 32), ([3, 20, 5, 7], 4), ([1, 12, 1, 1], 3), ([2, 96, 12, 11], 1)];
    for (shape, groups) in shapes {
        let [n, channels, ..] = shape;
        let of_rows = |frequency, rows| waves(frequency, &[rows, channels, 1, 1]);
        let (added, scale, shift) = (of_rows(2.3, n), of_rows(0.7, n), of_rows(0.9, 1));
        for kind in [Kind::Float, Kind::BFloat16] {
            let [added, scale, shift] = [&added, &scale, &shift].map(|x| x.to_kind(kind));
            let x = map(shape, kind);
            let activations = [None, Some(Activation::Silu), Some(Activation::Gelu), Some(Activation::QuickGelu)];
            for (norm, activation) in [Norm::Group(groups), Norm::Position]
                .map(|kind| norm(kind, channels))
                .iter()
                .flat_map(|norm| activations.map(|activation| (norm, activation)))
            {
                for around in [
                    Around { activation, ..Around::default() },
                    Around { activation, modulation: Some([&scale, &shift]), ..Around::default() },
                    Around { activation, modulation: Some([&shift, &shift]), ..Around::default() },
                    Around { activation, added: Some(&added), ..Around::default() },
                    Around { activation, kind: Some(Kind::Float), ..Around::default() },
                ] {
                    let got = norm.forward_in(&x, &around).unwrap();
                    let added = around.added.map(|x| x.to_kind(Kind::Float));
                    let modulation = around.modulation.map(|pair| pair.map(|x| x.to_kind(Kind::Float)));
                    let exact = Around {
                        added: added.as_ref(),
                        modulation: modulation.as_ref().map(|[scale, shift]| [scale, shift]),
                        kind: Some(Kind::Float),
                        activation,
                    };
                    let expected = one_by_one(norm, &x.to_kind(Kind::Float), &exact);
                    assert_eq!(got.kind(), around.kind.unwrap_or(kind));
                    assert!(got.permute([0, 2, 3, 1]).is_contiguous());
                    let rounding = if got.kind() == Kind::BFloat16 { 0.008 } else { 5e-6 };
                    let off = apart(&got, &expected);
                    assert!(off < rounding, "{off:.1e} of {norm:?}, {shape:?}, {kind:?}, {around:?}");
                }
            }
        }
    }
}

/// Without this, the test above would compare libtorch's operations with themselves.
#[test]
fn one_pass_is_taken_where_it_can_be() {
    let [weight, bias] = [1.1, 1.3].map(|frequency| waves(frequency, &[64]));
    let parameters = Parameters { weight: &weight, bias: &bias, eps: EPS };
    let around = Around::default();
    let taken = |x: &Tensor, parameters| {
        let both = [over_groups(x, 32, parameters, &around), over_positions(x, parameters, &around)];
        both.map(|y| y.unwrap().is_some())
    };
    let x = map([2, 64, 8, 8], Kind::Float);
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) && std::arch::is_x86_feature_detected!("avx2") {
        assert_eq!(taken(&x, parameters), [true; 2]);
        assert_eq!(taken(&x.to_kind(Kind::BFloat16), parameters), [true; 2]);
    }
    let trained = weight.copy().set_requires_grad(true);
    assert_eq!(taken(&x.contiguous(), parameters), [false; 2], "channels-first");
    assert_eq!(taken(&x.narrow(1, 0, 32), parameters), [false; 2], "half of the channels");
    assert_eq!(taken(&x.to_kind(Kind::Double), parameters), [false; 2], "f64");
    assert_eq!(taken(&x.copy().set_requires_grad(true), parameters), [false; 2], "a gradient");
    assert_eq!(taken(&x, Parameters { weight: &trained, ..parameters }), [false; 2], "a gradient of the gain");
    assert_eq!(taken(&x.narrow(0, 0, 0), parameters), [false; 2], "no rows");
}

/// Neither its neighbours nor the number of threads change a row.
#[test]
fn a_row_is_the_same_in_every_batch() {
    let x = map([4, 48, 40, 40], Kind::BFloat16);
    for norm in [norm(Norm::Group(16), 48), norm(Norm::Position, 48)] {
        let around = Around { activation: Some(Activation::Silu), ..Around::default() };
        let whole = norm.forward_in(&x, &around).unwrap();
        let threads = tch::get_num_threads();
        tch::set_num_threads(1);
        let alone = norm.forward_in(&x.narrow(0, 2, 1), &around).unwrap();
        tch::set_num_threads(threads);
        assert_eq!(whole.narrow(0, 2, 1), alone);
    }
}

/// A NaN stays in its group, and in its position.
#[test]
fn a_nan_is_not_hidden() {
    let x = map([1, 64, 8, 8], Kind::Float);
    let _ = x.narrow(1, 5, 1).narrow(2, 3, 1).narrow(3, 2, 1).fill_(f64::NAN);
    let around = Around { activation: Some(Activation::Silu), ..Around::default() };
    for (norm, expected) in [(norm(Norm::Group(32), 64), 2 * 64), (norm(Norm::Position, 64), 64)] {
        let y = norm.forward_in(&x, &around).unwrap();
        assert_eq!(y.isnan().sum(Kind::Int64).int64_value(&[]), expected);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = map([1, 64, 8, 8], Kind::Float);
    let other = waves(1.0, &[1, 48, 1, 1]);
    for norm in [norm(Norm::Group(32), 64), norm(Norm::Position, 64)] {
        let modulated = Around { modulation: Some([&other, &other]), ..Around::default() };
        assert!(norm.forward_in(&x, &modulated).is_err());
        assert!(norm.forward_in(&x, &Around { added: Some(&other), ..Around::default() }).is_err());
        assert!(norm.forward(&map([1, 48, 8, 8], Kind::Float)).is_err());
    }
}
