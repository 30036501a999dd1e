//! The one loop of stages: from embeddings and seeds to finished pictures.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::Rows;
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use tch::{Device, Tensor};

use crate::cascade::Cascade;
use crate::observer::{Batch, StageEvent, StageObserver, Watch};
use crate::plan::StagePlan;
use crate::sample::{StageJob, rows};
use crate::{Error, Result};

/// Where noise comes from that is not drawn from the pictures' seeds, by the name of the stage and the seeds of a batch.
pub type StageNoise<'a> = dyn FnMut(&str, &[u64]) -> Box<dyn NoiseSource> + 'a;

/// What to draw.
pub struct CascadeJob<'a> {
    /// The stages that run, and how: [`Cascade::plan`].
    pub stages: &'a [StagePlan],
    /// What the pictures show: embeddings of one row, which is for all pictures, or of one row each. Each stage gets those
    /// that it takes.
    pub conditioning: &'a Conditioning,
    /// What guidance leans away from: embeddings of one row or one row each, or none, which is all zeros.
    pub unconditional: &'a Conditioning,
    /// One for each picture.
    pub seeds: &'a [u64],
    /// How many pictures are drawn together, at least one.
    pub batch: usize,
    /// Pictures to start from, [pictures, 3, h, w] in [-1, 1]: those that a first stage of super-resolution enlarges.
    pub low_res: Option<&'a Tensor>,
    /// Paint-with-words in the first stage that runs.
    pub paint: Option<&'a dyn ScoreBias>,
    /// Noise from elsewhere, asked for once for every stage and batch; see [`Stage::sample_from`](crate::Stage::sample_from).
    pub noise: Option<&'a mut StageNoise<'a>>,
}

impl fmt::Debug for CascadeJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CascadeJob").field("stages", &self.stages).field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

impl Cascade {
    /// Draws pictures stage by stage, and in each stage batch by batch: so with [`Residency::All`] the weights of a stage
    /// are loaded once, however many pictures there are. Between stages the pictures are kept on the CPU, in f32.
    ///
    /// The pictures of a batch are handed to `observer` when the last stage, or the enlarger after it, is done with them
    /// ([`StageEvent::Pictures`]): a later batch that fails or is cancelled takes none of them away.
    ///
    /// With a residency other than [`Residency::All`], each stage's experts are dropped when it is done, and so is the
    /// enlarger.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `observer` says so, before the next evaluation of a network; [`Error::Job`] for inputs that do
    /// not fit; [`Error::ForeignPlan`]; those of [`Stage::sample`](crate::Stage::sample) and
    /// [`Enlarger::enlarge`](crate::Enlarger::enlarge).
    pub fn run(&mut self, job: CascadeJob<'_>, observer: &mut dyn StageObserver) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.check(&job)?;
        let CascadeJob { stages: plans, conditioning, unconditional, seeds, batch, low_res, paint, mut noise } = job;
        let mut batches = Batches::new(seeds, batch.max(1), low_res)?;
        let highest = self.stages.len();
        let enlarger = self.enlarger.as_mut().zip(plans.last().filter(|last| last.index + 1 == highest));
        let (count, stages) = (batches.pictures.len(), plans.len() + usize::from(enlarger.is_some()));
        for (index, plan) in plans.iter().enumerate() {
            let stage = self.stages.get_mut(plan.index).ok_or_else(|| foreign(plan))?;
            let conditionings = [stage.select(conditioning), stage.select(unconditional)];
            let started = Instant::now();
            report(observer, &StageEvent::StageStarted { plan, index, stages, batches: count })?;
            let drawn = batches.each(index + 1 == stages, observer, |batch, seeds, low_res, observer| {
                let [conditioning, unconditional] = &conditionings;
                let job = StageJob {
                    conditioning: &conditioning.rows(batch.first as i64, seeds.len() as i64)?,
                    unconditional: &unconditional.rows(batch.first as i64, seeds.len() as i64)?,
                    seeds,
                    stage_index: plan.index as u64,
                    height: i64::from(plan.height),
                    width: i64::from(plan.width),
                    low_res,
                    settings: &plan.settings,
                    rows: Rows::default(),
                    paint: paint.filter(|_| index == 0),
                    tiling: plan.tiling,
                };
                let mut given = noise.as_mut().map(|noise| noise(&plan.stage, seeds));
                let noise = given.as_mut().map(|noise| noise.as_mut() as &mut dyn NoiseSource);
                stage.sample_batch(&job, noise, batch, observer)
            });
            if stage.residency() != Residency::All {
                stage.release();
            }
            drawn?;
            report(observer, &StageEvent::StageFinished { plan, elapsed: started.elapsed() })?;
        }
        let Some((enlarger, last)) = enlarger else { return Ok(()) };
        let stays = self.stages.last().is_none_or(|stage| stage.residency() == Residency::All);
        let started = Instant::now();
        let tiles = enlarger.tiles(i64::from(last.height), i64::from(last.width))?;
        let enlarged = |side: u32| u32::try_from(i64::from(side) * enlarger.scale()).unwrap_or(u32::MAX);
        let (width, height) = (enlarged(last.width), enlarged(last.height));
        let index = plans.len();
        report(observer, &StageEvent::EnlargerStarted { index, stages, batches: count, tiles, width, height })?;
        let enlarged = batches.each(true, observer, |batch, _, pictures, observer| {
            let missing = || Error::Enlarger { reason: "there are no pictures to enlarge".to_owned() };
            enlarger.enlarge_batch(pictures.ok_or_else(missing)?, &Watch::new("enlarger", batch, observer))
        });
        if !stays {
            enlarger.release();
        }
        enlarged?;
        report(observer, &StageEvent::EnlargerFinished { elapsed: started.elapsed() })
    }

    /// Refuses what would fail late.
    fn check(&self, job: &CascadeJob<'_>) -> Result<()> {
        let known = |plan: &StagePlan| self.stages.get(plan.index).is_some_and(|stage| stage.name() == plan.stage);
        if let Some(plan) = job.stages.iter().find(|plan| !known(plan)) {
            return Err(foreign(plan));
        }
        let stage = job.stages.first().map_or_else(String::new, |plan| plan.stage.clone());
        let wrong = |input, reason| Err(Error::Job { stage, input, reason });
        let pictures = job.seeds.len();
        if pictures == 0 {
            return wrong("seeds", "there is none, each picture needs one".to_owned());
        }
        for (input, conditioning) in [("conditioning", job.conditioning), ("unconditional", job.unconditional)] {
            if let Some((name, x)) = conditioning.named().find(|(_, x)| ![1, pictures].contains(&rows(x))) {
                return wrong(input, format!("{name} has {} rows, there are {pictures} seeds", rows(x)));
            }
        }
        match job.low_res {
            Some(x) if rows(x) != pictures => {
                wrong("low_res", format!("its shape is {:?}, expected [{pictures}, channels, height, width]", x.size()))
            }
            _ => Ok(()),
        }
    }
}

/// The pictures of every batch between two stages, on the CPU.
struct Batches<'a> {
    seeds: &'a [u64],
    size: usize,
    /// One for each batch; none before the first stage has drawn it.
    pictures: Vec<Option<Tensor>>,
}

impl<'a> Batches<'a> {
    fn new(seeds: &'a [u64], size: usize, given: Option<&Tensor>) -> ediffi_core::Result<Self> {
        let part = |(index, seeds): (usize, &[u64])| {
            let rows = |all: &Tensor| all.f_narrow(0, (index * size) as i64, seeds.len() as i64);
            Ok(given.map(rows).transpose()?)
        };
        let pictures = seeds.chunks(size).enumerate().map(part).collect::<ediffi_core::Result<_>>()?;
        Ok(Self { seeds, size, pictures })
    }

    /// Replaces the pictures of each batch by what `draw` makes of them. Those of the `last` stage are handed out instead.
    fn each(
        &mut self,
        last: bool,
        observer: &mut dyn StageObserver,
        mut draw: impl FnMut(Batch, &[u64], Option<&Tensor>, &mut dyn StageObserver) -> Result<Tensor>,
    ) -> Result<()> {
        let batches = self.pictures.len();
        for (index, (seeds, pictures)) in self.seeds.chunks(self.size).zip(&mut self.pictures).enumerate() {
            let batch = Batch { index, batches, first: index * self.size };
            let drawn = draw(batch, seeds, pictures.take().as_ref(), observer)?;
            let drawn = drawn.f_to_device(Device::Cpu).map_err(ediffi_core::Error::from)?;
            if last {
                report(observer, &StageEvent::Pictures { batch, pictures: &drawn })?;
            } else {
                *pictures = Some(drawn);
            }
        }
        Ok(())
    }
}

fn report(observer: &mut dyn StageObserver, event: &StageEvent<'_>) -> Result<()> {
    match observer.event(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}

fn foreign(plan: &StagePlan) -> Error {
    Error::ForeignPlan { stage: plan.stage.clone() }
}
