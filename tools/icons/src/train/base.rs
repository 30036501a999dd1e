//! The 64×64 base: the shared network, then its experts.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::precondition::Sample;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::UNet;
use ediffi_core::weights::{self, Fresh, Params, Scope};
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::loss::denoising_loss;
use ediffi_train::noise::NoiseLevels;
use ediffi_train::plan::{NetworkPlan, StagePlan, Task};
use ediffi_train::prefetch::Prefetch;
use ediffi_train::run::Begin;
use ediffi_train::state::{Shared, TrainState};
use ediffi_train::workers::Worker;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};
use train_icons::dimensions;

use super::batches::{Pictures, dice, normal};
use super::encoders::{Clip, T5};
use super::workshop::{Outcome, Workshop, first_batch, seed_of};
use super::{Result, preview};

/// What tells the noise of a batch from its scenes.
const NOISE: u64 = 0x6E01_5E00;

/// Trains one network of the base and exports its averaged weights.
pub fn train(workshop: &Workshop, stage: &StagePlan, network: &NetworkPlan, begin: Begin) -> Result<Outcome> {
    let task = Task::Network(stage, network);
    let (name, training) = (task.name(), task.training());
    let lineage = workshop.lineage(stage, network)?;
    let (weights, notes) = (workshop.weights(&name), lineage.notes());
    if begin == Begin::Resume && workshop.is_trained(&weights, training.steps, &lineage)? {
        println!("{name}: trained");
        return Ok(Outcome::Trained);
    }
    let runtime = workshop.runtime;
    workshop.discard(begin, &weights)?;
    let parent = workshop.parent(stage, network);
    let learner = |params: &mut dyn Params| Learner::new(params, workshop);
    let mut fresh = Fresh::new(seed_of(&name, workshop.plan.seed), runtime.device);
    let _ = learner(&mut fresh)?;
    let mut state = TrainState::new(fresh.into_named(), training.optimizer(), training.ema)?;
    let run = workshop.run(&name, &task, begin, lineage);
    run.begin(&mut state)?;
    if let Some(parent) = parent.as_ref().filter(|_| state.step() == 0) {
        state.start_from(parent)?;
    }

    let levels = stage.levels(network)?;
    let dropout = ConditioningDropout::default();
    let style = 1.0 - dropout.clip_image;
    let (data, rows) = (workshop.data(run.batch), run.batch as i64);
    // Scenes never run out: each network sees its own.
    let offset = first_batch(&name);
    let batches = Prefetch::new(offset + run.first_batch(&state), 6, move |n| data.pictures(n, 64, style))?;
    let seed = workshop.plan.seed ^ NOISE;
    // References were dropped when the batch was made, so that none is drawn and embedded in vain.
    let dropout = ConditioningDropout { clip_image: 0.0, ..dropout };
    let mut workers = Vec::new();
    for _ in 0..workshop.workers(run.accumulate) {
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
    let interval = network.cell.interval(&stage.noise)?;
    // An expert knows its own noise levels alone: its sheets are drawn together with the network that it began as.
    let ancestor = parent.as_ref().map(|parent| open(parent, runtime)).transpose()?;
    let sheet = |state: &TrainState, path: &Path| {
        let captions: Vec<String> = preview::PROMPTS.map(str::to_owned).to_vec();
        let rows = captions.len() as i64;
        let batch = Pictures { pictures: Tensor::new(), captions, references: None };
        let _no_grad = tch::no_grad_guard();
        let learner = learner(&mut Shared(state.average()))?;
        let conditioning = learner.conditioning(&batch, rows)?;
        let mut networks = vec![(interval, &learner.network)];
        networks.extend(ancestor.as_ref().map(|ancestor| (SigmaInterval::ALL, ancestor)));
        preview::write(path, &preview::sample(&networks, &conditioning, rows, 64, (3.0, 80.0))?, 8)
    };
    run.train(&mut state, || batches.next()?, &mut workers, workshop.watch(&run, sheet)?)?;
    if state.step() < run.steps {
        return Ok(Outcome::Stopped);
    }
    state.export(&weights, "", Kind::Float, notes)?;
    Ok(Outcome::Trained)
}

/// A network after its training.
fn open(path: &Path, Runtime { device, kind }: Runtime) -> Result<UNet> {
    let _no_grad = tch::no_grad_guard();
    let names = |name: &str| Some(name.to_owned());
    Ok(weights::load(path, names, device, kind, |scope| UNet::new(scope, &dimensions::base(), kind))?)
}

/// A network under training with the frozen encoders that it is conditioned by.
struct Learner {
    network: UNet,
    clip: Clip,
    t5: T5,
}

impl Learner {
    /// The network from `params`; encoders from the run folder.
    fn new(params: &mut dyn Params, workshop: &Workshop) -> Result<Self> {
        let runtime = workshop.runtime;
        let (clip, t5) = (Clip::open(&workshop.clip(), runtime)?, T5::open(&workshop.t5(), runtime)?);
        let network = UNet::new(Scope::root(params), &dimensions::base(), runtime.kind)?;
        Ok(Self { network, clip, t5 })
    }

    /// Embeddings of a batch.
    fn conditioning(&self, batch: &Pictures, rows: i64) -> Result<Conditioning> {
        let (clip_text, pooled) = self.clip.encode(&batch.captions)?;
        let t5 = self.t5.encode(&batch.captions)?;
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
            ..Conditioning::default()
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
