//! What every training of a plan shares.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ediffi_core::unet::EmbeddingShapes;
use ediffi_data::embeddings::Embeddings;
use ediffi_data::{Part, Split};
use ediffi_train::data_parallel::workers;
use ediffi_train::dataset::Dataset;
use ediffi_train::lineage::Lineage;
use ediffi_train::plan::{Batches, Task, TrainingPlan};
use ediffi_train::run::{Begin, Run};
use serde_json::json;

use crate::data::{Shapes, Source, Told, source};
use crate::encoders::{EncoderPaths, Texts};
use crate::error::wrong;
use crate::options::Options;
use crate::plan::{NetworkPlan, Plan, StagePlan};
use crate::start::{Ancestor, start};
use crate::{Error, Result, run_folder};

/// What every training of a plan shares.
pub(crate) struct Workshop<'a> {
    pub(crate) plan: &'a Plan,
    /// The plan as `ediffi-train` has it.
    pub(crate) training: TrainingPlan,
    pub(crate) dataset: Arc<dyn Dataset>,
    /// The fingerprint of the data.
    pub(crate) data: String,
    pub(crate) options: &'a Options,
    pub(crate) encoders: EncoderPaths,
    /// The embeddings that any stage takes.
    pub(crate) needs: EmbeddingShapes,
    texts: OnceCell<Arc<Mutex<Texts>>>,
    embeddings: OnceCell<Embeddings>,
    fingerprints: OnceCell<Vec<(&'static str, String)>>,
    /// What the stages are trained on, by their names.
    batches: RefCell<HashMap<String, Source>>,
}

/// What `cell` holds, or else `make`s.
fn get_or_make<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

impl<'a> Workshop<'a> {
    /// Checks everything that the plan asks of data, encoders and folders. No weights are loaded.
    pub(crate) fn open(plan: &'a Plan, dataset: Arc<dyn Dataset>, options: &'a Options) -> Result<Self> {
        plan.check()?;
        let training = plan.training();
        options.only.iter().try_for_each(|name| training.task(name).map(drop))?;
        let needs = needs(plan)?;
        let encoders = EncoderPaths::of(&plan.encoders, &options.folder)?.needed(&needs);
        encoders.check(&needs)?;
        for stage in &plan.stages {
            for network in &stage.networks {
                start(stage, network)?;
            }
        }
        expect_enough(plan, dataset.len())?;
        let data = dataset.fingerprint();
        Ok(Self {
            plan,
            training,
            dataset,
            data,
            options,
            encoders,
            needs,
            texts: OnceCell::new(),
            embeddings: OnceCell::new(),
            fingerprints: OnceCell::new(),
            batches: RefCell::default(),
        })
    }

    /// What to do with what is there of a task.
    pub(crate) fn begin(&self, name: &str) -> Result<Begin> {
        run_folder::begin(&self.options.folder, name)
    }

    /// The averaged weights of something trained, in f32.
    pub(crate) fn weights(&self, name: &str) -> PathBuf {
        run_folder::exported(&self.options.folder, name)
    }

    /// What the networks of a stage are trained on. With several shapes of batches, the sizes of all pictures are read the first time.
    pub(crate) fn batches(&self, stage: &StagePlan) -> Result<Source> {
        if let Some(made) = self.batches.borrow().get(&stage.name) {
            return Ok(made.clone());
        }
        let (part, threads) = ((Part::Train, Shapes::OfThePlan), self.options.threads.unwrap_or(0));
        let made = source(self.plan, stage, &self.dataset, part, threads)?;
        self.batches.borrow_mut().insert(stage.name.clone(), made.clone());
        Ok(made)
    }

    /// What a network starts from: its parent, or a network of a model folder.
    pub(crate) fn parent(&self, stage: &StagePlan, network: &NetworkPlan) -> Result<Option<Ancestor>> {
        let Some(parent) = &network.parent else { return start(stage, network) };
        let weights = self.weights(&format!("{}.{parent}", stage.name));
        let planned = stage.networks.iter().find(|other| other.name == *parent);
        if let Some(planned) = planned.filter(|_| weights.is_file()) {
            return Ok(Some(Ancestor { weights, dimensions: stage.dimensions_of(planned)? }));
        }
        let (network, parent) = (format!("{}.{}", stage.name, network.name), format!("{}.{parent}", stage.name));
        Err(Error::ParentMissing { network, parent, weights })
    }

    /// What tells the encoders from others. Of those that the plan trains once they are trained.
    pub(crate) fn encoder_fingerprints(&self) -> Result<&[(&'static str, String)]> {
        Ok(get_or_make(&self.fingerprints, || self.encoders.fingerprints())?)
    }

    /// What a network is trained with and stands on.
    pub(crate) fn lineage(&self, stage: &StagePlan, network: &NetworkPlan) -> Result<Lineage> {
        let task = self.training.task(&format!("{}.{}", stage.name, network.name))?;
        let Task::Network(planned, trained) = task else { return wrong(task.name(), "it is no network") };
        let (data, dropout) = (&self.plan.data, &self.plan.dropout);
        let lineage = self
            .training
            .lineage(planned, trained)
            .with("data", &self.data)
            .with("held-out", data.held_out)
            .with("flip", data.flip)
            .with("random-crop", data.random_crop)
            .with("side", stage.side)
            .with("dropout", format!("{} {} {}", dropout.t5, dropout.clip_text, dropout.clip_image))
            .with("network", json!(stage.dimensions_of(network)?))
            .with("precondition", json!(stage.precondition));
        let lineage = match self.plan.buckets(stage) {
            None => lineage,
            Some(shapes) => {
                let members = self.batches(stage)?.members().unwrap_or_default();
                lineage.with("buckets", format!("{} {}", shapes.widest, shapes.multiple)).with("members", members)
            }
        };
        let mut lineage = match self.plan.smaller(stage) {
            None => lineage,
            Some(smaller) => lineage
                .with("smaller", smaller)
                .with("crop", stage.crop.unwrap_or(stage.side))
                .with("corruption", json!(stage.corruption_of(smaller))),
        };
        for (encoder, digest) in self.encoder_fingerprints()? {
            lineage = lineage.with(encoder, digest);
        }
        if let Some(lora) = &network.lora {
            lineage = lineage.with("lora", json!(lora));
        }
        match self.parent(stage, network)? {
            Some(parent) => Ok(lineage.with_file("parent", &parent.weights)?),
            None => Ok(lineage),
        }
    }

    /// The run of a task. `name` is the task's.
    pub(crate) fn run<'r>(&'r self, name: &'r str, task: &Task<'_>, lineage: Lineage) -> Result<Run<'r>> {
        let Batches { batch, accumulate } = self.training.batches(task);
        Ok(Run {
            name,
            folder: &self.options.folder,
            begin: self.begin(name)?,
            steps: task.training().steps,
            batch,
            accumulate,
            first_batch: task.first_batch(),
            checkpoint_every: self.options.checkpoint_every,
            lineage,
        })
    }

    /// How many workers of this process share its batches of a step, which are dealt to so many `processes`.
    pub(crate) fn workers(&self, processes: usize) -> u64 {
        let threads = self.options.threads.map_or(u64::MAX, |threads| threads.max(1) as u64);
        let batches = self.plan.accumulate.div_ceil(processes.max(1) as u64);
        workers(self.options.runtime.device, batches).min(threads)
    }

    /// What networks that take `needs` are told. Encoders are loaded when they are first needed: never, where all that is told was kept.
    pub(crate) fn told(&self, needs: EmbeddingShapes) -> Result<Told> {
        let embeddings = self.embeddings()?.cloned();
        let own_words = !self.plan.sheets.prompts.is_empty() && self.options.sheet_steps > 0;
        let texts = (needs.has_text() && (embeddings.is_none() || own_words)) || needs.clip_image.is_some();
        let texts = texts.then(|| self.texts().cloned()).transpose()?;
        Ok(Told { texts, embeddings, needs, style: (self.plan.seed, self.plan.dropout.clip_image) })
    }

    /// The encoders in memory.
    pub(crate) fn texts(&self) -> Result<&Arc<Mutex<Texts>>> {
        let open = || {
            let texts = Texts::open(&self.encoders, self.needs, self.options.runtime)?;
            Ok(Arc::new(Mutex::new(texts)))
        };
        get_or_make(&self.texts, open)
    }

    /// The embeddings that were kept, if the options name them.
    fn embeddings(&self) -> Result<Option<&Embeddings>> {
        let Some(folder) = &self.options.embeddings else { return Ok(None) };
        let open = || Ok(Embeddings::open(folder, &self.data, &self.encoder_name()?)?);
        Ok(Some(get_or_make(&self.embeddings, open)?))
    }

    /// What tells embeddings of these encoders, cut to so many tokens, from others.
    pub(crate) fn encoder_name(&self) -> Result<String> {
        let text = self.encoder_fingerprints()?.iter().map(|(name, digest)| format!("{name} {digest}"));
        let mut parts: Vec<String> = text.collect();
        parts.extend(self.needs.t5.map(|t5| format!("{} tokens of T5", t5.tokens)));
        parts.extend(self.needs.clip_text.map(|clip| {
            let pooled = if clip.pooled.is_some() { ", pooled" } else { "" };
            format!("{} tokens of CLIP{pooled}", clip.tokens)
        }));
        Ok(parts.join("; "))
    }
}

/// The embeddings that the networks of any stage take.
fn needs(plan: &Plan) -> Result<EmbeddingShapes> {
    let mut needs = EmbeddingShapes::default();
    for stage in &plan.stages {
        let own = stage.network.dimensions()?;
        let all = needs.union(own.io().embeddings);
        needs = match all {
            Ok(all) => all,
            Err(embedding) => {
                let reason = format!("it takes {embedding} embeddings of another shape than an earlier stage");
                return wrong(format!("{}.network", stage.name), reason);
            }
        };
    }
    Ok(needs)
}

/// Refuses data with too few samples for training, or for what is held out.
fn expect_enough(plan: &Plan, samples: usize) -> Result<()> {
    let too_little = |reason: String| Err(Error::TooLittle { samples, reason });
    let split = Split::of_share(samples, plan.data.held_out)?;
    let held_out = split.len(Part::HeldOut);
    if samples == held_out {
        return too_little("none of which is trained on".to_owned());
    }
    if held_out == 0 && plan.validation.is_some() {
        return too_little(format!("of which a share of {} leaves none to measure on", plan.data.held_out));
    }
    Ok(())
}
