//! A layout that this file alone knows: adding one edits nothing else.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::nn::{Activation, Conv2d, MapNorm, Norm};
use ediffi_core::noise::NoiseSource;
use ediffi_core::seed::Noise;
use ediffi_core::unet::parts::{
    CrossAttention, Heads, Modulation, ResBlock, ResBlockConfig, Resample, Sinusoids, TimeEmbedding, Trunk,
};
use ediffi_core::unet::{Block, Body, ContextSource, EmbeddingShapes, Encoded, Io, Layout, Pass, Tokens, UNet};
use ediffi_core::weights::{Fresh, Init, Scope};
use ediffi_core::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Channels of the picture, of the maps, of the noise embedding and of the tokens; heads and tokens.
const PICTURE: i64 = 4;
const WIDTH: i64 = 6;
const EMBEDDING: i64 = 8;
const TEXT: i64 = 5;
const HEADS: i64 = 2;
const TOKENS: i64 = 3;
const EPS: f64 = 1e-5;

/// Latents of four channels, a skip around one residual block to which the noise embedding is added, attention with a number
/// of heads, and a block of its own. `wrong` leaves something out.
#[derive(Debug, Default)]
struct Toy {
    wrong: Option<Wrong>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    SkipKept,
    SkipMissing,
    SkipTaken,
    KeysMissing,
}

impl Layout for Toy {
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn io(&self) -> Io {
        let t5 = Some(Tokens { tokens: TOKENS, width: TEXT });
        let embeddings = EmbeddingShapes { t5, ..EmbeddingShapes::default() };
        Io { channels: PICTURE, variance: false, low_res: false, embeddings, size_multiple: 1, noise_level: false }
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<Body> {
        let sinusoids = Sinusoids { width: EMBEDDING, multiply_first: true };
        let time = TimeEmbedding::new(scope.again(), ["t1", "t2"], sinusoids, EMBEDDING, Activation::Silu)?;
        let stem = Conv2d::new(scope.at("in"), PICTURE, WIDTH, 3)?;
        let mut trunk = Trunk::new(scope.again(), WIDTH);
        if self.wrong != Some(Wrong::SkipMissing) {
            trunk.push();
        }
        trunk.add("res".to_owned(), WIDTH, |scope, inputs| ResBlock::new(scope, residual(inputs)))?;
        trunk.add("attention".to_owned(), WIDTH, |scope, width| {
            CrossAttention::new(scope, (width, TEXT), Heads::Count(HEADS), Norm::Position, EPS)
        })?;
        if self.wrong != Some(Wrong::SkipKept) {
            trunk.concat(0.5)?;
        }
        let taken = self.wrong == Some(Wrong::SkipTaken);
        trunk.add("gain".to_owned(), 2 * WIDTH, |scope, channels| Gain::new(scope, channels, taken))?;
        let context: Option<Box<dyn ContextSource>> = match self.wrong {
            Some(Wrong::KeysMissing) => None,
            _ => Some(Box::new(Plain)),
        };
        Ok(Body {
            context,
            time,
            time_activation: Activation::Gelu,
            patch: 1,
            stem,
            blocks: trunk.finish()?,
            norm: MapNorm::new(scope.at("norm"), Norm::Position, 2 * WIDTH, EPS)?,
            activation: Activation::Silu,
            out: Conv2d::zeroed(scope.at("out"), 2 * WIDTH, PICTURE, 3)?,
            detail: None,
        })
    }
}

fn residual(inputs: i64) -> ResBlockConfig {
    ResBlockConfig {
        inputs,
        outputs: WIDTH,
        embedding_width: EMBEDDING,
        norm: Norm::Group(3),
        eps: EPS,
        activation: Activation::Silu,
        modulation: Modulation::Add,
        resample: Resample::Keep,
        divisor: 2.0,
        names: ["time", "shortcut"],
    }
}

/// T5's tokens as they are.
#[derive(Debug)]
struct Plain;

impl ContextSource for Plain {
    fn encode(&self, conditioning: &Conditioning, _rows: i64, kind: Kind) -> Result<Encoded> {
        let tokens = conditioning.t5.as_ref().ok_or(Error::EmbeddingNeeded("t5"))?.f_to_kind(kind)?;
        Ok(Encoded { pooled: None, tokens, text_columns: TOKENS, mask: None })
    }
}

/// Multiplies every channel by a number of its own.
#[derive(Debug)]
struct Gain {
    gain: Tensor,
    takes_a_skip: bool,
}

impl Gain {
    fn new(mut scope: Scope<'_>, channels: i64, takes_a_skip: bool) -> Result<Self> {
        Ok(Self { gain: scope.weight("gain", &[channels, 1, 1], Init::Ones)?, takes_a_skip })
    }
}

impl Block for Gain {
    fn forward(&self, h: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        if self.takes_a_skip {
            let _ = pass.pop()?;
        }
        Ok(h.f_mul(&self.gain)?)
    }
}

/// The network with random parameters, none of them zero or one, and these by name.
fn network(toy: &Toy) -> Result<(UNet, BTreeMap<String, Tensor>)> {
    let mut fresh = Fresh::new(1, Device::Cpu);
    let unet = UNet::new(Scope::root(&mut fresh), toy, Kind::Float)?;
    let named: BTreeMap<_, _> = fresh.into_named().into_iter().collect();
    let mut noise = Noise::new(&[2], 0);
    for x in named.values() {
        let jitter = noise.normal(&[1, x.numel() as i64])?.view_as(x) * 0.2;
        let _ = x.shallow_clone().g_add_(&jitter);
    }
    Ok((unet, named))
}

fn inputs() -> (Tensor, Tensor, Conditioning) {
    let mut noise = Noise::new(&[5, 6], 0);
    let x = noise.normal(&[2, PICTURE, 4, 3]).unwrap();
    let t5 = Some(noise.normal(&[2, TOKENS, TEXT]).unwrap());
    (x, Tensor::from_slice(&[0.3_f32, -1.2]), Conditioning { t5, ..Conditioning::default() })
}

/// The same network written down in plain tensor operations.
fn by_hand(p: &BTreeMap<String, Tensor>, x: &Tensor, c_noise: &Tensor, text: &Tensor) -> Tensor {
    let linear = |x: &Tensor, name: &str| x.linear(&p[&format!("{name}.weight")], p.get(&format!("{name}.bias")));
    let conv = |x: &Tensor, name: &str| {
        x.conv2d(&p[&format!("{name}.weight")], p.get(&format!("{name}.bias")), [1], [1], [1], 1)
    };
    let group = |x: &Tensor, name: &str| {
        let (gain, shift) = (p.get(&format!("{name}.weight")), p.get(&format!("{name}.bias")));
        x.group_norm(3, gain, shift, EPS, true)
    };
    let position = |x: &Tensor, name: &str| {
        let x = x.permute([0, 2, 3, 1]);
        let (mean, variance) = (x.mean_dim(-1, true, Kind::Float), x.var_dim(-1, false, true));
        let normed = (&x - mean) / (variance + EPS).sqrt();
        (normed * &p[&format!("{name}.weight")] + &p[&format!("{name}.bias")]).permute([0, 3, 1, 2])
    };
    let half = EMBEDDING / 2;
    let frequencies = (Tensor::arange(half, (Kind::Float, Device::Cpu)) * -(10_000_f64.ln()) / half as f64).exp();
    let angles = c_noise.unsqueeze(1) * frequencies;
    let waves = Tensor::cat(&[angles.cos(), angles.sin()], 1);
    let embedding = linear(&linear(&waves, "t1").silu(), "t2").gelu("none");

    let stem = conv(x, "in");
    let h =
        conv(&group(&stem, "res.norm1").silu(), "res.conv1") + linear(&embedding, "res.time").view([2, WIDTH, 1, 1]);
    let h = (&stem + conv(&group(&h, "res.norm2").silu(), "res.conv2")) / 2.0;

    let pixels = position(&h, "attention.norm").flatten(2, 3).transpose(1, 2);
    let heads = |x: Tensor| x.view([2, -1, HEADS, WIDTH / HEADS]).transpose(1, 2);
    let kv = linear(text, "attention.kv");
    let (k, v) = (heads(kv.narrow(-1, 0, WIDTH).contiguous()), heads(kv.narrow(-1, WIDTH, WIDTH).contiguous()));
    let scores =
        heads(linear(&pixels, "attention.q")).matmul(&k.transpose(2, 3)) / (WIDTH as f64 / HEADS as f64).sqrt();
    let attended = scores.softmax(-1, Kind::Float).matmul(&v).transpose(1, 2).reshape([2, -1, WIDTH]);
    let h = &h + linear(&attended, "attention.out").transpose(1, 2).view_as(&h);

    let h = Tensor::cat(&[h, stem * 0.5], 1) * &p["gain.gain"];
    conv(&position(&h, "norm").silu(), "out")
}

/// Deliberate faults that failed here, and how far off they were: the noise embedding added after the norm (0.39), heads of a width
/// instead of a number of them (0.61), a skip that is not scaled (0.91).
#[test]
fn a_layout_of_one_s_own_is_a_network() {
    let (unet, parameters) = network(&Toy::default()).unwrap();
    let (x, c_noise, conditioning) = inputs();
    let context = unet.context(&conditioning, 2).unwrap();
    let found = unet.forward(&x, &c_noise, &context, None).unwrap();
    let expected = by_hand(&parameters, &x, &c_noise, conditioning.t5.as_ref().unwrap());
    assert_eq!(found.size(), [2, PICTURE, 4, 3]);
    let off = f64::try_from((found - expected).abs().max()).unwrap();
    assert!(off < 2e-6, "{off:.1e}");
}

/// A layout that is put together wrongly is an error, never a wrong picture.
#[test]
fn what_a_layout_forgets_is_an_internal_error() {
    let (x, c_noise, conditioning) = inputs();
    let run = |wrong| -> Result<Tensor> {
        let (unet, _) = network(&Toy { wrong: Some(wrong) })?;
        let context = unet.context(&conditioning, 2)?;
        unet.forward(&x, &c_noise, &context, None)
    };
    for (wrong, what) in [
        (Wrong::SkipKept, "a layout does not use a skip that it keeps"),
        (Wrong::SkipMissing, "a layout concatenates a skip that it lacks"),
        (Wrong::SkipTaken, "the way up of a network has no skip left"),
        (Wrong::KeysMissing, "an attention layer has no keys and values"),
    ] {
        let error = run(wrong).unwrap_err();
        assert!(matches!(error, Error::Internal(found) if found == what), "{wrong:?}: {error}");
    }
}

#[test]
fn heads_are_counted_or_as_wide_as_said() {
    assert_eq!((Heads::Count(8).count(64).unwrap(), Heads::Width(8).count(48).unwrap()), (8, 6));
    for heads in [Heads::Count(0), Heads::Width(5), Heads::Count(-2)] {
        assert!(matches!(heads.count(64), Err(Error::NetworkConfig { field: "heads", .. })), "{heads:?}");
    }
}
