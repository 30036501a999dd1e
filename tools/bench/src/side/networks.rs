//! Networks alone: U-Nets, encoders, and the two products that bound them.

use std::path::Path;
use std::time::Instant;

use ediffi::{Conditioning, Manifest};
use ediffi_core::files::read_json;
use ediffi_core::nn::channels_last;
use ediffi_core::noise::NoiseSource as _;
use ediffi_core::runtime::Runtime;
use ediffi_core::seed::{Noise, image_seeds};
use ediffi_core::unet::{Layout, PublishedUNet, UNet, UNetConfig};
use ediffi_core::weights::{Scope, load};
use ediffi_encoders::{ClipText, ClipVision, T5};
use tch::{Kind, Tensor};

use super::random::Random;
use super::ready::{DEVICE, Ready};
use crate::alternatives;
use crate::result::Result;

/// Noise of the smaller picture, as DeepFloyd's pipelines have it.
const NOISE_LEVEL: i64 = 250;

pub(super) fn published(folder: &Path, rows: i64, side: i64, runtime: Runtime) -> Result<Ready> {
    let config = PublishedUNet::read(&folder.join("unet/config.json"))?;
    let weights = folder.join("unet/diffusion_pytorch_model.safetensors");
    unet(&config.network, &weights, (rows, side, 500.0), runtime)
}

pub(super) fn shipped(stage: &str, rows: i64, side: i64, runtime: Runtime) -> Result<Ready> {
    let model = Path::new("models/icons");
    let manifest = Manifest::read(model)?;
    let config = manifest.stages.iter().find(|config| config.name == stage);
    // The expert for the highest noise: it has the network of its stage.
    let expert = config.and_then(|config| Some((config, config.experts.first()?)));
    let (config, expert) = expert.ok_or_else(|| format!("the shipped model has no stage {stage}"))?;
    let network: UNetConfig = read_json(&model.join(&config.network))?;
    unet(&network, &model.join(&expert.weights), (rows, side, 0.0), runtime)
}

pub(super) fn alternative(name: &str, rows: i64, side: i64, Runtime { kind, .. }: Runtime) -> Result<Ready> {
    let layout = alternatives::layout(name)?;
    let network = UNet::new(Scope::root(&mut Random::new(kind)), layout.as_ref(), kind)?;
    evaluating(network, (rows, side, 500.0))
}

fn unet(
    layout: &dyn Layout,
    weights: &Path,
    given: (i64, i64, f64),
    Runtime { device, kind }: Runtime,
) -> Result<Ready> {
    let network = load(weights, |name| Some(name.to_owned()), device, kind, |scope| UNet::new(scope, layout, kind))?;
    evaluating(network, given)
}

/// One evaluation at the noise level `c_noise`. What the network derives from the text once for a generation is part of the first.
fn evaluating(network: UNet, (rows, side, c_noise): (i64, i64, f64)) -> Result<Ready> {
    let (io, seeds) = (*network.io(), image_seeds(1, usize::try_from(rows)?));
    let normal = |stream: u64, shape: &[i64]| Noise::new(&seeds, stream).normal(shape);
    let picture = [rows, io.channels, side, side];
    let x = normal(0, &picture)?;
    let shapes = io.embeddings;
    let conditioning = Conditioning {
        t5: shapes.t5.map(|t5| normal(1, &[rows, t5.tokens, t5.width])).transpose()?,
        clip_text: shapes.clip_text.map(|text| normal(2, &[rows, text.tokens, text.width])).transpose()?,
        clip_text_pooled: shapes
            .clip_text
            .and_then(|text| text.pooled)
            .map(|width| normal(3, &[rows, width]))
            .transpose()?,
        clip_image: shapes.clip_image.map(|width| normal(4, &[rows, width])).transpose()?,
        micro: shapes.micro.map(|numbers| normal(6, &[rows, numbers])).transpose()?,
        low_res: io.low_res.then(|| normal(5, &picture)).transpose()?,
        noise_level: io.noise_level.then(|| Tensor::f_full([rows], NOISE_LEVEL, (Kind::Int64, DEVICE))).transpose()?,
    };
    let c_noise = Tensor::f_full([rows], c_noise, (Kind::Float, DEVICE))?;
    let mut context = None;
    Ok(Ready::timing(move || {
        let context = match &mut context {
            Some(context) => context,
            none => none.insert(network.context(&conditioning, rows)?),
        };
        Ok(network.forward(&x, &c_noise, context, None)?)
    }))
}

pub(super) fn t5(folder: &Path, text: String, tokens: i64, runtime: Runtime) -> Result<Ready> {
    let t5 = T5::open(folder, runtime)?;
    Ok(Ready::timing(move || Ok(t5.encode(&[&text], tokens)?)))
}

pub(super) fn clip_text(folder: &Path, text: String, runtime: Runtime) -> Result<Ready> {
    let clip = ClipText::open(folder, runtime)?;
    Ok(Ready::timing(move || Ok(clip.encode(&[&text], 77)?)))
}

pub(super) fn clip_image(folder: &Path, runtime: Runtime) -> Result<Ready> {
    let clip = ClipVision::open(folder, runtime)?;
    let side = clip.config().image_size;
    let picture = Tensor::f_zeros([3, side, side], (Kind::Uint8, DEVICE))?;
    Ok(Ready::timing(move || Ok(clip.encode(std::slice::from_ref(&picture))?)))
}

/// The fastest of several shapes, so that what bounds a network is the machine and not the shape.
pub(super) fn limit(product: bool, runtime: Runtime) -> Result<Ready> {
    let mut candidates = if product { products(runtime)? } else { convolutions(runtime)? };
    let mut best: Option<(f64, usize)> = None;
    for (index, (flop, work)) in candidates.iter_mut().enumerate() {
        let _ = work()?;
        let began = Instant::now();
        let _ = work()?;
        let rate = *flop / began.elapsed().as_secs_f64();
        if best.is_none_or(|(other, _)| rate > other) {
            best = Some((rate, index));
        }
    }
    let (_, index) = best.ok_or("there is no shape to measure")?;
    let (flop, work) = candidates.swap_remove(index);
    Ok(Ready { flop: Some(flop), ..Ready::timing(work) })
}

/// How much a product computes, and what computes it.
type Product = (f64, Box<dyn FnMut() -> Result<Tensor>>);

fn convolutions(Runtime { kind, .. }: Runtime) -> Result<Vec<Product>> {
    let shapes = [(16, 256, 32), (2, 192, 64), (2, 384, 32), (2, 576, 16)];
    let convolution = |(rows, channels, side): (i64, i64, i64)| -> Result<Product> {
        let random = |shape: [i64; 4]| Tensor::f_randn(shape, (Kind::Float, DEVICE))?.f_to_kind(kind);
        let x = channels_last(&random([rows, channels, side, side])?)?;
        let weight = channels_last(&random([channels, channels, 3, 3])?)?;
        let work = move || Ok(x.f_conv2d(&weight, None::<&Tensor>, [1], [1], [1], 1)?);
        Ok(((2 * 9 * channels * channels * side * side * rows) as f64, Box::new(work)))
    };
    shapes.into_iter().map(convolution).collect()
}

fn products(Runtime { kind, .. }: Runtime) -> Result<Vec<Product>> {
    let product = |n: i64| -> Result<Product> {
        let random = || Tensor::f_randn([n, n], (Kind::Float, DEVICE))?.f_to_kind(kind);
        let (a, b) = (random()?, random()?);
        let work = move || Ok(a.f_matmul(&b)?);
        Ok(((2 * n * n * n) as f64, Box::new(work)))
    };
    [1024, 2048].into_iter().map(product).collect()
}
