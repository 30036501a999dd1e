//! A model under evaluation: many prompts drawn quickly, each with the noise of its own seed, as the library draws them.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ediffi::{Conditioning, Painter, Pipeline, Problem, Request, Runtime, StageConfig};
use ediffi_cascade::{Cascade, CascadeJob, SamplerSettings, SettingsPatch, Stage, StageEvent};
use ediffi_core::guidance::Guidance;
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::schedule::Schedule;
use ediffi_core::seed::Noise;
use ediffi_core::solver::Solver;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::judge::network::SIDE;
use crate::rows::Rows;
use crate::work;

/// Pictures of a batch of the base; a later stage has fewer, by its size.
pub(crate) const BATCH: usize = 16;

/// A text encoder whose embeddings are left out, as zeros: the network knows them from training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Without {
    /// T5's tokens.
    T5,
    /// CLIP's tokens and its pooled text.
    Clip,
}

/// An opened model.
#[derive(Debug)]
pub struct Model {
    pipeline: Pipeline,
    workers: usize,
}

/// A picture to draw: its embeddings (of one row) and its seed.
#[derive(Debug)]
pub struct Wish {
    /// Embeddings of the prompt.
    pub conditioning: Conditioning,
    /// Seed of the picture.
    pub seed: u64,
}

/// Pictures reduced to what the judge sees: the mean of what falls into a pixel.
///
/// # Shapes
/// [n, 3, size, size] → [n, 3, 64, 64]
///
/// # Errors
/// A tensor that is no picture.
pub fn reduced(pictures: Tensor) -> Result<Tensor> {
    let (_, _, height, width) = pictures.size4()?;
    if (height, width) == (SIDE, SIDE) { Ok(pictures) } else { Ok(pictures.f_adaptive_avg_pool2d([SIDE, SIDE])?) }
}

/// Pictures of this side in a batch: as many pixels as a batch of the base has.
fn most(side: i64) -> usize {
    (BATCH as i64 * SIDE * SIDE / (side * side)).clamp(1, BATCH as i64) as usize
}

impl Model {
    /// Opens a model folder on the CPU's cores, one worker a core.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_on(folder, None)
    }

    /// As [`Model::open`], on this many of the cores.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn open_on(folder: &Path, cores: Option<usize>) -> Result<Self> {
        let pipeline = Pipeline::builder(folder).keep_encoders(true).open()?;
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let cores = cores.unwrap_or_else(all).max(1);
        let workers = if pipeline.runtime().device == Device::Cpu { cores } else { 1 };
        tch::set_num_threads((cores / workers) as i32);
        Ok(Self { pipeline, workers })
    }

    /// The pipeline, to encode and to ask.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The stages, the base first.
    #[must_use]
    pub fn stages(&self) -> &[StageConfig] {
        &self.pipeline.manifest().stages
    }

    /// The base.
    ///
    /// # Errors
    /// [`Error::Setting`] for a model without stages.
    pub fn base(&self) -> Result<&StageConfig> {
        self.stages().first().ok_or_else(|| Error::Setting { what: "model", reason: "it has no stages".to_owned() })
    }

    /// The base, if its pictures are of the size that the judge looks at.
    ///
    /// # Errors
    /// [`Error::Setting`] for a base of another size, and those of [`base`](Self::base).
    pub fn judged_base(&self) -> Result<&StageConfig> {
        let base = self.base()?;
        if base.size == SIDE {
            return Ok(base);
        }
        let reason = format!("its base draws {} pixels, the judge looks at {SIDE}", base.size);
        Err(Error::Setting { what: "model", reason })
    }

    /// How many threads draw.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Whether the encoders read a prompt to its end.
    ///
    /// # Errors
    /// As [`Pipeline::validate`], for anything else that is wrong: a tokenizer that cannot be read refuses no prompt.
    pub fn reads(&self, prompt: &str) -> Result<bool> {
        let long = |problem: &Problem| matches!(problem, Problem::TooLong { .. });
        match self.pipeline.validate(&Request::new(prompt)) {
            Ok(()) => Ok(true),
            Err(ediffi::Error::InvalidRequest { problems }) if problems.iter().all(long) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Encodes a prompt. The end of one that is too long is left unread, as it was in training.
    ///
    /// # Errors
    /// As [`Pipeline::encode`].
    pub fn wish(&self, prompt: &str, seed: u64, without: Option<Without>) -> Result<Wish> {
        let conditioning = self.pipeline.encode(&Request::new(prompt).truncate(true))?.conditioning();
        let conditioning = match without {
            None => conditioning,
            Some(Without::T5) => Conditioning { t5: None, ..conditioning },
            Some(Without::Clip) => Conditioning { clip_text: None, clip_text_pooled: None, ..conditioning },
        };
        Ok(Wish { conditioning, seed })
    }

    /// Draws the pictures of the first `stages` stages, the base with `settings`, and reduces them to what the judge sees.
    ///
    /// # Shapes
    /// → [wishes, 3, 64, 64] in [-1, 1], on the CPU
    ///
    /// # Errors
    /// As [`Cascade::run`].
    pub fn draw(&self, wishes: &[Wish], stages: usize, settings: &SamplerSettings) -> Result<Tensor> {
        self.drawn(wishes, stages, settings, None)
    }

    /// The base's pictures of wishes that are painted, each by the painter at its place.
    ///
    /// # Shapes
    /// As [`Model::draw`].
    ///
    /// # Errors
    /// As [`Cascade::run`].
    pub fn draw_painted(&self, wishes: &[Wish], painters: &[Painter], settings: &SamplerSettings) -> Result<Tensor> {
        self.drawn(wishes, 1, settings, Some(painters))
    }

    /// The pictures of the stage of this index, from those of the stage before it, with `settings`.
    ///
    /// # Shapes
    /// `smaller`: [wishes, 3, h, w] in [-1, 1], none for the base → [wishes, 3, size, size], on the CPU
    ///
    /// # Errors
    /// [`Error::Setting`] for a stage that is not there, and as [`Cascade::run`].
    pub fn draw_stage(
        &self,
        wishes: &[Wish],
        index: usize,
        smaller: Option<&Tensor>,
        settings: &SamplerSettings,
    ) -> Result<Tensor> {
        let missing = || Error::Setting { what: "stage", reason: format!("there is none of number {index}") };
        let stages = self.stages().get(..=index).ok_or_else(missing)?;
        let size = stages.last().map_or(SIDE, |stage| stage.size);
        let smaller = Mutex::new(smaller.map(Tensor::shallow_clone));
        let patch = SettingsPatch::from(settings.clone());
        self.each(wishes, stages, most(size), |opened, wish| {
            let low_res = {
                let smaller = smaller.lock().unwrap_or_else(PoisonError::into_inner);
                let rows = |all: &Tensor| all.f_narrow(0, wish.first as i64, wish.seeds.len() as i64);
                smaller.as_ref().map(rows).transpose()?
            };
            let plans = opened.plan(index..=index, (None, None), |_| Some(&patch))?;
            let job = CascadeJob::new(&plans, &wish.conditioning, &wish.seeds);
            pictures(opened, CascadeJob { low_res: low_res.as_ref(), ..job })
        })
    }

    fn drawn(
        &self,
        wishes: &[Wish],
        stages: usize,
        settings: &SamplerSettings,
        painters: Option<&[Painter]>,
    ) -> Result<Tensor> {
        let stages = self.stages().get(..stages.clamp(1, self.stages().len())).unwrap_or_default();
        let side = stages.last().map_or(SIDE, |stage| stage.size);
        self.each(wishes, stages, most(side), |opened, wish| {
            let batch = wish.first..wish.first + wish.seeds.len();
            let rows = painters.map(|painters| Rows(painters.get(batch).unwrap_or_default()));
            let base = SettingsPatch::from(settings.clone());
            let name = opened.stages().first().map(|stage| stage.name().to_owned());
            let patch = |stage: &str| name.as_deref().filter(|name| *name == stage).map(|_| &base);
            let plans = opened.plan(0..=stages.len() - 1, (None, None), patch)?;
            let job = CascadeJob::new(&plans, &wish.conditioning, &wish.seeds);
            let paint = rows.as_ref().map(|rows| rows as &dyn ScoreBias);
            reduced(pictures(opened, CascadeJob { paint, ..job })?)
        })
    }

    /// The base's estimates D(x; σ) of clean pictures, at one noise level and without guidance.
    ///
    /// # Shapes
    /// `clean`: [wishes, 3, size, size] in [-1, 1] → the same
    ///
    /// # Errors
    /// As [`Cascade::run`].
    pub fn estimate(&self, wishes: &[Wish], clean: &Tensor, sigma: f64) -> Result<Tensor> {
        let stages = self.stages().get(..1).unwrap_or_default();
        let settings = SamplerSettings {
            // One step: what it ends with is the estimate.
            solver: Solver::Euler,
            steps: 1,
            schedule: Schedule::Custom(vec![sigma, 0.0]),
            guidance: Guidance::new(1.0),
        };
        let clean: Vec<Tensor> =
            (0..wishes.len() as i64).map(|row| Ok(clean.f_narrow(0, row, 1)?)).collect::<Result<_>>()?;
        let clean = Mutex::new(clean);
        let patch = SettingsPatch::from(settings);
        self.each(wishes, stages, BATCH, |opened, wish| {
            let rows: Vec<Tensor> = {
                let clean = clean.lock().unwrap_or_else(PoisonError::into_inner);
                clean.iter().skip(wish.first).take(wish.seeds.len()).map(Tensor::shallow_clone).collect()
            };
            let clean = Tensor::f_cat(&rows, 0)?;
            let mut noise = |_: &str, seeds: &[u64]| -> Box<dyn NoiseSource> {
                Box::new(Noised { clean: clean.shallow_clone(), sigma, noise: Noise::new(seeds, 0) })
            };
            let plans = opened.plan(0..=0, (None, None), |_| Some(&patch))?;
            let job = CascadeJob::new(&plans, &wish.conditioning, &wish.seeds);
            first_estimate(opened, CascadeJob { noise: Some(&mut noise), ..job })
        })
    }

    /// Runs pairs of wishes in batches on the base: `run` gets the embeddings of both and the seeds of the first.
    pub(crate) fn pairs(
        &self,
        first: &[Wish],
        second: &[Wish],
        run: impl Fn(&mut Cascade, &[Conditioning; 2], &[u64]) -> Result<Tensor> + Sync,
    ) -> Result<Tensor> {
        let stages = self.stages().get(..1).unwrap_or_default();
        let rows = second.iter().map(|wish| wish.conditioning.shallow_clone()).collect::<Vec<_>>();
        let second = Mutex::new(rows);
        self.each(first, stages, BATCH, |opened, wish| {
            let other = {
                let second = second.lock().unwrap_or_else(PoisonError::into_inner);
                let rows: Vec<&Conditioning> = second.iter().skip(wish.first).take(wish.seeds.len()).collect();
                stacked(&rows)?
            };
            run(opened, &[wish.conditioning, other], &wish.seeds)
        })
    }

    /// Runs the wishes in batches, on every worker with stages of its own, and puts the results together.
    pub(crate) fn each(
        &self,
        wishes: &[Wish],
        stages: &[StageConfig],
        most: usize,
        run: impl Fn(&mut Cascade, Batch) -> Result<Tensor> + Sync,
    ) -> Result<Tensor> {
        let (folder, runtime): (&Path, Runtime) = (self.pipeline.folder(), self.pipeline.runtime());
        // Few wishes are shared out, so that no worker stands idle.
        let most = most.min(wishes.len().div_ceil(self.workers)).max(1);
        let mut batches = VecDeque::new();
        for (number, wishes) in wishes.chunks(most).enumerate() {
            let rows: Vec<&Conditioning> = wishes.iter().map(|wish| &wish.conditioning).collect();
            let seeds = wishes.iter().map(|wish| wish.seed).collect();
            batches.push_back(Batch { first: number * most, conditioning: stacked(&rows)?, seeds });
        }
        let queue = Mutex::new(batches);
        let parts = work::spread(0..self.workers, |_| {
            let _no_grad = tch::no_grad_guard();
            let open = |stage| Ok(Stage::open(folder, stage, runtime, Residency::All)?);
            let mut opened = Cascade::new(stages.iter().map(open).collect::<Result<_>>()?)?;
            let mut parts = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(batch) = next else { return Ok(parts) };
                let first = batch.first;
                parts.push((first, run(&mut opened, batch)?));
            }
        })?;
        let mut parts: Vec<(usize, Tensor)> = parts.into_iter().flatten().collect();
        parts.sort_by_key(|(first, _)| *first);
        let parts: Vec<Tensor> = parts.into_iter().map(|(_, part)| part).collect();
        if parts.is_empty() {
            return Ok(Tensor::f_zeros([0, 3, SIDE, SIDE], (Kind::Float, Device::Cpu))?);
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }
}

/// The pictures of a job of one batch, on the CPU.
pub(crate) fn pictures(cascade: &mut Cascade, job: CascadeJob<'_>) -> Result<Tensor> {
    let mut drawn = None;
    let mut keep = |event: &StageEvent<'_>| {
        if let StageEvent::Pictures { pictures, .. } = event {
            drawn = Some(pictures.shallow_clone());
        }
        ControlFlow::Continue(())
    };
    cascade.run(job, &mut keep)?;
    drawn.ok_or(Error::Worker)
}

/// The estimate that the first step of a job of one batch starts with, on the CPU.
pub(crate) fn first_estimate(cascade: &mut Cascade, job: CascadeJob<'_>) -> Result<Tensor> {
    let mut estimate = None;
    let mut keep = |event: &StageEvent<'_>| {
        if let StageEvent::Step { denoised, .. } = event {
            estimate.get_or_insert_with(|| denoised.shallow_clone());
        }
        ControlFlow::Continue(())
    };
    cascade.run(job, &mut keep)?;
    Ok(estimate.ok_or(Error::Worker)?.f_to_device(Device::Cpu)?)
}

/// Some wishes, computed together.
pub(crate) struct Batch {
    first: usize,
    /// Their embeddings, a row each.
    pub conditioning: Conditioning,
    /// Their seeds.
    pub seeds: Vec<u64>,
}

/// Rows on top of each other. All of them come from one model and have the same embeddings.
fn stacked(rows: &[&Conditioning]) -> Result<Conditioning> {
    let stack = |of: fn(&Conditioning) -> Option<&Tensor>| -> Result<Option<Tensor>> {
        let parts: Vec<&Tensor> = rows.iter().filter_map(|row| of(row)).collect();
        Ok(if parts.is_empty() { None } else { Some(Tensor::f_cat(&parts, 0)?) })
    };
    Ok(Conditioning {
        t5: stack(|row| row.t5.as_ref())?,
        clip_text: stack(|row| row.clip_text.as_ref())?,
        clip_text_pooled: stack(|row| row.clip_text_pooled.as_ref())?,
        clip_image: stack(|row| row.clip_image.as_ref())?,
        ..Conditioning::default()
    })
}

/// Noise that makes a stage begin at x = clean + σ ε: it multiplies what it is given by σ.
struct Noised {
    clean: Tensor,
    sigma: f64,
    noise: Noise,
}

impl NoiseSource for Noised {
    fn normal(&mut self, shape: &[i64]) -> ediffi_core::Result<Tensor> {
        Ok(self.clean.f_div_scalar(self.sigma)?.f_add(&self.noise.normal(shape)?)?)
    }
}
