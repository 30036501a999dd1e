//! The 64×64 base: the shared network with T5, then alone, then its experts.

use std::path::Path;
use std::sync::Arc;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::precondition::Sample;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::UNet;
use ediffi_core::weights::{self, Fresh, Params, Scope};
use ediffi_encoders::t5::{T5Config, T5Network};
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::loss::denoising_loss;
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
use super::run::{Length, Run, Worker};
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

    /// The network that it begins as.
    fn parent(self) -> Option<Self> {
        match self {
            Self::Joint => None,
            Self::Shared => Some(Self::Joint),
            Self::High | Self::Middle | Self::Low => Some(Self::Shared),
        }
    }

    /// How it is optimized, over `steps` steps: what is trained alone has a rate that falls to a tenth, an expert from half
    /// as high.
    fn optimizer(self, steps: u64) -> AdamWSettings {
        let settings = AdamWSettings { learning_rate: 1e-3, warm_up: 200, ..AdamWSettings::default() };
        match self {
            Self::Joint => settings,
            Self::Shared => AdamWSettings { decay_steps: Some(steps), ..settings },
            Self::High | Self::Middle | Self::Low => {
                AdamWSettings { learning_rate: 5e-4, warm_up: 50, decay_steps: Some(steps), ..settings }
            }
        }
    }

    /// The decay of its running average, which has to forget faster where there are fewer steps.
    fn ema_decay(self) -> f64 {
        match self {
            Self::Joint => 0.9995,
            Self::Shared => 0.999,
            Self::High | Self::Middle | Self::Low => 0.998,
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
) -> Result<()> {
    let joint = part == Part::Joint;
    let weights = |part: Part| folder.join(format!("{}.base.safetensors", part.name()));
    let parent = part.parent().map(weights);
    let mut fresh = Fresh::new(21, runtime.device);
    let learner = |params: &mut dyn Params| Learner::new(params, model, runtime, joint);
    let _ = learner(&mut fresh)?;
    let settings = part.optimizer(length.steps(data.rows));
    let mut state = TrainState::new(fresh.into_named(), settings, part.ema_decay())?;
    let mut lineage = length.lineage(&data);
    lineage = match &parent {
        Some(parent) => lineage.with_encoders(model)?.with_file("parent", parent)?,
        None => lineage.with_clip(model)?,
    };
    let notes = lineage.notes();
    let run = Run { name: part.name(), folder, length, rows: data.rows, lineage };
    run.begin(&mut state)?;
    if let Some(parent) = parent.as_ref().filter(|_| !run.resumes()) {
        state.start_from(parent)?;
    }

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
    // An expert knows its own noise levels alone: its sheets are drawn together with the network that it began as.
    let shared = match &parent {
        Some(parent) if part.parent() == Some(Part::Shared) => Some(shared(parent, runtime)?),
        _ => None,
    };
    let mut workers = Vec::new();
    for _ in 0..length.workers(runtime.device) {
        let replica = state.replica()?;
        let learner = learner(&mut replica.source())?;
        let loss = move |number, batch: Pictures| {
            let mut rng = dice(seed, offset + number);
            let conditioning = dropout.apply(&learner.conditioning(&batch, rows)?, rows, &mut rng)?;
            let context = learner.network.context(&conditioning, rows)?;
            loss(&learner.network, &context, &batch.pictures.f_to_device(runtime.device)?, &levels, &mut rng)
        };
        workers.push(Worker { replica, loss: Box::new(loss) });
    }
    run.train(
        &mut state,
        || batches.next()?,
        &mut workers,
        |state, path| {
            let captions: Vec<String> = preview::PROMPTS.map(str::to_owned).to_vec();
            let rows = captions.len() as i64;
            let batch = Pictures { pictures: Tensor::new(), captions, references: None };
            let _no_grad = tch::no_grad_guard();
            let learner = learner(&mut Shared(state.average()))?;
            let conditioning = learner.conditioning(&batch, rows)?;
            let mut networks = vec![(part.interval()?, &learner.network)];
            networks.extend(shared.as_ref().map(|shared| (SigmaInterval::ALL, shared)));
            preview::write(path, &preview::sample(&networks, &conditioning, rows, 64, (3.0, 80.0))?, 8)
        },
    )?;
    std::fs::create_dir_all(model.join("base"))?;
    write_json(&model.join("base/config.json"), &dimensions::base())?;
    match part {
        Part::Joint => {
            state.export(&weights(part), "base.", Kind::Float, notes.clone())?;
            state.export(&model.join("t5/model.safetensors"), "t5.", Kind::BFloat16, notes)?;
        }
        Part::Shared => state.export(&weights(part), "", Kind::Float, notes)?,
        Part::High | Part::Middle | Part::Low => {
            let path = model.join(format!("base/{}.safetensors", part.name()));
            state.export(&path, "", Kind::BFloat16, notes)?;
        }
    }
    Ok(())
}

/// The shared network after its training.
fn shared(path: &Path, Runtime { device, kind }: Runtime) -> Result<UNet> {
    let _no_grad = tch::no_grad_guard();
    let names = |name: &str| Some(name.to_owned());
    Ok(weights::load(path, names, device, kind, |scope| UNet::new(scope, &dimensions::base(), kind))?)
}

/// A network under training with the encoders that it is conditioned by.
struct Learner {
    network: UNet,
    clip: Clip,
    t5: T5,
    /// Whether T5 trains with the network.
    joint: bool,
}

impl Learner {
    /// The network, and T5 if it trains, from `params`; frozen encoders from the folder `model`.
    fn new(params: &mut dyn Params, model: &Path, runtime: Runtime, joint: bool) -> Result<Self> {
        let clip = Clip::open(&model.join("clip"), runtime)?;
        let mut scope = Scope::root(params);
        let base = if joint { scope.at("base") } else { scope.again() };
        let network = UNet::new(base, &dimensions::base(), runtime.kind)?;
        let t5 = if joint {
            let config: T5Config = json(&model.join("t5/config.json"))?;
            let tokenizer = t5_tokenizer(&model.join("t5"), &config)?;
            T5 { network: T5Network::new(scope.at("t5"), &config, runtime.kind)?, tokenizer }
        } else {
            T5::open(&model.join("t5"), runtime)?
        };
        Ok(Self { network, clip, t5, joint })
    }

    /// Embeddings of a batch; the gradient of T5 is kept when it trains.
    fn conditioning(&self, batch: &Pictures, rows: i64) -> Result<Conditioning> {
        let (clip_text, pooled) = self.clip.encode(&batch.captions)?;
        let t5 = if self.joint {
            self.t5.encode(&batch.captions)?
        } else {
            let _no_grad = tch::no_grad_guard();
            self.t5.encode(&batch.captions)?
        };
        let mut clip_image = Tensor::f_zeros([rows, pooled.size2()?.1], (Kind::Float, pooled.device()))?;
        if let Some((with, references)) = &batch.references {
            let embedded = self.clip.encode_pictures(&references.f_to_device(pooled.device())?)?;
            let with = Tensor::f_from_slice(with)?.f_to_device(pooled.device())?;
            clip_image = clip_image.f_index_copy(0, &with, &embedded)?;
        }
        Ok(Conditioning {
            t5: Some(t5),
            clip_text: Some(clip_text),
            clip_text_pooled: Some(pooled),
            clip_image: Some(clip_image),
            low_res: None,
        })
    }
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
    let losses: Tensor = denoising_loss(&Sample::default(), clean, &noise, &sigmas, |x, c_noise| {
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
