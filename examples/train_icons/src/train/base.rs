//! The 64×64 base: the shared network with T5, then alone, then its experts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::precondition::Edm;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::UNet;
use ediffi_core::weights::{Fresh, Scope};
use ediffi_encoders::t5::{T5Config, T5Network};
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::loss::edm_loss;
use ediffi_train::noise::NoiseLevels;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::prefetch::Prefetch;
use ediffi_train::state::{Shared, TrainState};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::batches::{Data, Pictures, dice, normal};
use super::clip::write_json;
use super::dimensions;
use super::encoders::{Clip, T5, json, t5_tokenizer};
use super::run::{Length, Run};
use super::{Result, preview};

/// Noise levels of the base's training: ln σ ~ N(0.4, 1.4²). The paper's (−1.2, 1.2) spends three quarters of a small
/// budget on noise so low that flat icons are trivial; what forms their content is σ from 1 to 80.
pub fn distribution() -> Result<LogNormal> {
    Ok(LogNormal::new(0.4, 1.4)?)
}

/// One of the experts, or the shared network they begin as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The shared network together with T5.
    Joint,
    /// The shared network with T5 frozen.
    Shared,
    /// Highest quarter of the training mass.
    High,
    /// The middle half.
    Middle,
    /// Lowest quarter.
    Low,
}

impl Part {
    /// Name of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joint => "joint",
            Self::Shared => "shared",
            Self::High => "high",
            Self::Middle => "middle",
            Self::Low => "low",
        }
    }

    /// The number of its first batch, far from those of every other part.
    fn first_batch(self) -> u64 {
        (self as u64) << 40
    }

    /// The noise levels it is trained on and owns: quarters of the training mass, E²₀, E²₃ and the rest (paper §4.1).
    pub fn interval(self) -> Result<SigmaInterval> {
        let d = distribution()?;
        let (low, high) = (round(d.quantile(0.25)), round(d.quantile(0.75)));
        Ok(match self {
            Self::Joint | Self::Shared => SigmaInterval::ALL,
            Self::High => SigmaInterval::new(high, f64::INFINITY)?,
            Self::Middle => SigmaInterval::new(low, high)?,
            Self::Low => SigmaInterval::new(0.0, low)?,
        })
    }
}

/// Four digits, so that a manifest reads well.
fn round(sigma: f64) -> f64 {
    (sigma * 1e4).round() / 1e4
}

/// Trains one part of the base and exports it.
pub fn train(
    data: Arc<Data>,
    folder: &Path,
    model: &Path,
    runtime: Runtime,
    length: &Length,
    part: Part,
    learning_rate: f64,
) -> Result<()> {
    let joint = part == Part::Joint;
    let config = dimensions::base();
    let clip = Clip::open(&model.join("clip"), runtime)?;
    let t5_config: T5Config = json(&model.join("t5/config.json"))?;
    let mut fresh = Fresh::new(21, runtime.device);
    let (network, trained_t5) = {
        let mut scope = Scope::root(&mut fresh);
        let network = UNet::new(if joint { scope.at("base") } else { scope.again() }, &config, runtime.kind)?;
        let t5 = if joint { Some(T5Network::new(scope.at("t5"), &t5_config, runtime.kind)?) } else { None };
        (network, t5)
    };
    let t5 = match trained_t5 {
        Some(network) => T5 { network, tokenizer: t5_tokenizer(&model.join("t5"), &t5_config)? },
        None => T5::open(&model.join("t5"), runtime)?,
    };
    let settings = AdamWSettings { learning_rate, warm_up: 200, ..AdamWSettings::default() };
    let mut state = TrainState::new(fresh.into_named(), settings, 0.9995)?;
    let run = Run { name: part.name(), folder, length, rows: data.rows };
    match part {
        Part::Joint => {}
        Part::Shared => state.start_from(&folder.join("joint.base.safetensors"))?,
        _ => state.start_from(&folder.join("shared.base.safetensors"))?,
    }
    run.begin(&mut state)?;

    let levels = NoiseLevels::new(distribution()?, part.interval()?);
    let dropout = ConditioningDropout::default();
    let style = 1.0 - dropout.clip_image;
    let (maker, rows) = (Arc::clone(&data), data.rows as i64);
    // Scenes never run out: each part sees its own.
    let offset = part.first_batch();
    let batches = Prefetch::new(offset + run.batch(&state), 6, move |n| maker.pictures(n, 64, style))?;
    let seed = data.seed ^ part.interval()?.low().to_bits();
    // References were dropped when the batch was made, so that none is drawn and embedded in vain.
    let dropout = ConditioningDropout { clip_image: 0.0, ..dropout };
    run.train(
        &mut state,
        |number| {
            let batch = batches.next()??;
            let mut rng = dice(seed, offset + number);
            let conditioning = conditioning(&clip, &t5, joint, &batch, rows)?;
            let conditioning = dropout.apply(&conditioning, rows, &mut rng)?;
            let context = network.context(&conditioning, rows)?;
            loss(&network, &context, &batch.pictures.f_to_device(runtime.device)?, &levels, &mut rng)
        },
        |state, path| {
            let captions: Vec<String> = preview::PROMPTS.map(str::to_owned).to_vec();
            let rows = captions.len() as i64;
            let batch = Pictures { pictures: Tensor::new(), captions, references: None };
            let _no_grad = tch::no_grad_guard();
            let conditioning = conditioning(&clip, &t5, false, &batch, rows)?;
            let mut shared = Shared(state.average());
            let mut scope = Scope::root(&mut shared);
            let network = UNet::new(if joint { scope.at("base") } else { scope.again() }, &config, runtime.kind)?;
            preview::write(path, &network, &conditioning, rows, 64, (3.0, 80.0))
        },
    )?;
    let weights = folder.join(format!("{}.base.safetensors", part.name()));
    state.export(&weights, if joint { "base." } else { "" }, Kind::Float, HashMap::new())?;
    if joint {
        state.export(&model.join("t5/model.safetensors"), "t5.", Kind::BFloat16, HashMap::new())?;
    }
    std::fs::create_dir_all(model.join("base"))?;
    write_json(&model.join("base/config.json"), &config)?;
    if matches!(part, Part::High | Part::Middle | Part::Low) {
        let path = model.join(format!("base/{}.safetensors", part.name()));
        state.export(&path, "", Kind::BFloat16, HashMap::new())?;
    }
    Ok(())
}

/// Embeddings of a batch; the gradient of T5 is kept when it trains.
fn conditioning(clip: &Clip, t5: &T5, joint: bool, batch: &Pictures, rows: i64) -> Result<Conditioning> {
    let (clip_text, pooled) = clip.encode(&batch.captions)?;
    let t5 = if joint {
        t5.encode(&batch.captions)?
    } else {
        let _no_grad = tch::no_grad_guard();
        t5.encode(&batch.captions)?
    };
    let mut clip_image = Tensor::f_zeros([rows, pooled.size2()?.1], (Kind::Float, pooled.device()))?;
    if let Some((with, references)) = &batch.references {
        let embedded = clip.encode_pictures(&references.f_to_device(pooled.device())?)?;
        clip_image =
            clip_image.f_index_copy(0, &Tensor::f_from_slice(with)?.f_to_device(pooled.device())?, &embedded)?;
    }
    Ok(Conditioning {
        t5: Some(t5),
        clip_text: Some(clip_text),
        clip_text_pooled: Some(pooled),
        clip_image: Some(clip_image),
        low_res: None,
    })
}

/// The mean loss of a batch at freshly drawn noise levels.
pub fn loss(
    network: &UNet,
    context: &ediffi_core::unet::Context,
    clean: &Tensor,
    levels: &NoiseLevels,
    rng: &mut ChaCha8Rng,
) -> Result<Tensor> {
    let rows = clean.size4()?.0 as usize;
    let sigmas = levels.draw(rows, rng);
    let noise = normal(rng, &clean.size())?.f_to_device(clean.device())?;
    let losses: Tensor = edm_loss(&Edm::default(), clean, &noise, &sigmas, |x, c_noise| {
        network.forward(x, c_noise, context, None).map_err(ediffi_train::Error::from)
    })?;
    Ok(losses.f_mean(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use ediffi_core::experts::Experts;

    use super::*;

    #[test]
    fn experts_own_quarter_half_and_quarter_of_the_mass_and_tile() {
        let parts = [Part::High, Part::Middle, Part::Low];
        let intervals = parts.map(|part| part.interval().unwrap());
        Experts::new(intervals.to_vec()).unwrap();
        let d = distribution().unwrap();
        for (interval, mass) in intervals.iter().zip([0.25, 0.5, 0.25]) {
            let got = d.cdf(interval.high()) - d.cdf(interval.low());
            assert!((got - mass).abs() < 1e-3, "{interval}: {got}");
        }
        // ln σ = 0.4 ± 0.674490 · 1.4
        assert_eq!((intervals[1].low(), intervals[1].high()), (0.5803, 3.8354));
        assert_eq!(Part::Shared.interval().unwrap(), SigmaInterval::ALL);
    }

    #[test]
    fn no_part_repeats_another_s_batches() {
        let firsts = [Part::Joint, Part::Shared, Part::High, Part::Middle, Part::Low].map(Part::first_batch);
        assert_eq!(firsts[0], 0);
        for pair in firsts.windows(2) {
            // With 65536 pictures a batch, indices of pictures still fit.
            assert!(pair[1] - pair[0] >= 1 << 40 && pair[1].checked_mul(65_536).is_some());
        }
    }
}
