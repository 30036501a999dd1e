//! Paint-with-words in the networks of Stable Diffusion, and their training: what the other layouts promise.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ediffi_core::conditioning::Conditioning;
use ediffi_core::nn::{Bias, ScoreBias, Site};
use ediffi_core::noise::NoiseSource as _;
use ediffi_core::seed::Noise;
use ediffi_core::unet::parts::Micro;
use ediffi_core::unet::{Beside, ClipText, LatentLevel, Painted, Place, StableDiffusion, Transformers, UNet};
use ediffi_core::weights::{Fresh, Scope};
use ediffi_core::window::Window;
use tch::{Device, Kind, Tensor};

/// A small network of SDXL's kind: three attentions to the text on the finer level's way down and up, two in the middle.
fn layout() -> StableDiffusion {
    let transformers = Transformers { heads: 2, depth: 1 };
    StableDiffusion {
        latent_channels: 4,
        levels: vec![
            LatentLevel { channels: 8, blocks: 1, transformers: Some(transformers) },
            LatentLevel { channels: 8, blocks: 1, transformers: None },
        ],
        middle: Transformers { heads: 4, depth: 2 },
        groups: 4,
        norm_eps: 1e-5,
        activation: ediffi_core::nn::Activation::Silu,
        embedding_width: 16,
        text: ClipText { tokens: 5, width: 6, pooled: Some(3) },
        micro: Some(Micro { numbers: 6, width: 4 }),
        beside: None,
        linear_projection: true,
        upcast_attention: false,
        middle_scale: 1.0,
    }
}

/// The network with random numbers in the place of the zeros and ones that it starts with, and its parameters.
fn network() -> (UNet, BTreeMap<String, Tensor>) {
    let mut fresh = Fresh::new(1, Device::Cpu);
    let unet = UNet::new(Scope::root(&mut fresh), &layout(), Kind::Float).unwrap();
    let named: BTreeMap<String, Tensor> = fresh.into_named().into_iter().collect();
    for (stream, tensor) in named.values().enumerate() {
        let noise = Noise::new(&[9], stream as u64).normal(&[&[1], tensor.size().as_slice()].concat()).unwrap();
        tch::no_grad(|| tensor.shallow_clone().copy_(&(tensor + noise.squeeze_dim(0) * 0.2)));
    }
    (unet, named)
}

const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn normal(stream: u64, shape: &[i64]) -> Tensor {
    Noise::new(&SEEDS, stream).normal(&[&[4], shape].concat()).unwrap()
}

fn conditioning() -> Conditioning {
    Conditioning {
        clip_text: Some(normal(1, &[5, 6])),
        clip_text_pooled: Some(normal(2, &[3])),
        micro: Some(normal(3, &[6]) * 100.0),
        ..Conditioning::default()
    }
}

fn forward(unet: &UNet, painted: Option<Painted<'_>>) -> Tensor {
    let context = unet.context(&conditioning(), 4).unwrap();
    let timesteps = Tensor::from_slice(&[1.0_f32, 20.0, 400.5, 981.0]);
    unet.forward(&normal(0, &[4, 4, 6]), &timesteps, &context, painted).unwrap()
}

/// Keeps the shape of every site; pulls towards the second word if it paints.
#[derive(Debug, Default)]
struct Hook {
    seen: Arc<Mutex<Vec<Vec<i64>>>>,
    paint: Option<f64>,
}

impl ScoreBias for Hook {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        self.seen.lock().unwrap().push(site.shape());
        let Some(weight) = self.paint else { return Ok(None) };
        let bias = site.scores()?.f_zeros_like()?;
        let _ = bias.f_narrow(3, 1, 1)?.f_fill_(weight)?;
        Ok(Some(Bias::Dense(bias)))
    }
}

fn painted(hook: &Hook) -> Option<Painted<'_>> {
    Some(Painted { hook, sigma: 1.5, conditional: 2, window: Window::WHOLE })
}

/// Of the attentions only those to the text ask the hook, once each, and for the words of the conditional rows.
#[test]
fn a_hook_that_paints_nothing_changes_no_bit() {
    let (unet, _) = network();
    let hook = Hook::default();
    assert!(forward(&unet, None).equal(&forward(&unet, painted(&hook))));
    let (fine, middle) = (vec![2, 2, 24, 5], vec![2, 4, 6, 5]);
    let expected = [fine.clone(), middle.clone(), middle, fine.clone(), fine];
    assert_eq!(*hook.seen.lock().unwrap(), expected);
}

#[test]
fn paint_reaches_conditional_rows_only() {
    let (unet, _) = network();
    let plain = forward(&unet, None);
    let nothing = Hook { paint: Some(0.0), ..Hook::default() };
    assert!((&plain - forward(&unet, painted(&nothing))).abs().max().double_value(&[]) < 1e-5);
    let hook = Hook { paint: Some(4.0), ..Hook::default() };
    let off = (&plain - forward(&unet, painted(&hook))).abs().amax([1, 2, 3], false);
    let off = Vec::<f64>::try_from(off).unwrap();
    assert!(off[0] > 1e-3 && off[1] > 1e-3 && off[2] < 1e-5 && off[3] < 1e-5, "{off:?}");
}

/// A word towards which the paint pulls with all its might is the only one that is read.
#[test]
fn a_word_can_be_all_that_is_read() {
    let (unet, _) = network();
    let hook = Hook { paint: Some(1e4), ..Hook::default() };
    let expected = forward(&unet, painted(&hook));
    let mut alone = conditioning();
    alone.clip_text = alone.clip_text.map(|text| text.narrow(1, 1, 1).repeat([1, 5, 1]));
    let context = unet.context(&alone, 4).unwrap();
    let timesteps = Tensor::from_slice(&[1.0_f32, 20.0, 400.5, 981.0]);
    let found = unet.forward(&normal(0, &[4, 4, 6]), &timesteps, &context, None).unwrap();
    let off = (found - expected).narrow(0, 0, 2).abs().max().double_value(&[]);
    assert!(off < 1e-5, "{off}");
}

#[test]
fn every_parameter_gets_a_gradient() {
    let (unet, named) = network();
    let named: BTreeMap<_, _> = named.into_iter().map(|(name, x)| (name, x.set_requires_grad(true))).collect();
    forward(&unet, None).square().mean(Kind::Float).backward();
    for (name, tensor) in named {
        assert!(tensor.grad().defined() && tensor.grad().abs().max().double_value(&[]) > 0.0, "{name}");
    }
}

/// What stands beside the inputs of a network changes nothing.
#[test]
fn a_network_takes_its_part_of_wider_embeddings() {
    let (_, named) = network();
    let (plain, x) = (conditioning(), normal(5, &[4, 4, 4]));
    let evaluate = |layout: &StableDiffusion, conditioning: &Conditioning| {
        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("weights.safetensors");
        let pairs: Vec<_> = named.iter().map(|(name, x)| (name.clone(), x.shallow_clone())).collect();
        ediffi_core::weights::save(&path, &pairs, std::collections::HashMap::new()).unwrap();
        let names = |name: &str| Some(name.to_owned());
        let build = |scope: Scope<'_>| UNet::new(scope, layout, Kind::Float);
        let unet = ediffi_core::weights::load(&path, names, Device::Cpu, Kind::Float, build).unwrap();
        let context = unet.context(conditioning, 4).unwrap();
        tch::no_grad(|| unet.forward(&x, &Tensor::from_slice(&[3.0_f32; 4]), &context, None).unwrap())
    };
    let place = |first, all| Place { first, all };
    let beside = Beside { text: place(2, 9), pooled: place(0, 4), numbers: place(5, 11) };
    let wide = |x: &Option<Tensor>, Place { first, all }: Place, stream| {
        let x = x.as_ref().unwrap();
        let mut shape = x.size();
        *shape.last_mut().unwrap() = all;
        let wide = normal(stream, &shape[1..]);
        wide.narrow(-1, first, *x.size().last().unwrap()).copy_(x);
        Some(wide)
    };
    let given = Conditioning {
        clip_text: wide(&plain.clip_text, beside.text, 31),
        clip_text_pooled: wide(&plain.clip_text_pooled, beside.pooled, 32),
        micro: wide(&plain.micro, beside.numbers, 33),
        ..Conditioning::default()
    };
    let layout_beside = StableDiffusion { beside: Some(beside), ..layout() };
    let off = (evaluate(&layout_beside, &given) - evaluate(&layout(), &plain)).abs().max().double_value(&[]);
    // A matrix that is a part of another is multiplied in another order.
    assert!(off < 1e-5, "{off}");
    assert!(
        (evaluate(&StableDiffusion { beside: Some(Beside { text: place(0, 9), ..beside }), ..layout() }, &given)
            - evaluate(&layout(), &plain))
        .abs()
        .max()
        .double_value(&[])
            > 1e-3
    );
    let outside = Beside { text: place(4, 9), ..beside };
    let error = UNet::new(
        Scope::root(&mut Fresh::new(1, Device::Cpu)),
        &StableDiffusion { beside: Some(outside), ..layout() },
        Kind::Float,
    );
    assert!(error.unwrap_err().to_string().contains("beside"));
}
