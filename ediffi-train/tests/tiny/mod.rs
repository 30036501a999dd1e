//! A small U-Net and its training.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::nn::Norm;
use ediffi_core::noise::NoiseSource;
use ediffi_core::precondition::Edm;
use ediffi_core::seed::{Noise, image_seeds, stream};
use ediffi_core::unet::{ContextConfig, Dimensions, Efficient, Level, Tokens, UNet};
use ediffi_core::weights::{Fresh, Scope};
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::loss::denoising_loss;
use ediffi_train::noise::NoiseLevels;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::state::TrainState;
use tch::{Device, Kind, Tensor};

pub(crate) const ROWS: usize = 4;

pub(crate) fn config() -> Efficient {
    let level =
        |multiplier, attention| Level { multiplier, blocks: 1, self_attention: attention, cross_attention: attention };
    let t5 = Some(Tokens { tokens: 3, width: 6 });
    Efficient(Dimensions {
        picture_channels: 3,
        low_res: false,
        patch: 2,
        channels: 8,
        levels: vec![level(1, false), level(2, true)],
        head_channels: 8,
        norm: Norm::Group(4),
        embedding_width: 16,
        context: Some(ContextConfig { width: 8, t5, clip_text: None, clip_image: None }),
        detail: None,
    })
}

pub(crate) fn begin_as(seed: u64, device: Device, kind: Kind, settings: AdamWSettings) -> (UNet, TrainState) {
    let mut fresh = Fresh::new(seed, device);
    let network = UNet::new(Scope::root(&mut fresh), &config(), kind).unwrap();
    (network, TrainState::new(fresh.into_named(), settings, 0.99).unwrap())
}

pub(crate) fn begin_on(device: Device, seed: u64) -> (UNet, TrainState) {
    begin_as(seed, device, Kind::Float, AdamWSettings { learning_rate: 1e-2, warm_up: 3, ..AdamWSettings::default() })
}

pub(crate) fn begin(seed: u64) -> (UNet, TrainState) {
    begin_on(Device::Cpu, seed)
}

/// The mean loss of rows `rows` of batch `number`, everything random a pure function of the number.
pub(crate) fn loss(network: &UNet, number: u64, rows: std::ops::Range<usize>) -> Tensor {
    let seeds = image_seeds(100 * number, ROWS);
    let (first, count) = (rows.start as i64, rows.len() as i64);
    let part = |x: Tensor| x.narrow(0, first, count).to_device(network.device());
    let normal = |stage: u64, shape: &[i64]| Noise::new(&seeds, stage).normal(shape).unwrap();
    let clean = part(normal(0, &[ROWS as i64, 3, 8, 8]).tanh());
    let noise = part(normal(1, &[ROWS as i64, 3, 8, 8]));
    let mut rng = stream(9, number);
    let sigmas = NoiseLevels::new(LogNormal::default(), SigmaInterval::ALL).draw(ROWS, &mut rng).unwrap();
    let conditioning = Conditioning { t5: Some(normal(2, &[ROWS as i64, 3, 6])), ..Conditioning::default() };
    let dropped = ConditioningDropout::default().apply(&conditioning, ROWS as i64, &mut rng).unwrap();
    let conditioning = Conditioning { t5: dropped.t5.map(part), ..Conditioning::default() };
    let context = network.context(&conditioning, count).unwrap();
    let losses = denoising_loss(&Edm::default(), &clean, &noise, &sigmas[rows], |x, c_noise| {
        network.forward(x, c_noise, &context, None)
    });
    losses.unwrap().mean(Kind::Float)
}

pub(crate) fn train(network: &UNet, state: &mut TrainState, until: u64) {
    while state.step() < until {
        loss(network, state.step(), 0..ROWS).backward();
        state.update(ROWS as u64, 1).unwrap();
    }
}

/// Every tensor of a file, sorted by name.
pub(crate) fn contents(path: &Path) -> Vec<(String, Tensor)> {
    let mut tensors = Tensor::read_safetensors(path).unwrap();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

pub(crate) fn copies(tensors: &[(String, Tensor)]) -> Vec<Tensor> {
    tensors.iter().map(|(_, t)| t.detach().copy()).collect()
}

pub(crate) fn same(tensors: &[(String, Tensor)], copies: &[Tensor]) -> bool {
    tensors.len() == copies.len() && tensors.iter().zip(copies).all(|((_, a), b)| a == b)
}
