//! The detail head of a network on patches.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod tiny;

use std::collections::HashMap;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::nn::Norm;
use ediffi_core::unet::{Context, DETAIL, DetailConfig, Dimensions, Efficient, UNet, UNetConfig};
use tch::{Device, Kind, Tensor};
use tiny::{Named, conditioning, difference, normal, output, random};

const DETAILED: Option<DetailConfig> = Some(DetailConfig { channels: 8, blocks: 2 });

/// Positions of 2×2 pixels, with or without a head.
fn network(detail: Option<DetailConfig>, norm: Norm, low_res: bool) -> UNetConfig {
    let mut dimensions = Dimensions { patch: 2, detail, norm, low_res, ..tiny::dimensions() };
    // The pictures of these tests are no larger than six pixels.
    dimensions.levels.truncate(1);
    Efficient(dimensions).into()
}

fn is_heads(name: &str) -> bool {
    name.starts_with(&format!("{DETAIL}."))
}

/// Brings the values of `from` into the parameters of `to` that have their names.
fn copy(from: &Named, to: &Named) {
    let _no_grad = tch::no_grad_guard();
    let from: HashMap<_, _> = from.iter().map(|(name, tensor)| (name, tensor)).collect();
    for (name, tensor) in to {
        if let Some(value) = from.get(name) {
            tensor.shallow_clone().copy_(value);
        }
    }
}

#[test]
fn a_new_head_changes_no_bit() {
    for low_res in [false, true] {
        let given = |seeds: &[u64]| {
            let all = conditioning(seeds);
            if low_res { all } else { Conditioning { low_res: None, ..all } }
        };
        let (plain, named) = random(&network(None, Norm::Group(4), low_res));
        let (detailed, head) = tiny::fresh(&network(DETAILED, Norm::Group(4), low_res));
        copy(&named, &head);
        assert_eq!(head.iter().filter(|(name, _)| !is_heads(name)).count(), named.len());
        let [before, after] = [&plain, &detailed].map(|unet| output(unet, &[1, 2], &given(&[1, 2])));
        assert!(before.abs().max().double_value(&[]) > 0.1 && before.equal(&after));
        // One that has learned something changes the picture, each row by itself.
        let (learned, weights) = random(&network(DETAILED, Norm::Group(4), low_res));
        copy(&named, &weights);
        let changed = output(&learned, &[1, 2], &given(&[1, 2]));
        assert!(difference(&changed, &before) > 1e-2);
        let others = output(&learned, &[7, 2], &given(&[7, 2]));
        assert!(changed.narrow(0, 1, 1).equal(&others.narrow(0, 1, 1)));
    }
}

/// What it adds is the sum of what its last convolution makes of its features: with weights of zero and a bias, the bias.
#[test]
fn its_correction_is_added_to_the_estimate() {
    let (plain, named) = random(&network(None, Norm::Group(4), true));
    let (detailed, head) = tiny::fresh(&network(DETAILED, Norm::Group(4), true));
    copy(&named, &head);
    let bias = head.iter().find(|(name, _)| name == "detail.out.bias").unwrap().1.shallow_clone();
    let _ = tch::no_grad(|| bias.shallow_clone().fill_(0.25));
    let [before, after] = [&plain, &detailed].map(|unet| output(unet, &[1], &conditioning(&[1])));
    assert!(difference(&(before + 0.25), &after) < 1e-6);
}

fn evaluated(unet: &UNet, x: &Tensor, context: &Context) -> Tensor {
    unet.forward(x, &Tensor::zeros([1], (Kind::Float, Device::Cpu)), context, None).unwrap()
}

/// Two blocks of two 3×3 convolutions, the first and the last one: six pixels to each side, whatever the patch is. With norms over
/// positions and a network that answers zero, nothing else is seen.
#[test]
fn it_sees_past_the_borders_of_patches_as_far_as_its_convolutions() {
    let (unet, named) = tiny::fresh(&network(DETAILED, Norm::Position, false));
    let (_, jittered) = random(&network(DETAILED, Norm::Position, false));
    let jittered: Named =
        jittered.into_iter().filter(|(name, _)| is_heads(name) && !name.contains("features")).collect();
    copy(&jittered, &named);
    for (name, features) in named.iter().filter(|(name, _)| name.contains("detail.features")) {
        assert!(name.ends_with("weight") || name.ends_with("bias"), "{name}");
        let _ = tch::no_grad(|| features.shallow_clone().zero_());
    }
    let context = unet.context(&Conditioning { low_res: None, ..conditioning(&[1]) }, 1).unwrap();
    let x = normal(&[1], 0, &[3, 8, 40]);
    let mut other = x.copy();
    let _ = other.narrow(3, 20, 1).fill_(3.0);
    let [a, b] = [&x, &other].map(|x| evaluated(&unet, x, &context));
    other = (a - b).abs().amax([0, 1, 2], false);
    let changed: Vec<i64> = (0..40).filter(|&column| other.double_value(&[column]) > 1e-6).collect();
    assert_eq!(changed, (14..=26).collect::<Vec<_>>());
}
