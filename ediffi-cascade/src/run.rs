//! The one loop of stages: from embeddings and seeds to finished pictures.

use std::fmt;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::Rows;
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::seed::Noise;
use ediffi_core::solver::Solver;
use tch::Tensor;

use crate::cascade::Cascade;
use crate::edit::Edit;
use crate::enlarging::Enlarging;
use crate::mix::{Mixed, Share};
use crate::observer::{Batch, StageEvent, StageObserver, report};
use crate::plan::StagePlan;
use crate::sample::{StageBatch, StageJob, Turns};
use crate::stage::Stage;
use crate::{Error, Result};

/// Where noise comes from that is not drawn from the pictures' seeds: called once for every stage and batch, with the name of
/// the stage and the seeds, when the stage begins. What it gives is asked for the noise of the start, then for that of the smaller
/// picture if the stage adds one, then for those of the steps. Several batches may ask by turns.
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
    /// Other prompts, which share in the estimates with `conditioning`, or take its place at some noise levels.
    pub mixed: &'a [Mixed<'a>],
    /// Stages that are told something else than `conditioning` and `unconditional`.
    pub told: &'a [Told<'a>],
    /// Experts of stages that guidance leads away from something else than the stage.
    pub told_experts: &'a [ToldExpert<'a>],
    /// One for each picture. The noise of a picture comes from its own seed, so it does not depend on the others.
    pub seeds: &'a [u64],
    /// How many pictures are drawn together, at least one.
    pub batch: usize,
    /// Whether conditional and unconditional rows are computed in one batch or one after the other.
    pub rows: Rows,
    /// Pictures to start from, [pictures, channels, h, w] in [-1, 1] at any size: those that a first stage of
    /// super-resolution enlarges.
    pub low_res: Option<&'a Tensor>,
    /// A picture that the first stage begins with in place of noise, and what of it stays.
    pub edit: Option<Edit<'a>>,
    /// Paint-with-words in the first stage that runs, for the words of `conditioning`.
    pub paint: Option<&'a dyn ScoreBias>,
    /// Noise from elsewhere: recorded, to repeat what another program has drawn.
    pub noise: Option<&'a mut StageNoise<'a>>,
}

impl<'a> CascadeJob<'a> {
    /// Pictures in one batch, guided away from nothing in particular.
    #[must_use]
    pub fn new(stages: &'a [StagePlan], conditioning: &'a Conditioning, seeds: &'a [u64]) -> Self {
        let (unconditional, batch, rows) = (&NOTHING, seeds.len(), Rows::default());
        let (low_res, edit, paint, noise) = (None, None, None, None);
        let (mixed, told, told_experts) = (&[][..], &[][..], &[][..]);
        Self {
            stages,
            conditioning,
            unconditional,
            mixed,
            told,
            told_experts,
            seeds,
            batch,
            rows,
            low_res,
            edit,
            paint,
            noise,
        }
    }

    /// What a stage is told, in the place of which other prompts share: embeddings with and without the prompt.
    fn told(&self, stage: &str) -> (&'a Conditioning, &'a Conditioning) {
        let own = self.told.iter().find(|told| told.stage == stage);
        own.map_or((self.conditioning, self.unconditional), |told| (told.conditioning, told.unconditional))
    }
}

/// What one stage of a [`CascadeJob`] is told in the place of the job's own embeddings.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Name of the stage, one of those that run.
    pub stage: &'a str,
    /// As [`CascadeJob::conditioning`].
    pub conditioning: &'a Conditioning,
    /// As [`CascadeJob::unconditional`].
    pub unconditional: &'a Conditioning,
}

/// What guidance leads one expert of a stage away from, in the place of what it leads the others away from.
#[derive(Debug, Clone, Copy)]
pub struct ToldExpert<'a> {
    /// Name of the stage, one of those that run.
    pub stage: &'a str,
    /// Number of the expert.
    pub expert: usize,
    /// As [`CascadeJob::unconditional`].
    pub unconditional: &'a Conditioning,
}

/// No embedding at all.
const NOTHING: Conditioning = Conditioning {
    t5: None,
    clip_text: None,
    clip_text_pooled: None,
    clip_image: None,
    micro: None,
    low_res: None,
    noise_level: None,
};

impl fmt::Debug for CascadeJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CascadeJob").field("stages", &self.stages).field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

impl Cascade {
    /// Draws pictures stage by stage, and in each stage batch by batch. With a residency other than [`Residency::All`] the batches
    /// take turns: each expert of the plan draws its steps of all batches, and then the next one is loaded. So every expert is
    /// loaded once, however many pictures there are; churn may ask for an earlier one again. The batches that wait are on the
    /// stage's device: a [trajectory](ediffi_core::solver::Trajectory) each, and in super-resolution the enlarged smaller
    /// picture. In all that is at most six times the f32 pixels of every picture. Between stages the pictures are kept on the CPU,
    /// in f32.
    ///
    /// An enlarger takes over each batch as soon as the last stage is done with it, so both are in memory then; the last
    /// batch when the stage is done with everything, and with a relay out of memory.
    ///
    /// The pictures of a batch are handed to `observer` when the last stage, or the enlarger after it, is done with them
    /// ([`StageEvent::Pictures`]): a later batch that fails or is cancelled takes none of them away.
    ///
    /// A latent stage decodes each batch as soon as it is drawn. With a residency other than [`Residency::All`] it decodes all of them when
    /// the last is drawn and its experts are out of memory, so what fails or is cancelled before leaves none.
    ///
    /// With a residency other than [`Residency::All`], each stage's experts are dropped when it is done, its decoder, and so is the
    /// enlarger.
    ///
    /// # Errors
    /// [`Error::PlanOrder`], [`Error::ForeignPlan`], [`Error::Job`], [`Error::EmbeddingNotTaken`] and [`Error::Tiling`] for
    /// inputs that do not fit, before anything is loaded; [`Error::Cancelled`] if `observer` says so, before the next
    /// evaluation of a network; [`Error::NotFinite`] naming the expert; [`Error::Stage`] for files that cannot be read; those
    /// of [`Enlarger::enlarge`](crate::Enlarger::enlarge).
    pub fn run(&mut self, job: CascadeJob<'_>, observer: &mut dyn StageObserver) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.check(&job)?;
        let shares: Vec<Share> = job.mixed.iter().map(|mixed| mixed.share).collect();
        let told: Vec<_> = job.stages.iter().map(|plan| job.told(&plan.stage)).collect();
        let CascadeJob { stages: plans, mixed, told_experts, seeds, rows, edit, paint, mut noise, .. } = job;
        let mut batches = Batches::new(seeds, job.batch.max(1), job.low_res)?;
        let (highest, count) = (self.stages.len(), batches.pictures.len());
        let last = plans.last().filter(|last| last.index + 1 == highest);
        let release = self.stages.iter().any(|stage| stage.residency != Residency::All);
        let stages = plans.len() + usize::from(last.is_some() && self.enlarger.is_some());
        let enlarging = |(enlarger, last)| Enlarging::new(enlarger, last, (plans.len(), stages, count), release);
        let mut enlarging = self.enlarger.as_mut().zip(last).map(enlarging).transpose()?;
        for (index, (plan, (conditioning, unconditional))) in plans.iter().zip(told).enumerate() {
            let stage = self.stages.get_mut(plan.index).ok_or_else(|| foreign(plan))?;
            let (taken, device) = (stage.io().embeddings, stage.runtime.device);
            let mut prompts = vec![taken.select(conditioning)];
            prompts.extend(mixed.iter().map(|mixed| taken.select(mixed.conditioning)));
            // A stage that is told nothing else under another prompt would make the same estimate again.
            let mixes = taken.has_text() || !prompts.array_windows().all(|[one, other]| alike(one, other));
            prompts.truncate(if mixes { prompts.len() } else { 1 });
            let shares = if mixes { &*shares } else { &[] };
            let unconditional = taken.select(unconditional);
            let leaning = told_experts.iter().filter(|told| told.stage == plan.stage);
            let leaning: Vec<_> = leaning.map(|told| (told.expert, taken.select(told.unconditional))).collect();
            report(observer, &StageEvent::StageStarted { plan, index, stages, batches: count })?;
            // Without a mask, later stages follow the first.
            let edited = edit.filter(|edit| index == 0 || edit.mask.is_some());
            let given = edited.map(|edit| edit.given(plan.height.into(), plan.width.into(), device));
            let given = given.transpose().map_err(|source| Error::in_stage(&plan.stage, source))?;
            let batched = batches.give(|batch, seeds, low_res| {
                let (first, pictures) = (batch.first as i64, seeds.len() as i64);
                let conditioning = prompts.iter().map(|prompt| prompt.rows(first, pictures));
                let conditioning = conditioning.collect::<ediffi_core::Result<_>>()?;
                let unconditional = unconditional.rows(first, pictures)?;
                let leaning = leaning.iter().map(|(expert, leaning)| Ok((*expert, leaning.rows(first, pictures)?)));
                let leaning = leaning.collect::<ediffi_core::Result<_>>()?;
                let noise = match &mut noise {
                    Some(noise) => noise(&plan.stage, seeds),
                    None => Box::new(Noise::new(seeds, plan.index as u64)),
                };
                let given = given.as_ref().map(|given| given.rows(first, pictures)).transpose()?;
                Ok(StageBatch { batch, pictures, conditioning, unconditional, leaning, low_res, given, noise })
            })?;
            let begins = index == 0 && edit.is_some();
            let job = StageJob { plan, rows, begins, shares, paint: paint.filter(|_| index == 0) };
            let mut turns = Turns::new(stage, job, batched)?;
            while let Some((batch, drawn)) = turns.next(observer)? {
                match &mut enlarging {
                    _ if index + 1 < plans.len() => batches.keep(batch, drawn),
                    Some(enlarging) => enlarging.take(batch, drawn, observer)?,
                    None => report(observer, &StageEvent::Pictures { batch, pictures: &drawn })?,
                }
            }
            let elapsed = turns.finish();
            report(observer, &StageEvent::StageFinished { plan, elapsed })?;
        }
        enlarging.map_or(Ok(()), |enlarging| enlarging.finish(observer))
    }

    /// Refuses what would fail late or be ignored.
    fn check(&self, job: &CascadeJob<'_>) -> Result<()> {
        let order: Vec<usize> = job.stages.iter().map(|plan| plan.index).collect();
        if order.is_empty() || order.array_windows().any(|[below, above]| below + 1 != *above) {
            return Err(Error::PlanOrder(order));
        }
        let mut first: Option<&Stage> = None;
        for plan in job.stages {
            let stage = self.stages.get(plan.index).filter(|stage| stage.name() == plan.stage);
            let stage = stage.ok_or_else(|| foreign(plan))?;
            stage.tiles(plan)?;
            // The fields of a plan are open to all.
            if let Some(jumps) = plan.jumps {
                let owned = plan.owned(&stage.config().owners());
                let sigmas = owned.map_err(|source| Error::in_stage(stage.name(), source))?.sigmas;
                if let Some(reason) = jumps.problem(sigmas.iter().filter(|sigma| **sigma > 0.0).count()) {
                    return Err(Error::Job { stage: stage.name().to_owned(), input: "jumps", reason });
                }
            }
            first = first.or(Some(stage));
        }
        let Some(first) = first else { return Ok(()) };
        let wrong = |input, reason| Err(Error::Job { stage: first.name().to_owned(), input, reason });
        let pictures = job.seeds.len() as i64;
        if pictures == 0 {
            return wrong("seeds", "there is none, each picture needs one".to_owned());
        }
        if let Some(told) = job.told.iter().find(|told| !job.stages.iter().any(|plan| plan.stage == told.stage)) {
            return wrong("told", format!("stage `{}` does not run", told.stage));
        }
        for told in job.told_experts {
            let plan = job.stages.iter().find(|plan| plan.stage == told.stage);
            let experts = plan.and_then(|plan| self.stages.get(plan.index)).map_or(0, |stage| stage.files().len());
            if told.expert >= experts {
                let reason = format!("stage `{}` does not run, or has no expert {}", told.stage, told.expert);
                return wrong("told_experts", reason);
            }
        }
        if let Some(reason) = Share::problem(&job.mixed.iter().map(|mixed| mixed.share).collect::<Vec<_>>()) {
            return wrong("mixed", reason);
        }
        let own = [("conditioning", job.conditioning), ("unconditional", job.unconditional)];
        let mixed = job.mixed.iter().map(|mixed| ("mixed", mixed.conditioning));
        let told = job.told.iter().flat_map(|told| [("told", told.conditioning), ("told", told.unconditional)]);
        let experts = job.told_experts.iter().map(|told| ("told_experts", told.unconditional));
        for (input, conditioning) in own.into_iter().chain(mixed).chain(told).chain(experts) {
            if conditioning.low_res.is_some() || conditioning.noise_level.is_some() {
                return wrong(input, "the smaller picture goes into the job's own field".to_owned());
            }
            for (name, x) in conditioning.named() {
                let (got, mut taken) = (x.size(), false);
                let rows = got.first().copied().unwrap_or(0);
                if rows != 1 && rows != pictures {
                    return wrong(input, format!("{name} has {rows} rows, there are {pictures} seeds"));
                }
                for (index, stage) in self.stages.iter().enumerate() {
                    let Some(expected) = stage.io().embeddings.shape(name, rows) else { continue };
                    // A stage that does not run may want another shape.
                    if got != expected && order.contains(&index) {
                        let source = ediffi_core::Error::EmbeddingShape { name, expected, got };
                        return Err(Error::in_stage(stage.name(), source));
                    }
                    taken = true;
                }
                if !taken {
                    return Err(Error::EmbeddingNotTaken { input, embedding: name });
                }
            }
        }
        if job.low_res.is_some() != first.io().low_res {
            let source = ediffi_core::Error::LowRes { given: job.low_res.is_some() };
            return Err(Error::in_stage(first.name(), source));
        }
        let (shape, channels) = (job.low_res.map(Tensor::size), first.picture_channels());
        if job.edit.is_some() && job.low_res.is_some() {
            return wrong("edit", "the first stage enlarges a picture, and edits none".to_owned());
        }
        if job.edit.is_some() && job.stages.iter().any(|plan| plan.decoding.is_some()) {
            return wrong("edit", "the stage draws latents, and takes no picture".to_owned());
        }
        if job.edit.is_none() && job.stages.iter().any(|plan| plan.skipped > 0) {
            return wrong("edit", "its plan leaves out steps, but there is no picture to begin with".to_owned());
        }
        let masked = job.edit.is_some_and(|edit| edit.mask.is_some());
        for plan in job.stages.iter().filter(|plan| plan.jumps.is_some_and(|jumps| jumps.count > 0)) {
            if !masked {
                return wrong("edit", "its plan has jumps, but no part of a picture stays".to_owned());
            }
            let churns = |solver: Solver| matches!(solver, Solver::Heun(churn) if churn.s_churn > 0.0);
            let own = plan.settings.experts.values().filter_map(|own| own.solver);
            if own.chain([plan.settings.solver]).any(churns) {
                return wrong(
                    "edit",
                    format!("stage `{}` has jumps, but its solver churns, and adds noise of its own", plan.stage),
                );
            }
        }
        if let Some((input, reason)) = job.edit.and_then(|edit| edit.problem(pictures, channels)) {
            return wrong(input, reason);
        }
        match shape.as_deref() {
            None => Ok(()),
            Some(&[rows, c, h, w]) if rows == pictures && c == channels && h > 0 && w > 0 => Ok(()),
            Some(got) => {
                wrong("low_res", format!("its shape is {got:?}, expected [{pictures}, {channels}, height, width]"))
            }
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

    /// What a stage makes its batches of: `give` gets each batch with its seeds and takes its pictures away.
    fn give(
        &mut self,
        mut give: impl FnMut(Batch, &[u64], Option<Tensor>) -> ediffi_core::Result<StageBatch>,
    ) -> ediffi_core::Result<Vec<StageBatch>> {
        let (size, batches) = (self.size, self.pictures.len());
        let parts = self.seeds.chunks(size).zip(&mut self.pictures).enumerate();
        let batch = |index| Batch { index, batches, first: index * size };
        parts.map(|(index, (seeds, pictures))| give(batch(index), seeds, pictures.take())).collect()
    }

    /// Keeps what a stage has drawn for the next.
    fn keep(&mut self, batch: Batch, drawn: Tensor) {
        if let Some(pictures) = self.pictures.get_mut(batch.index) {
            *pictures = Some(drawn);
        }
    }
}

/// Whether two prompts have the same embeddings.
fn alike(one: &Conditioning, other: &Conditioning) -> bool {
    let same = |(name, x): (&str, &Tensor)| other.named().any(|(own, y)| own == name && x.f_equal(y).unwrap_or(false));
    one.named().count() == other.named().count() && one.named().all(same)
}

fn foreign(plan: &StagePlan) -> Error {
    Error::ForeignPlan(plan.stage.clone())
}
