//! Sampling one batch of pictures with a stage.

use std::collections::HashMap;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::{Guided, Rows};
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::seed::Noise;
use tch::{Kind, Tensor};

use crate::denoiser::{Inputs, StageDenoiser};
use crate::diagnosis::broken_tensor;
use crate::observer::{Batch, StageObserver, Watch};
use crate::settings::SamplerSettings;
use crate::stage::Stage;
use crate::tiled::TileGrid;
use crate::tiling::Tiling;
use crate::{Error, Result};

/// No embedding at all.
const NOTHING: Conditioning = Conditioning {
    t5: None,
    clip_text: None,
    clip_text_pooled: None,
    clip_image: None,
    low_res: None,
    noise_level: None,
};

/// One batch of pictures to sample.
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
    pub settings: &'a SamplerSettings,
    /// Whether conditional and unconditional rows are computed in one batch or one after the other.
    pub rows: Rows,
    /// Paint-with-words.
    pub paint: Option<&'a dyn ScoreBias>,
    /// How to cut pictures that are too large for the network at once.
    pub tiling: Option<Tiling>,
}

impl<'a> StageJob<'a> {
    /// Pictures of the stage's own size, guided away from nothing in particular.
    #[must_use]
    pub fn new(stage: &Stage, conditioning: &'a Conditioning, seeds: &'a [u64], settings: &'a SamplerSettings) -> Self {
        let (height, width) = (stage.size(), stage.size());
        let (stage_index, rows) = (0, Rows::default());
        let (low_res, paint, tiling) = (None, None, None);
        let unconditional = &NOTHING;
        Self { conditioning, unconditional, seeds, stage_index, height, width, low_res, settings, rows, paint, tiling }
    }
}

impl Stage {
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
    pub fn sample(&mut self, job: &StageJob<'_>, observer: &mut dyn StageObserver) -> Result<Tensor> {
        self.sample_batch(job, None, Batch::ONLY, observer)
    }

    /// [`sample`](Self::sample) with noise from elsewhere: recorded, to repeat what another program has drawn. The noise of
    /// the start is asked for first, then that of the smaller picture, then those of the steps.
    ///
    /// # Errors
    /// As [`sample`](Self::sample), and those of `noise`.
    pub fn sample_from(
        &mut self,
        job: &StageJob<'_>,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn StageObserver,
    ) -> Result<Tensor> {
        self.sample_batch(job, Some(noise), Batch::ONLY, observer)
    }

    /// [`sample_from`](Self::sample_from) for one batch of several, with the noise of the seeds if there is none.
    pub(crate) fn sample_batch(
        &mut self,
        job: &StageJob<'_>,
        noise: Option<&mut dyn NoiseSource>,
        batch: Batch,
        observer: &mut dyn StageObserver,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let span = tracing::info_span!("stage", name = self.name());
        let _entered = span.enter();
        let tiles = self.check(job)?;
        let name = self.name().to_owned();
        let watch = Watch::new(&name, batch, observer);
        let result = match noise {
            Some(noise) => self.run(job, tiles.as_ref(), noise, &watch),
            None => self.run(job, tiles.as_ref(), &mut Noise::new(job.seeds, job.stage_index), &watch),
        };
        result.map_err(|source| self.explain(source))
    }

    /// Refuses what would fail late or be ignored.
    fn check(&self, job: &StageJob<'_>) -> Result<Option<TileGrid>> {
        let wrong = |input, reason| Err(Error::Job { stage: self.name().to_owned(), input, reason });
        let (width, height, multiple) = (job.width, job.height, self.sizes().multiple);
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
            if let Some((name, x)) = conditioning.named().find(|(_, x)| rows(x) != job.seeds.len()) {
                let (rows, pictures) = (rows(x), job.seeds.len());
                return wrong(input, format!("{name} has {rows} rows, there are {pictures} seeds"));
            }
        }
        if job.low_res.is_some() != self.is_super_resolution() {
            let source = ediffi_core::Error::LowRes { given: job.low_res.is_some() };
            return Err(Error::in_stage(self.name(), source));
        }
        if let Some(low_res) = job.low_res {
            let (shape, pictures, channels) = (low_res.size(), job.seeds.len() as i64, self.channels());
            if !matches!(shape[..], [rows, c, h, w] if rows == pictures && c == channels && h > 0 && w > 0) {
                let expected = format!("[{pictures}, {channels}, height, width]");
                return wrong("low_res", format!("its shape is {shape:?}, expected {expected}"));
            }
        }
        let tiling = |source| Error::Tiling { stage: self.name().to_owned(), source };
        let tiles = job.tiling.map(|t| TileGrid::new(t, height, width, multiple).map_err(tiling)).transpose()?;
        // One tile is the whole picture.
        Ok(tiles.filter(|tiles| tiles.len() > 1))
    }

    fn run(
        &mut self,
        job: &StageJob<'_>,
        tiles: Option<&TileGrid>,
        noise: &mut dyn NoiseSource,
        watch: &Watch<'_>,
    ) -> ediffi_core::Result<Tensor> {
        let SamplerSettings { solver, guidance, .. } = job.settings;
        let sigmas = job.settings.sigmas()?;
        solver.validate()?;
        guidance.validate()?;
        let plan = self.ensemble.follow(&sigmas)?;
        tracing::debug!(%plan, "planned");
        let shape = [job.seeds.len() as i64, self.channels(), job.height, job.width];
        let start = noise.normal(&shape)?.f_to_device(self.runtime().device)?;
        let denoiser = StageDenoiser {
            inputs: &self.inputs(job, noise)?,
            keep_contexts: self.residency() == Residency::All,
            ensemble: &mut self.ensemble,
            paint: job.paint,
            tiles,
            watch,
            current: None,
            contexts: HashMap::new(),
        };
        let mut guided = Guided::new(denoiser, guidance.clone(), job.rows)?;
        let picture = solver.solve(&mut guided, start, &sigmas, noise, &mut &*watch)?;
        Ok(picture.f_clamp(-1.0, 1.0)?)
    }

    /// The conditionings on the device, with the enlarged smaller picture.
    fn inputs(&self, job: &StageJob<'_>, noise: &mut dyn NoiseSource) -> ediffi_core::Result<Inputs> {
        let device = self.runtime().device;
        let condition = |x: &Tensor| {
            let x = x.f_to_device(device)?;
            self.config().low_res.condition(&x, job.height, job.width, noise)
        };
        let low_res = job.low_res.map(condition).transpose()?;
        let pictures = job.seeds.len() as i64;
        let level = self.config().low_res.noise_level.map(|level| level as i64);
        let level = level.map(|level| Tensor::f_full([pictures], level, (Kind::Int64, device))).transpose()?;
        let with_picture = |conditioning: &Conditioning| -> ediffi_core::Result<Conditioning> {
            let [low_res, noise_level] = [&low_res, &level].map(|x| x.as_ref().map(Tensor::shallow_clone));
            Ok(Conditioning { low_res, noise_level, ..conditioning.to(device, Kind::Float)? })
        };
        let [conditional, unconditional] = [with_picture(job.conditioning)?, with_picture(job.unconditional)?];
        Ok(Inputs { conditional, unconditional, pictures })
    }

    /// Names the stage, and the expert that made a NaN.
    fn explain(&self, source: ediffi_core::Error) -> Error {
        let sigma = match source {
            ediffi_core::Error::DenoisedNotFinite { sigma } => sigma,
            source => return Error::in_stage(self.name(), source),
        };
        let expert = self.ensemble.experts().index_of(sigma).unwrap_or_default();
        let weights = self.config().experts.get(expert).map(|expert| expert.weights.display().to_string());
        let (stage, weights) = (self.name().to_owned(), weights.unwrap_or_default());
        match self.files().get(expert).map(|files| broken_tensor(&files.weights, &files.network)) {
            Some(Ok(Some(tensor))) => Error::WeightsNotFinite { stage, expert, weights, tensor },
            // Why the file cannot be read again matters less than what was seen.
            _ => Error::NotFinite { stage, expert, weights, sigma },
        }
    }
}

/// How many rows a tensor has.
pub(crate) fn rows(x: &Tensor) -> usize {
    x.size().first().and_then(|&rows| usize::try_from(rows).ok()).unwrap_or(0)
}
