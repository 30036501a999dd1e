//! Tiny networks of the paper's layouts, and what goes into them.
#![allow(clippy::unwrap_used, dead_code, reason = "a failed unwrap is a failed test; each test program uses its part")]

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::nn::{Norm, Painted};
use ediffi_core::noise::NoiseSource;
use ediffi_core::seed::Noise;
use ediffi_core::unet::{
    Adm, ClipText, Context, ContextConfig, Dimensions, Efficient, Level, Tokens, UNet, UNetConfig,
};
use ediffi_core::weights::{self, Fresh, Scope};
use tch::{Device, Kind, Tensor};

pub(crate) type Named = Vec<(String, Tensor)>;

/// Everything that a network can have, small: sides are multiples of 2.
pub(crate) fn dimensions() -> Dimensions {
    let level =
        |multiplier, attention| Level { multiplier, blocks: 1, self_attention: attention, cross_attention: attention };
    Dimensions {
        picture_channels: 3,
        low_res: true,
        patch: 1,
        channels: 8,
        levels: vec![level(1, false), level(2, true)],
        head_channels: 4,
        norm: Norm::Group(4),
        embedding_width: 16,
        context: Some(ContextConfig {
            width: 8,
            t5: Some(Tokens { tokens: 3, width: 6 }),
            clip_text: Some(ClipText { tokens: 2, width: 5, pooled: Some(4) }),
            clip_image: Some(4),
        }),
        detail: None,
    }
}

/// Both layouts of the paper.
pub(crate) fn layouts() -> [UNetConfig; 2] {
    [Adm(dimensions()).into(), Efficient(dimensions()).into()]
}

pub(crate) fn adm() -> UNetConfig {
    Adm(dimensions()).into()
}

/// A network about to be trained, and its parameters.
pub(crate) fn fresh(config: &UNetConfig) -> (UNet, Named) {
    let mut fresh = Fresh::new(1, Device::Cpu);
    let unet = UNet::new(Scope::root(&mut fresh), config, Kind::Float).unwrap();
    (unet, fresh.into_named())
}

/// A network of random weights in which nothing is a zero or the identity: its parameters are shared with `fresh`'s.
pub(crate) fn random(config: &UNetConfig) -> (UNet, Named) {
    let (unet, named) = fresh(config);
    let mut noise = Noise::new(&[2], 0);
    let _no_grad = tch::no_grad_guard();
    for (_, x) in &named {
        let jitter = noise.normal(&[1, x.numel() as i64]).unwrap().view_as(x) * 0.1;
        let _ = x.shallow_clone().g_add_(&jitter);
    }
    (unet, named)
}

pub(crate) fn normal(seeds: &[u64], stage: u64, shape: &[i64]) -> Tensor {
    let shape: Vec<i64> = std::iter::once(seeds.len() as i64).chain(shape.iter().copied()).collect();
    Noise::new(seeds, stage).normal(&shape).unwrap()
}

/// Embeddings and the smaller picture, each row from its own seed.
pub(crate) fn conditioning(seeds: &[u64]) -> Conditioning {
    Conditioning {
        t5: Some(normal(seeds, 1, &[3, 6])),
        clip_text: Some(normal(seeds, 2, &[2, 5])),
        clip_text_pooled: Some(normal(seeds, 3, &[4])),
        clip_image: Some(normal(seeds, 4, &[4])),
        low_res: Some(normal(seeds, 5, &[3, 8, 6])),
        micro: None,
        noise_level: None,
    }
}

pub(crate) fn forward(unet: &UNet, seeds: &[u64], context: &Context, painted: Option<Painted<'_>>) -> Tensor {
    let c_noise = Tensor::full([seeds.len() as i64], 0.3, (Kind::Float, Device::Cpu));
    unet.forward(&normal(seeds, 0, &[3, 8, 6]), &c_noise, context, painted).unwrap()
}

pub(crate) fn output(unet: &UNet, seeds: &[u64], conditioning: &Conditioning) -> Tensor {
    forward(unet, seeds, &unet.context(conditioning, seeds.len() as i64).unwrap(), None)
}

pub(crate) fn load(path: &Path, config: &UNetConfig) -> ediffi_core::Result<UNet> {
    let names = |name: &str| Some(name.to_owned());
    weights::load(path, names, Device::Cpu, Kind::Float, |scope| UNet::new(scope, config, Kind::Float))
}

pub(crate) fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max()).unwrap()
}
