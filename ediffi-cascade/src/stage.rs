//! A stage: an ensemble of experts at one resolution, and how it samples.

use std::path::{Path, PathBuf};

use ediffi_core::conditioning::Conditioning;
use ediffi_core::ensemble::Ensemble;
use ediffi_core::experts::Experts;
use ediffi_core::guidance::Guided;
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::NoiseSource;
use ediffi_core::plan::Plan;
use ediffi_core::pool::Residency;
use ediffi_core::runtime::Runtime;
use ediffi_core::seed::Noise;
use ediffi_core::unet::{EmbeddingShapes, Io, UNetConfig};
use tch::{Kind, Tensor};

use crate::config::StageConfig;
use crate::diagnosis::broken_tensor;
use crate::expert::{Branches, Expert};
use crate::experts::EnsembleDenoiser;
use crate::files::{ExpertFiles, existing, read_network};
use crate::multiple::lcm;
use crate::observer::{StageEvent, StageObserver, Watch};
use crate::settings::SamplerSettings;
use crate::tiled::TileGrid;
use crate::tiling::Tiling;
use crate::{Error, Result};

/// One stage of a model, opened. Its experts are loaded when they are first needed.
#[derive(Debug)]
pub struct Stage {
    config: StageConfig,
    /// One for each expert.
    networks: Vec<UNetConfig>,
    /// One for each expert.
    weights: Vec<PathBuf>,
    ensemble: Ensemble<Expert>,
    residency: Residency,
    runtime: Runtime,
    size_multiple: i64,
}

/// What to sample.
#[derive(Debug)]
pub struct StageJob<'a> {
    /// What the pictures show: embeddings of n rows. [`Conditioning::low_res`] stays empty, see [`Self::low_res`].
    pub conditioning: &'a Conditioning,
    /// What guidance leans away from: embeddings of n rows, or none, which is all zeros.
    pub unconditional: &'a Conditioning,
    /// One for each of the n pictures.
    pub seeds: &'a [u64],
    /// Number of the stage in its cascade; the noise of a picture differs from stage to stage.
    pub stage_index: u64,
    /// Height of the pictures in pixels.
    pub height: i64,
    /// Width of the pictures in pixels.
    pub width: i64,
    /// The pictures of the stage before, [n, 3, h, w] in [-1, 1] at any size: a super-resolution stage needs them.
    pub low_res: Option<&'a Tensor>,
    /// How to sample.
    pub settings: SamplerSettings,
    /// Paint-with-words.
    pub paint: Option<&'a dyn ScoreBias>,
    /// How to cut pictures that are too large for the network at once.
    pub tiling: Option<Tiling>,
}

impl Stage {
    /// Opens a stage of the model in `folder`. The networks' dimensions are read, the weights only looked for.
    ///
    /// # Errors
    /// A configuration that [`StageConfig::validate`] refuses, a file that is missing or does not say what it should, or
    /// experts that do not take the same inputs.
    pub fn open(folder: &Path, config: &StageConfig, runtime: Runtime, residency: Residency) -> Result<Self> {
        config.validate()?;
        let mut files = Vec::with_capacity(config.experts.len());
        for (index, expert) in config.experts.iter().enumerate() {
            let (field, path) = match &expert.network {
                Some(path) => (format!("experts[{index}].network"), path),
                None => ("network".to_owned(), &config.network),
            };
            let network = read_network(folder, path).map_err(|source| config.refused(&field, source))?;
            let field = format!("experts[{index}].weights");
            let weights = existing(folder, &expert.weights).map_err(|source| config.refused(&field, source))?;
            files.push(ExpertFiles { weights, network });
        }
        Self::with_experts(config, files, runtime, residency)
    }

    /// A stage of experts whose files may lie anywhere: those of several published models, say. The paths in `config` only
    /// name them then.
    ///
    /// # Errors
    /// A configuration that [`StageConfig::validate`] refuses, another number of experts than it has, or experts that do
    /// not take the same inputs.
    pub fn with_experts(
        config: &StageConfig,
        files: Vec<ExpertFiles>,
        runtime: Runtime,
        residency: Residency,
    ) -> Result<Self> {
        config.validate()?;
        let experts = config.experts()?;
        if files.len() != experts.len() {
            let reason = format!("{} are configured, the files of {} are given", experts.len(), files.len());
            return Err(config.wrong("experts", reason));
        }
        let networks: Vec<UNetConfig> = files.iter().map(|files| files.network.clone()).collect();
        let weights: Vec<PathBuf> = files.iter().map(|files| files.weights.clone()).collect();
        for (index, network) in networks.iter().enumerate() {
            if let Some(first) = networks.first()
                && inputs(first) != inputs(network)
            {
                let reason = "its network takes other inputs than that of experts[0]".to_owned();
                return Err(config.wrong(&format!("experts[{index}].network"), reason));
            }
            let told = config.low_res.noise_level.is_some();
            if network.io().noise_level != told {
                let reason =
                    if told { "the network is not told a noise_level" } else { "the network needs a noise_level" };
                return Err(config.wrong("low_res", reason.to_owned()));
            }
        }
        let size_multiple = networks.iter().map(|network| network.io().size_multiple).fold(1, lcm);
        if config.size % size_multiple != 0 {
            let reason = format!("{} is no multiple of {size_multiple}, which the network needs", config.size);
            return Err(config.wrong("size", reason));
        }
        let precondition = config.precondition.clone();
        let loader = Box::new(move |index: usize| {
            let missing = ediffi_core::Error::NoSuchExpert { index, experts: files.len() };
            let ExpertFiles { weights, network } = files.get(index).ok_or(missing)?;
            Expert::load(weights, network, precondition.clone(), runtime)
        });
        let ensemble = Ensemble::new(experts, residency, loader);
        Ok(Self { config: config.clone(), networks, weights, ensemble, residency, runtime, size_multiple })
    }

    /// The configuration it was opened from.
    #[must_use]
    pub fn config(&self) -> &StageConfig {
        &self.config
    }

    /// What the stage is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Side in pixels of the square pictures that it was trained for.
    #[must_use]
    pub fn size(&self) -> i64 {
        self.config.size
    }

    /// Height and width of its pictures have to be multiples of this.
    #[must_use]
    pub fn size_multiple(&self) -> i64 {
        self.size_multiple
    }

    /// Whether it enlarges the pictures of a stage before it.
    #[must_use]
    pub fn is_super_resolution(&self) -> bool {
        self.networks.first().is_some_and(|network| network.io().low_res)
    }

    /// The embeddings it takes; all experts take the same.
    #[must_use]
    pub fn embeddings(&self) -> EmbeddingShapes {
        self.networks.first().map_or_else(EmbeddingShapes::default, |network| network.io().embeddings)
    }

    /// The dimensions of each expert's network.
    #[must_use]
    pub fn networks(&self) -> &[UNetConfig] {
        &self.networks
    }

    /// Which expert owns which noise level.
    #[must_use]
    pub fn experts(&self) -> &Experts {
        self.ensemble.experts()
    }

    /// Where and in which precision it computes.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// How many experts are in memory at a time.
    #[must_use]
    pub fn residency(&self) -> Residency {
        self.residency
    }

    /// The experts that are in memory now.
    #[must_use]
    pub fn resident(&mut self) -> Vec<usize> {
        self.ensemble.pool().resident().collect()
    }

    /// Drops every expert from memory; they are loaded again when they are next needed.
    pub fn release(&mut self) {
        self.ensemble.pool().clear();
    }

    /// The sampler settings of its configuration.
    #[must_use]
    pub fn settings(&self) -> SamplerSettings {
        self.config.settings()
    }

    /// Those of the embeddings that this stage takes.
    #[must_use]
    pub fn select(&self, conditioning: &Conditioning) -> Conditioning {
        self.embeddings().select(conditioning)
    }

    /// Which expert runs which step. Nothing is loaded for it.
    ///
    /// # Errors
    /// Settings that make no schedule.
    pub fn plan(&self, settings: &SamplerSettings) -> Result<Plan> {
        let plan = settings.sigmas().and_then(|sigmas| self.ensemble.experts().plan(&sigmas));
        plan.map_err(|source| Error::in_stage(self.name(), source))
    }

    /// Samples pictures.
    ///
    /// The noise of each picture comes from its own seed, so it does not depend on the others of the batch.
    ///
    /// # Shapes
    /// → [n, 3, height, width] f32 in [-1, 1], on the stage's device
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `observer` says so, before the next evaluation of the network; [`Error::NotFinite`] naming
    /// the expert; [`Error::Job`], [`Error::Tiling`] and [`Error::Stage`] for inputs that do not fit, and for files that
    /// cannot be read.
    pub fn sample(&mut self, job: StageJob<'_>, observer: &mut dyn StageObserver) -> Result<Tensor> {
        let mut noise = Noise::new(job.seeds, job.stage_index);
        self.sample_from(job, &mut noise, observer)
    }

    /// [`sample`](Self::sample) with noise from elsewhere: recorded, to repeat what another program has drawn. The noise of
    /// the start is asked for first, then that of the smaller picture, then those of the steps.
    ///
    /// # Errors
    /// As [`sample`](Self::sample), and those of `noise`.
    pub fn sample_from(
        &mut self,
        job: StageJob<'_>,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn StageObserver,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let span = tracing::info_span!("stage", name = self.config.name);
        let _entered = span.enter();
        let tiles = self.check(&job)?;
        let name = self.config.name.clone();
        let result = self.run(&job, tiles.as_ref(), noise, &Watch::new(&name, observer));
        result.map_err(|source| self.explain(source))
    }

    /// Refuses what would fail late or be ignored.
    fn check(&self, job: &StageJob<'_>) -> Result<Option<TileGrid>> {
        let wrong = |input, reason| Err(Error::Job { stage: self.config.name.clone(), input, reason });
        let (width, height, multiple) = (job.width, job.height, self.size_multiple);
        if width < multiple || height < multiple || width % multiple != 0 || height % multiple != 0 {
            let source = ediffi_core::Error::ImageSize { width, height, multiple };
            return Err(Error::in_stage(self.name(), source));
        }
        if job.seeds.is_empty() {
            return wrong("seeds", "there is none, each picture needs one".to_owned());
        }
        if job.conditioning.low_res.is_some() || job.unconditional.low_res.is_some() {
            return wrong("conditioning", "the smaller picture goes into the job's own field".to_owned());
        }
        let given = [("conditioning", job.conditioning), ("unconditional", job.unconditional)];
        for (input, conditioning) in given {
            if let Some((name, rows)) = other_rows(conditioning, job.seeds.len()) {
                return wrong(input, format!("{name} has {rows} rows, there are {} seeds", job.seeds.len()));
            }
        }
        if job.low_res.is_some() != self.is_super_resolution() {
            let source = ediffi_core::Error::LowRes { given: job.low_res.is_some() };
            return Err(Error::in_stage(self.name(), source));
        }
        if let Some(low_res) = job.low_res {
            let (shape, pictures) = (low_res.size(), job.seeds.len() as i64);
            if !matches!(shape[..], [rows, 3, h, w] if rows == pictures && h > 0 && w > 0) {
                return wrong("low_res", format!("its shape is {shape:?}, expected [{pictures}, 3, height, width]"));
            }
        }
        let tiling = |source| Error::Tiling { stage: self.config.name.clone(), source };
        let tiles = job.tiling.map(|t| TileGrid::new(t, height, width, multiple).map_err(tiling)).transpose()?;
        // One tile is the whole picture.
        let tiles = tiles.filter(|tiles| tiles.len() > 1);
        if tiles.is_some() && job.paint.is_some() {
            return wrong("paint", "a painted picture cannot be cut into tiles".to_owned());
        }
        Ok(tiles)
    }

    fn run(
        &mut self,
        job: &StageJob<'_>,
        tiles: Option<&TileGrid>,
        noise: &mut dyn NoiseSource,
        watch: &Watch<'_>,
    ) -> ediffi_core::Result<Tensor> {
        let SamplerSettings { solver, guidance, rows, .. } = &job.settings;
        let sigmas = job.settings.sigmas()?;
        solver.validate()?;
        guidance.validate()?;
        let plan = self.ensemble.follow(&sigmas)?;
        tracing::debug!(%plan, "planned");
        let evaluations = solver.evaluations(&sigmas);
        watch.report(&StageEvent::StageStarted { stage: watch.stage(), plan: &plan, evaluations })?;
        let channels = self.networks.first().map_or(3, |network| network.io().channels);
        let shape = [job.seeds.len() as i64, channels, job.height, job.width];
        let start = noise.normal(&shape)?.f_to_device(self.runtime.device)?;
        let branches = self.branches(job, noise)?;
        let keep_contexts = self.residency == Residency::All;
        let denoiser = EnsembleDenoiser::new(&mut self.ensemble, &branches, keep_contexts, job.paint, tiles, watch);
        let mut guided = Guided::new(denoiser, guidance.clone(), *rows)?;
        let picture = solver.solve(&mut guided, start, &sigmas, noise, &mut &*watch)?;
        drop(guided);
        watch.report(&StageEvent::StageFinished { stage: watch.stage() })?;
        Ok(picture.f_clamp(-1.0, 1.0)?)
    }

    /// The conditionings on the device, with the enlarged smaller picture.
    fn branches(&self, job: &StageJob<'_>, noise: &mut dyn NoiseSource) -> ediffi_core::Result<Branches> {
        let device = self.runtime.device;
        let condition = |x: &Tensor| {
            let x = x.f_to_device(device)?;
            self.config.low_res.condition(&x, job.height, job.width, noise)
        };
        let low_res = job.low_res.map(condition).transpose()?;
        let pictures = job.seeds.len() as i64;
        let level = self.config.low_res.noise_level.map(|level| level as i64);
        let level = level.map(|level| Tensor::f_full([pictures], level, (Kind::Int64, device))).transpose()?;
        let with_picture = |conditioning: &Conditioning| -> ediffi_core::Result<Conditioning> {
            let [low_res, noise_level] = [&low_res, &level].map(|x| x.as_ref().map(Tensor::shallow_clone));
            Ok(Conditioning { low_res, noise_level, ..conditioning.to(device, Kind::Float)? })
        };
        Ok(Branches {
            conditional: with_picture(job.conditioning)?,
            unconditional: with_picture(job.unconditional)?,
            pictures,
        })
    }

    /// Names the stage, and the expert that made a NaN.
    fn explain(&self, source: ediffi_core::Error) -> Error {
        let sigma = match source {
            ediffi_core::Error::DenoisedNotFinite { sigma } => sigma,
            source => return Error::in_stage(self.name(), source),
        };
        let expert = self.ensemble.experts().index_of(sigma).unwrap_or_default();
        let weights = self.config.experts.get(expert).map(|expert| expert.weights.display().to_string());
        let (stage, weights) = (self.config.name.clone(), weights.unwrap_or_default());
        let files = self.weights.get(expert).zip(self.networks.get(expert));
        match files.map(|(file, network)| broken_tensor(file, network)) {
            Some(Ok(Some(tensor))) => Error::WeightsNotFinite { stage, expert, weights, tensor },
            // Why the file cannot be read again matters less than what was seen.
            _ => Error::NotFinite { stage, expert, weights, sigma },
        }
    }
}

/// An embedding that is not one of `pictures` rows, and how many it has.
fn other_rows(conditioning: &Conditioning, pictures: usize) -> Option<(&'static str, i64)> {
    let Conditioning { t5, clip_text, clip_text_pooled, clip_image, .. } = conditioning;
    let named =
        [("t5", t5), ("clip_text", clip_text), ("clip_text_pooled", clip_text_pooled), ("clip_image", clip_image)];
    let rows = |x: &Tensor| x.size().first().copied().unwrap_or(0);
    let mut given = named.into_iter().filter_map(|(name, x)| Some((name, rows(x.as_ref()?))));
    given.find(|(_, rows)| usize::try_from(*rows) != Ok(pictures))
}

/// What a network takes besides the noisy picture, apart from inner widths: the experts of a stage share it.
fn inputs(network: &UNetConfig) -> impl PartialEq {
    let Io { channels, low_res, embeddings, .. } = network.io();
    (channels, low_res, embeddings)
}
