//! A model under evaluation: many prompts drawn quickly, each with the noise of its own seed, as the library draws them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ediffi::{Conditioning, Painter, Pipeline, Problem, Request, SettingsPreset, StageConfig};
use ediffi_cascade::{Cascade, CascadeJob, SamplerSettings, SettingsPatch, Stage, StageEvent};
use ediffi_core::guidance::Guidance;
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::schedule::Schedule;
use ediffi_core::seed::Noise;
use ediffi_core::solver::Solver;
use serde::Serialize;
use tch::{Device, Tensor};
use train_icons::scene::Scene;

use crate::error::{Error, Result};
use crate::judge::network::{SIDE, reduced};
use crate::rows::Rows;

/// Pictures of a batch of the base; a later stage has fewer, by its size.
const BATCH: usize = 16;

/// A text encoder whose embeddings are left out, as zeros: the network knows them from training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
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
    /// What encodes prompts.
    pub(crate) pipeline: Pipeline,
    /// How many threads draw.
    pub(crate) workers: usize,
}

/// A picture to draw: its embeddings (of one row) and its seed.
#[derive(Debug)]
pub struct Wish {
    /// Embeddings of the prompt.
    pub conditioning: Conditioning,
    /// Seed of the picture.
    pub seed: u64,
}

impl Model {
    /// Opens a model folder on this many of the CPU's cores, one worker a core; on all of them if there is no number.
    pub fn open(folder: &Path, cores: Option<usize>) -> Result<Self> {
        let pipeline = Pipeline::builder(folder).keep_encoders(true).open()?;
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let cores = cores.unwrap_or_else(all).max(1);
        let workers = if pipeline.runtime().device == Device::Cpu { cores } else { 1 };
        tch::set_num_threads((cores / workers) as i32);
        Ok(Self { pipeline, workers })
    }

    /// The stages, the base first.
    pub fn stages(&self) -> &[StageConfig] {
        &self.pipeline.manifest().stages
    }

    /// The presets, by name.
    pub fn presets(&self) -> &BTreeMap<String, SettingsPreset> {
        &self.pipeline.manifest().presets
    }

    /// The base.
    pub fn base(&self) -> Result<&StageConfig> {
        self.stages().first().ok_or_else(|| Error::Setting { what: "model", reason: "it has no stages".to_owned() })
    }

    /// The base, if its pictures are of the size that the judge looks at.
    pub fn judged_base(&self) -> Result<&StageConfig> {
        let base = self.base()?;
        if base.size == SIDE {
            return Ok(base);
        }
        let reason = format!("its base draws {} pixels, the judge looks at {SIDE}", base.size);
        Err(Error::Setting { what: "model", reason })
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
    pub fn wish(&self, prompt: &str, seed: u64, without: Option<Without>) -> Result<Wish> {
        let conditioning = self.pipeline.encode(&Request::new(prompt).truncate(true))?.conditioning();
        let conditioning = match without {
            None => conditioning,
            Some(Without::T5) => Conditioning { t5: None, ..conditioning },
            Some(Without::Clip) => Conditioning { clip_text: None, clip_text_pooled: None, ..conditioning },
        };
        Ok(Wish { conditioning, seed })
    }

    /// Encodes the captions of scenes, each with the seed of its picture.
    pub(crate) fn wishes<'a>(
        &self,
        scenes: impl IntoIterator<Item = (&'a Scene, u64)>,
        without: Option<Without>,
    ) -> Result<Vec<Wish>> {
        scenes.into_iter().map(|(scene, seed)| self.wish(&scene.caption, seed, without)).collect()
    }

    /// Draws the pictures of the first `stages` stages, the base with `settings` and each picture painted by the painter at its place, if
    /// there are any, and reduces them to what the judge sees.
    ///
    /// # Shapes
    /// → [wishes, 3, 64, 64] in [-1, 1], on the CPU
    pub fn draw(
        &self,
        wishes: &[Wish],
        stages: usize,
        settings: &SamplerSettings,
        painters: Option<&[Painter]>,
    ) -> Result<Tensor> {
        let rows = |rows| Ok(painters.map(|painters| Rows(painters.get(rows).unwrap_or_default())));
        let base = SettingsPatch::from(settings.clone());
        let pictures = self.each(wishes, stages, rows, |opened, batch, rows| {
            let name = opened.stages().first().map(|stage| stage.name().to_owned());
            let patch = |stage: &str| name.as_deref().filter(|name| *name == stage).map(|_| &base);
            let plans = opened.plan(0..=opened.stages().len() - 1, (None, None), patch)?;
            let job = CascadeJob::new(&plans, &batch.conditioning, &batch.seeds);
            let paint = rows.as_ref().map(|rows| rows as &dyn ScoreBias);
            reduced(pictures(opened, CascadeJob { paint, ..job })?)
        })?;
        Ok(Tensor::f_cat(&pictures, 0)?)
    }

    /// The pictures of the stage of this index, from those of the stage before it, with `settings`.
    ///
    /// # Shapes
    /// `smaller`: [wishes, 3, h, w] in [-1, 1], none for the base → [wishes, 3, size, size], on the CPU
    pub fn draw_stage(
        &self,
        wishes: &[Wish],
        index: usize,
        smaller: Option<&Tensor>,
        settings: &SamplerSettings,
    ) -> Result<Tensor> {
        let smaller = |rows| smaller.map(|smaller| narrowed(smaller, rows)).transpose();
        let patch = SettingsPatch::from(settings.clone());
        let pictures = self.each(wishes, index + 1, smaller, |opened, batch, low_res| {
            let plans = opened.plan(index..=index, (None, None), |_| Some(&patch))?;
            let job = CascadeJob::new(&plans, &batch.conditioning, &batch.seeds);
            pictures(opened, CascadeJob { low_res: low_res.as_ref(), ..job })
        })?;
        Ok(Tensor::f_cat(&pictures, 0)?)
    }

    /// The base's estimates D(x; σ) of clean pictures, at one noise level and without guidance.
    ///
    /// # Shapes
    /// `clean`: [wishes, 3, size, size] in [-1, 1] → the same
    pub fn estimate(&self, wishes: &[Wish], clean: &Tensor, sigma: f64) -> Result<Tensor> {
        // One step: what it ends with is the estimate.
        let schedule = Schedule::Custom(vec![sigma, 0.0]);
        let patch = SettingsPatch::from(SamplerSettings::new(Solver::Euler, 1, schedule, Guidance::new(1.0)));
        let estimates = self.each(
            wishes,
            1,
            |rows| narrowed(clean, rows),
            |opened, batch, clean| {
                let mut noise = |_: &str, seeds: &[u64]| -> Box<dyn NoiseSource> {
                    Box::new(Noised { clean: clean.shallow_clone(), sigma, noise: Noise::new(seeds, 0) })
                };
                let plans = opened.plan(0..=0, (None, None), |_| Some(&patch))?;
                let job = CascadeJob::new(&plans, &batch.conditioning, &batch.seeds);
                first_estimate(opened, CascadeJob { noise: Some(&mut noise), ..job })
            },
        )?;
        Ok(Tensor::f_cat(&estimates, 0)?)
    }

    /// Runs the wishes in batches, on every worker with the first `stages` stages of its own. `beside` gives what else a batch of these rows
    /// takes. The results are in the order of the wishes.
    pub(crate) fn each<B: Send, T: Send>(
        &self,
        wishes: &[Wish],
        stages: usize,
        beside: impl Fn(Range<usize>) -> Result<B>,
        run: impl Fn(&mut Cascade, &Batch, B) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let (folder, runtime) = (self.pipeline.folder(), self.pipeline.runtime());
        let stages: Vec<&StageConfig> = self.stages().iter().take(stages).collect();
        // As many pixels as a batch of the base has; and few wishes are shared out, so that no worker stands idle.
        let side = stages.last().map_or(SIDE, |stage| stage.size);
        let most = (BATCH as i64 * SIDE * SIDE / (side * side)).clamp(1, BATCH as i64) as usize;
        let most = most.min(wishes.len().div_ceil(self.workers)).max(1);
        let mut batches = VecDeque::new();
        for (number, wishes) in wishes.chunks(most).enumerate() {
            let seeds = wishes.iter().map(|wish| wish.seed).collect();
            let batch = Batch { conditioning: stacked(wishes)?, seeds };
            batches.push_back((number, batch, beside(number * most..number * most + wishes.len())?));
        }
        let queue = Mutex::new(batches);
        let worker = || -> Result<Vec<(usize, T)>> {
            let _no_grad = tch::no_grad_guard();
            let open = |stage: &&StageConfig| Ok(Stage::open(folder, stage, runtime, Residency::All)?);
            let mut opened = Cascade::new(stages.iter().map(open).collect::<Result<_>>()?)?;
            let mut parts = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((number, batch, beside)) = next else { return Ok(parts) };
                parts.push((number, run(&mut opened, &batch, beside)?));
            }
        };
        // Small networks gain far more from pictures computed beside each other than from threads that share one operation.
        let parts = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.workers).map(|_| scope.spawn(worker)).collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| Error::Worker)?).collect::<Result<Vec<_>>>()
        })?;
        let parts: BTreeMap<usize, T> = parts.into_iter().flatten().collect();
        Ok(parts.into_values().collect())
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
    /// Their embeddings, a row each.
    pub conditioning: Conditioning,
    /// Their seeds.
    pub seeds: Vec<u64>,
}

/// The embeddings of wishes on top of each other. All of them come from one model and have the same.
pub(crate) fn stacked(wishes: &[Wish]) -> Result<Conditioning> {
    let stack = |of: fn(&Conditioning) -> Option<&Tensor>| -> Result<Option<Tensor>> {
        let parts: Vec<&Tensor> = wishes.iter().filter_map(|wish| of(&wish.conditioning)).collect();
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

/// These rows of a tensor.
fn narrowed(all: &Tensor, rows: Range<usize>) -> Result<Tensor> {
    Ok(all.f_narrow(0, rows.start as i64, rows.len() as i64)?)
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
