//! The stages in order.

use ediffi_core::conditioning::Conditioning;
use ediffi_core::nn::ScoreBias;
use ediffi_core::pool::Residency;
use tch::Tensor;

use crate::multiple::{gcd, lcm};
use crate::observer::StageObserver;
use crate::settings::SamplerSettings;
use crate::stage::{Stage, StageJob};
use crate::tiling::Tiling;
use crate::{Error, Result};

/// Stages of rising size, each enlarging the pictures of the one before.
#[derive(Debug)]
pub struct Cascade {
    stages: Vec<Stage>,
}

/// How one stage of a cascade does its part.
#[derive(Debug, Clone)]
pub struct StageOptions<'a> {
    /// How to sample.
    pub settings: SamplerSettings,
    /// Paint-with-words.
    pub paint: Option<&'a dyn ScoreBias>,
    /// How to cut pictures that are too large for the network at once.
    pub tiling: Option<Tiling>,
}

/// What to sample.
#[derive(Debug)]
pub struct CascadeJob<'a> {
    /// What the pictures show: embeddings of n rows. Each stage gets those that it takes.
    pub conditioning: &'a Conditioning,
    /// What guidance leans away from: embeddings of n rows, or none, which is all zeros.
    pub unconditional: &'a Conditioning,
    /// One for each of the n pictures.
    pub seeds: &'a [u64],
    /// Width and height of the pictures that come out, after `last_stage`; the last stage's own size if `None`. The
    /// stages before make them smaller in proportion to their sizes.
    pub size: Option<(i64, i64)>,
    /// The stage to begin with, from 0. A super-resolution stage enlarges `low_res`.
    pub first_stage: usize,
    /// The stage to end with; the highest if `None`.
    pub last_stage: Option<usize>,
    /// Pictures to enlarge, [n, 3, h, w] in [-1, 1], if the first stage is one of super-resolution.
    pub low_res: Option<&'a Tensor>,
    /// One for each stage of the cascade, those that do not run included: see [`Cascade::options`].
    pub options: Vec<StageOptions<'a>>,
}

impl Cascade {
    /// A cascade of `stages`. Its first may be one of super-resolution, for enlarging pictures that come from elsewhere.
    ///
    /// # Errors
    /// [`Error::Cascade`] for no stages, two of one name, a later one that is not of super-resolution, or one that is not
    /// larger than the one before.
    pub fn new(stages: Vec<Stage>) -> Result<Self> {
        let wrong = |reason| Err(Error::Cascade { reason });
        if stages.is_empty() {
            return wrong("there is none".to_owned());
        }
        for (index, stage) in stages.iter().enumerate().skip(1) {
            let name = stage.name();
            if stages.iter().take(index).any(|other| other.name() == name) {
                return wrong(format!("two are called `{name}`"));
            }
            if !stage.is_super_resolution() {
                return wrong(format!("stage `{name}` is not the first but takes no smaller picture"));
            }
        }
        for (below, above) in stages.iter().zip(stages.iter().skip(1)) {
            if above.size() <= below.size() {
                return wrong(format!("stage `{}` is not larger than `{}`", above.name(), below.name()));
            }
        }
        Ok(Self { stages })
    }

    /// The stages in order.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The stages in order, for sampling from one alone or releasing its memory.
    #[must_use]
    pub fn stages_mut(&mut self) -> &mut [Stage] {
        &mut self.stages
    }

    /// The options of a job that does what the model's configuration says.
    #[must_use]
    pub fn options(&self) -> Vec<StageOptions<'static>> {
        self.stages.iter().map(|stage| StageOptions { settings: stage.settings(), paint: None, tiling: None }).collect()
    }

    /// Width and height of the pictures out of stage `last` have to be multiples of this if the cascade begins with stage
    /// `first`, so that every stage between gets whole pixels that its network can take.
    ///
    /// # Errors
    /// [`Error::NoSuchStage`] or [`Error::FirstStage`].
    pub fn size_multiple(&self, first: usize, last: usize) -> Result<i64> {
        let stages = self.range(first, last)?;
        let end = stages.last().map_or(1, Stage::size);
        // side · size / end is a multiple of m: side is one of m · end / gcd(size, m · end).
        let multiple = |stage: &Stage| {
            let wanted = stage.size_multiple() * end;
            wanted / gcd(stage.size(), wanted)
        };
        Ok(stages.iter().map(multiple).fold(1, lcm))
    }

    /// Width and height of the pictures of each stage from `first` to `last`; see [`CascadeJob::size`].
    ///
    /// # Errors
    /// As [`size_multiple`](Self::size_multiple), and [`Error::ImageSize`] naming what width and height have to be multiples of.
    pub fn sizes(&self, first: usize, last: usize, size: Option<(i64, i64)>) -> Result<Vec<(i64, i64)>> {
        let stages = self.range(first, last)?;
        let end = stages.last().map_or(1, Stage::size);
        let (width, height) = size.unwrap_or((end, end));
        let multiple = self.size_multiple(first, last)?;
        let fits = |side: i64| side > 0 && side % multiple == 0 && side <= i64::from(i32::MAX);
        if !fits(width) || !fits(height) {
            return Err(Error::ImageSize { width, height, multiple });
        }
        Ok(stages.iter().map(|stage| (width * stage.size() / end, height * stage.size() / end)).collect())
    }

    /// Samples pictures, stage by stage.
    ///
    /// With a residency other than [`Residency::All`], each stage's experts are dropped when it is done.
    ///
    /// # Shapes
    /// → [n, 3, height, width] f32 in [-1, 1], on the device of the last stage
    ///
    /// # Errors
    /// Sizes that do not fit, an embedding that no stage takes, and those of [`Stage::sample`].
    pub fn sample(&mut self, job: &CascadeJob<'_>, observer: &mut dyn StageObserver) -> Result<Tensor> {
        let first = job.first_stage;
        let last = job.last_stage.unwrap_or(self.stages.len() - 1);
        let sizes = self.sizes(first, last, job.size)?;
        self.check(job, first, last)?;
        let mut picture = job.low_res.map(Tensor::shallow_clone);
        let stages = self.stages.iter_mut().enumerate().zip(&job.options).skip(first);
        for (((index, stage), options), (width, height)) in stages.zip(sizes) {
            let StageOptions { settings, paint, tiling } = options.clone();
            let (conditioning, unconditional) = (stage.select(job.conditioning), stage.select(job.unconditional));
            let stage_job = StageJob {
                conditioning: &conditioning,
                unconditional: &unconditional,
                seeds: job.seeds,
                stage_index: index as u64,
                height,
                width,
                low_res: picture.as_ref(),
                settings,
                paint,
                tiling,
            };
            let sampled = stage.sample(stage_job, observer);
            if stage.residency() != Residency::All {
                stage.release();
            }
            picture = Some(sampled?);
        }
        picture.ok_or(Error::NoSuchStage { index: last, stages: self.stages.len() })
    }

    /// Refuses what would be ignored.
    fn check(&self, job: &CascadeJob<'_>, first: usize, last: usize) -> Result<()> {
        let stages = self.range(first, last)?;
        if job.options.len() != self.stages.len() {
            return Err(Error::Options { given: job.options.len(), stages: self.stages.len() });
        }
        for conditioning in [job.conditioning, job.unconditional] {
            let (mut t5, mut clip_text, mut clip_image) = (false, false, false);
            for stage in stages {
                let taken = stage.select(conditioning);
                t5 |= taken.t5.is_some();
                clip_text |= taken.clip_text.is_some();
                clip_image |= taken.clip_image.is_some();
            }
            let given = [
                ("t5", conditioning.t5.is_some() && !t5),
                ("clip_text", conditioning.clip_text.is_some() && !clip_text),
                ("clip_image", conditioning.clip_image.is_some() && !clip_image),
            ];
            if let Some((name, _)) = given.into_iter().find(|(_, ignored)| *ignored) {
                return Err(ediffi_core::Error::EmbeddingNotTaken { name }.into());
            }
        }
        Ok(())
    }

    fn range(&self, first: usize, last: usize) -> Result<&[Stage]> {
        let stages = self.stages.len();
        if last >= stages {
            return Err(Error::NoSuchStage { index: last, stages });
        }
        self.stages.get(first..=last).filter(|range| !range.is_empty()).ok_or(Error::FirstStage { first, last })
    }
}
