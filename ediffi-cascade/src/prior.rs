//! The prior of unCLIP as a stage before the others: it draws the CLIP embedding of an image from a text.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::{Branch, BranchDenoiser, Denoiser, Estimate, estimate_with};
use ediffi_core::experts::Experts;
use ediffi_core::folders::Identity;
use ediffi_core::guidance::{Guided, Rows};
use ediffi_core::pool::Residency;
use ediffi_core::prior::{Prior as Network, PriorConfig, PriorContext};
use ediffi_core::runtime::Runtime;
use ediffi_core::seed::Noise;
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::weights;
use ediffi_core::{Error as CoreError, Result as CoreResult};
use tch::{Device, Kind, Tensor};

use crate::config::PreconditionConfig;
use crate::observer::{Batch, StageEvent, StageObserver, Watch, report};
use crate::plan::StagePlan;
use crate::run::StageNoise;
use crate::settings::{SamplerSettings, SettingsPatch};
use crate::{Error, Result};

/// Where a prior is, and its dimensions.
#[derive(Debug, Clone)]
pub struct PriorFiles {
    /// A safetensors file, or an index of several, that holds a `PriorTransformer`.
    pub weights: PathBuf,
    /// How plans and errors name it.
    pub label: PathBuf,
    /// The dimensions.
    pub config: PriorConfig,
}

/// The prior of a model, opened. It is loaded when it is first needed.
///
/// An embedding is drawn as a picture of one pixel is, with as many channels as it has numbers, by the same solvers and under the same
/// guidance.
#[derive(Debug)]
pub struct Prior {
    files: PriorFiles,
    precondition: PreconditionConfig,
    settings: SamplerSettings,
    runtime: Runtime,
    residency: Residency,
    /// The folders that the files are of, if they are known.
    folders: Option<Arc<Identity>>,
    loaded: Option<Network>,
}

/// What a prior draws for a generation.
pub struct PriorJob<'a> {
    /// What it does: [`Prior::plan`].
    pub plan: &'a StagePlan,
    /// Embeddings of texts, with and without the prompt, one row or one for each picture: of each pair an image embedding is drawn for
    /// every picture, from the same noise.
    pub prompts: &'a [(&'a Conditioning, &'a Conditioning)],
    /// A seed for each picture.
    pub seeds: &'a [u64],
    /// How many pictures are computed together.
    pub batch: usize,
    /// Whether both evaluations of guidance are made together.
    pub rows: Rows,
    /// Noise from elsewhere.
    pub noise: Option<&'a mut StageNoise<'a>>,
    /// How many stages run, this one and an enlarger included.
    pub stages: usize,
}

impl fmt::Debug for PriorJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriorJob").field("plan", &self.plan).field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

impl Prior {
    /// What it is called in plans, events, requests and errors.
    pub const NAME: &'static str = "prior";

    /// What stands in the place of a stage's number: that of the stream of noise that a seed gives it.
    pub const INDEX: usize = u32::MAX as usize;

    /// A prior of these files, whose answers mean what `precondition` says.
    #[must_use]
    pub fn new(
        files: PriorFiles,
        precondition: PreconditionConfig,
        settings: SamplerSettings,
        runtime: Runtime,
        residency: Residency,
    ) -> Self {
        Self { files, precondition, settings, runtime, residency, folders: None, loaded: None }
    }

    /// Loads nothing that was put in the place of one of these folders. What is loaded is dropped.
    #[must_use]
    pub fn of(self, folders: Arc<Identity>) -> Self {
        Self { folders: Some(folders), loaded: None, ..self }
    }

    /// The weights, and the dimensions of the network.
    #[must_use]
    pub fn files(&self) -> &PriorFiles {
        &self.files
    }

    /// How it samples unless a request says otherwise.
    #[must_use]
    pub fn settings(&self) -> &SamplerSettings {
        &self.settings
    }

    /// How its network becomes a denoiser.
    #[must_use]
    pub fn precondition(&self) -> &PreconditionConfig {
        &self.precondition
    }

    fn table(&self) -> NoiseTable {
        self.precondition.timesteps()
    }

    /// Whether the network is in memory.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.loaded.is_some()
    }

    /// Drops the network from memory; it is loaded again when it is next needed.
    pub fn release(&mut self) {
        self.loaded = None;
    }

    /// What it is going to do. Nothing is loaded for it.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that makes no embedding.
    pub fn plan(&self, patch: Option<&SettingsPatch>) -> Result<StagePlan> {
        let wrong = |field: &str, source| Error::Setting {
            stage: Self::NAME.to_owned(),
            field: field.to_owned(),
            source: Box::new(source),
        };
        let settings = self.settings.patched(patch);
        if let Some((field, source)) = settings.problems(self.table(), false).into_iter().next() {
            return Err(wrong(field, source));
        }
        if let Some(&index) = settings.experts.keys().next() {
            return Err(wrong("experts", ediffi_core::Error::NoSuchExpert { index, experts: 0 }));
        }
        let sigmas = settings.sigmas(self.table()).map_err(|source| wrong("schedule", source))?;
        let plan = Experts::single().plan(&sigmas).map_err(|source| wrong("schedule", source))?;
        Ok(StagePlan {
            stage: Self::NAME.to_owned(),
            index: Self::INDEX,
            width: 1,
            height: 1,
            settings,
            tiling: None,
            skipped: 0,
            jumps: None,
            decoding: None,
            leaning: BTreeSet::new(),
            embedding: Some(self.files.config.width),
            plan,
        })
    }

    /// Draws image embeddings, batch after batch: for each pair of prompts one row for each seed. With a residency other than
    /// [`Residency::All`] the network is dropped afterwards. An embedding does not depend on the batch that it is drawn in.
    ///
    /// # Shapes
    /// → for each pair of prompts [pictures, width] f32 on the CPU
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `observer` says so, before the next evaluation of the network; [`Error::NotFinite`]; [`Error::Stage`] for files
    /// that cannot be read, and for texts of another shape.
    pub fn draw(&mut self, job: PriorJob<'_>, observer: &mut dyn StageObserver) -> Result<Vec<Tensor>> {
        let _no_grad = tch::no_grad_guard();
        let (plan, stages) = (job.plan, job.stages);
        let batches = job.seeds.len().div_ceil(job.batch.max(1)) * job.prompts.len();
        report(observer, &StageEvent::StageStarted { plan, index: 0, stages, batches })?;
        let began = Instant::now();
        let drawn = self.draw_all(job, batches, observer);
        if self.residency != Residency::All {
            self.release();
        }
        let drawn = drawn.map_err(|source| self.explain(source))?;
        report(observer, &StageEvent::StageFinished { plan, elapsed: began.elapsed() })?;
        Ok(drawn)
    }

    fn draw_all(
        &mut self,
        job: PriorJob<'_>,
        batches: usize,
        observer: &mut dyn StageObserver,
    ) -> CoreResult<Vec<Tensor>> {
        let PriorJob { plan, prompts, seeds, batch: size, rows, mut noise, .. } = job;
        let size = size.max(1);
        let mut numbers = 0..batches;
        let mut drawn = Vec::with_capacity(prompts.len());
        for &(conditioning, unconditional) in prompts {
            let mut embeddings = Vec::new();
            for (index, seeds) in seeds.chunks(size).enumerate() {
                let (first, pictures) = (index * size, seeds.len() as i64);
                let batch = Batch { index: numbers.next().unwrap_or_default(), batches, first };
                let watch = Watch::new(Self::NAME, batch, observer);
                let noise = match &mut noise {
                    Some(noise) => noise(Self::NAME, seeds),
                    None => Box::new(Noise::new(seeds, Self::INDEX as u64)),
                };
                let texts = [conditioning, unconditional].map(|text| self.text(text, first as i64, pictures));
                let [conditional, unconditional] = texts;
                let texts = [conditional?, unconditional?];
                embeddings.push(self.draw_batch(plan, texts, pictures, rows, noise, &watch)?);
            }
            drawn.push(Tensor::f_cat(&embeddings, 0)?);
        }
        Ok(drawn)
    }

    /// The texts of the pictures of a batch.
    fn text(&self, text: &Conditioning, first: i64, pictures: i64) -> CoreResult<Conditioning> {
        let Conditioning { clip_text, clip_text_pooled, .. } = text.rows(first, pictures)?;
        Conditioning { clip_text, clip_text_pooled, ..Conditioning::default() }.to(self.runtime.device, Kind::Float)
    }

    fn draw_batch(
        &mut self,
        plan: &StagePlan,
        texts: [Conditioning; 2],
        pictures: i64,
        rows: Rows,
        mut noise: Box<dyn ediffi_core::noise::NoiseSource>,
        watch: &Watch<'_>,
    ) -> CoreResult<Tensor> {
        let (width, device, table) = (self.files.config.width, self.runtime.device, self.table());
        let precondition = self.precondition;
        let sigmas = plan.settings.sigmas(table)?;
        let ends = plan.settings.schedule.ends(table);
        watch.poll()?;
        let network = self.network()?;
        let start = noise.normal(&[pictures, width, 1, 1])?.f_to_device(device)?;
        let mut trajectory = plan.settings.solver.start_between(start, &sigmas, ends, noise.as_mut())?;
        let denoiser = Drawing { network, precondition, texts, pictures, watch, contexts: HashMap::new() };
        let mut guided = Guided::new(denoiser, plan.settings.guidance.clone(), rows)?;
        let (mut made, steps) = (0, plan.plan.steps().len());
        while !trajectory.is_finished() {
            let estimate = guided.estimate(trajectory.x(), trajectory.sigma())?;
            let Some(step) = trajectory.advance(estimate, noise.as_mut())? else { continue };
            watch.step(&step, made, steps)?;
            made += 1;
        }
        let drawn = network.finish(&trajectory.x().f_flatten(1, -1)?)?;
        Ok(drawn.f_to_device(Device::Cpu)?)
    }

    /// The network, loaded if it is not.
    fn network(&mut self) -> CoreResult<&Network> {
        let network = match self.loaded.take() {
            Some(network) => network,
            None => {
                let (PriorFiles { weights: path, config, .. }, Runtime { device, kind }) = (&self.files, self.runtime);
                let build = |scope: weights::Scope<'_>| Network::new(scope, config, kind);
                let loaded = weights::load(path, |name| Some(name.to_owned()), device, kind, build);
                // Weights of another training would be no error of their own.
                self.folders.as_ref().map_or(Ok(()), |folders| folders.check())?;
                loaded?
            }
        };
        Ok(self.loaded.insert(network))
    }

    fn explain(&self, source: CoreError) -> Error {
        match source {
            CoreError::DenoisedNotFinite(sigma) => {
                let weights = self.files.label.display().to_string();
                Error::NotFinite { stage: Self::NAME.to_owned(), expert: 0, weights, sigma }
            }
            source => Error::in_stage(Self::NAME, source),
        }
    }
}

/// The network at work on one batch.
struct Drawing<'a, 'w> {
    network: &'a Network,
    precondition: PreconditionConfig,
    /// With and without the prompt.
    texts: [Conditioning; 2],
    pictures: i64,
    watch: &'a Watch<'w>,
    /// What it derived from the texts, made when it is first needed.
    contexts: HashMap<Branch, PriorContext>,
}

impl BranchDenoiser for Drawing<'_, '_> {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> CoreResult<Estimate> {
        let context = match self.contexts.entry(branch) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => {
                let [conditional, unconditional] = &self.texts;
                place.insert(match branch {
                    Branch::Conditional => self.network.context(conditional, self.pictures)?,
                    Branch::Unconditional => self.network.context(unconditional, self.pictures)?,
                    Branch::Both => self.network.context(&conditional.stacked(unconditional)?, 2 * self.pictures)?,
                    Branch::Weaker => return Err(CoreError::NoWeakerNetwork),
                })
            }
        };
        self.watch.poll()?;
        estimate_with(&self.precondition, x, sigma, |input, c_noise| {
            let rows = input.size().first().copied().unwrap_or(0);
            let c_noise = Tensor::f_full([rows], c_noise, (Kind::Float, input.device()))?;
            Ok(self.network.forward(&input.f_flatten(1, -1)?, &c_noise, context)?.f_reshape(input.size())?)
        })
    }
}
