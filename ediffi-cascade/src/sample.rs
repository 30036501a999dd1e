//! The batches of one stage: they are drawn in turns.
//!
//! A turn of a batch goes on as long as no other expert has to be loaded for it. So with [`Residency::All`] a batch is drawn in one
//! turn. Otherwise a turn ends before the first evaluation that belongs to another expert; the batch then waits while the others have
//! theirs, so each expert is loaded once for all batches. All batches ask for the same noise levels in the same order, so they all
//! wait for the same expert. Where churn raises the noise level above an expert's interval, it is the one before, which is loaded
//! again: as often as for a single batch.
//!
//! Jumps across the border of two experts go back to the one before, too: each of them loads both again, once for all batches. What is
//! loaded ahead follows the schedule and not its jumps, so that these loads wait with [`Residency::RelayPrefetch`] as well.
//!
//! A latent stage that keeps one expert at a time decodes when all batches are drawn and no expert is left in memory.
//!
//! A solver goes over the border of two experts with all that it remembers, unless the one has another solver than the other: then that
//! begins anew, from where the batch is.
//!
//! A batch that waits keeps its trajectory and its inputs on the device. What an expert derived from the inputs is dropped with the
//! turn: it works with that network alone.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::Denoiser;
use ediffi_core::experts::Experts;
use ediffi_core::guidance::{Guided, Rows};
use ediffi_core::interval::SigmaInterval;
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::solver::Trajectory;
use tch::{Device, Kind, Tensor};

use crate::denoiser::{Inputs, StageDenoiser};
use crate::diagnosis::broken_tensor;
use crate::edit::Given;
use crate::expert_files::ExpertFiles;
use crate::mix::Share;
use crate::observer::{Batch, StageObserver, Watch};
use crate::owners::Owned;
use crate::plan::StagePlan;
use crate::stage::Stage;
use crate::tiled::TileGrid;
use crate::tiling::Tiling;
use crate::{Error, Result};

/// What a stage does for all batches of a run.
pub(crate) struct StageJob<'a> {
    pub(crate) plan: &'a StagePlan,
    pub(crate) rows: Rows,
    /// Whether it begins with the picture that is edited.
    pub(crate) begins: bool,
    /// Those of the prompts beside the job's own.
    pub(crate) shares: &'a [Share],
    pub(crate) paint: Option<&'a dyn ScoreBias>,
}

/// A batch as it is given to a stage.
pub(crate) struct StageBatch {
    pub(crate) batch: Batch,
    /// Number of pictures.
    pub(crate) pictures: i64,
    /// Embeddings of each prompt that the stage takes, a row for each picture; the job's own first.
    pub(crate) conditioning: Vec<Conditioning>,
    /// As one of `conditioning`, or none.
    pub(crate) unconditional: Conditioning,
    /// In the place of `unconditional` for single experts.
    pub(crate) leaning: Vec<(usize, Conditioning)>,
    /// The pictures of the stage before, [pictures, channels, h, w] at any size, for a stage of super-resolution.
    pub(crate) low_res: Option<Tensor>,
    /// The picture that is edited, at the size and on the device of the stage.
    pub(crate) given: Option<Given>,
    /// Asked for the noise of the start, then for that of the smaller picture, then for those of the steps.
    pub(crate) noise: Box<dyn NoiseSource>,
}

/// A batch that is being drawn.
struct Drawing {
    batch: Batch,
    inputs: Inputs,
    given: Option<Given>,
    noise: Box<dyn NoiseSource>,
    trajectory: Trajectory,
    /// The expert in whose interval the step began that is being made.
    expert: usize,
    /// How many steps are made.
    made: usize,
}

/// A stage at work on the batches of a run. With a residency other than [`Residency::All`], its experts leave memory with this.
pub(crate) struct Turns<'a> {
    stage: &'a mut Stage,
    job: StageJob<'a>,
    tiles: Option<TileGrid>,
    experts: Experts,
    sigmas: Vec<f64>,
    /// The steps in the order in which they are made.
    walk: Vec<usize>,
    /// Those that have not had a turn.
    given: std::vec::IntoIter<StageBatch>,
    /// Those that wait for another one.
    waiting: VecDeque<Drawing>,
    /// Latents that wait for the decoder.
    drawn: VecDeque<(Batch, Tensor)>,
    elapsed: Duration,
}

impl<'a> Turns<'a> {
    pub(crate) fn new(stage: &'a mut Stage, job: StageJob<'a>, given: Vec<StageBatch>) -> Result<Self> {
        let tiles = stage.tiles(job.plan)?;
        let owned = job.plan.owned(&stage.config().owners());
        let Owned { experts, sigmas } = owned.map_err(|source| Error::in_stage(stage.name(), source))?;
        let owns = stage.ensemble.reown(experts.clone());
        owns.map_err(|source| Error::in_stage(stage.name(), source))?;
        if !sigmas.is_empty() {
            let plan = stage.ensemble.follow(&sigmas).map_err(|source| Error::in_stage(stage.name(), source))?;
            tracing::debug!(stage = stage.name(), %plan, "planned");
        }
        let walk = job.plan.walk(sigmas.iter().filter(|sigma| **sigma > 0.0).count());
        let (waiting, drawn, elapsed) = (VecDeque::new(), VecDeque::new(), Duration::ZERO);
        Ok(Self { stage, job, tiles, experts, sigmas, walk, given: given.into_iter(), waiting, drawn, elapsed })
    }

    /// Draws until a batch is finished, and gives it; none when all are.
    ///
    /// # Shapes
    /// → [pictures, channels, height, width] f32 in [-1, 1], on the CPU
    pub(crate) fn next(&mut self, observer: &mut dyn StageObserver) -> Result<Option<(Batch, Tensor)>> {
        let began = Instant::now();
        let drawn = self.draw(observer).map_err(|source| self.stage.explain(source))?;
        self.elapsed += began.elapsed();
        Ok(drawn)
    }

    /// Ends the work of the stage; says how long it took.
    pub(crate) fn finish(self) -> Duration {
        self.elapsed
    }

    fn draw(&mut self, observer: &mut dyn StageObserver) -> ediffi_core::Result<Option<(Batch, Tensor)>> {
        let span = tracing::info_span!("stage", name = self.stage.name());
        let _entered = span.enter();
        loop {
            // All have their first turn before one has its second, and so on.
            let next = match self.given.next() {
                // No step is made: the picture stays as it was given.
                Some(StageBatch { batch, given: Some(given), .. }) if self.sigmas.is_empty() => {
                    return Ok(Some((batch, finished(given.picture())?)));
                }
                Some(batch) => Some(self.begin(batch)?),
                None => self.waiting.pop_front(),
            };
            let Some(mut drawing) = next else { return self.decode_next(observer) };
            let watch = Watch::new(&self.job.plan.stage, drawing.batch, observer);
            self.turn(&mut drawing, &watch)?;
            if drawing.trajectory.is_finished() {
                // A schedule that ends above 0 leaves some noise, also where the picture stays.
                let x = drawing.trajectory.x().shallow_clone();
                let x = match &drawing.given {
                    Some(given) => given.keep(x.into())?.denoised,
                    None => x,
                };
                let batch = drawing.batch;
                if self.stage.decoder.is_none() {
                    return Ok(Some((batch, finished(&x)?)));
                }
                self.drawn.push_back((batch, x));
                if self.stage.residency == Residency::All {
                    return self.decode_next(observer);
                }
                continue;
            }
            self.waiting.push_back(drawing);
        }
    }

    /// The pictures of latents that wait for the decoder; none where none do.
    fn decode_next(&mut self, observer: &mut dyn StageObserver) -> ediffi_core::Result<Option<(Batch, Tensor)>> {
        let Some((batch, latents)) = self.drawn.pop_front() else { return Ok(None) };
        if self.stage.residency != Residency::All {
            self.stage.release_experts();
        }
        let Some(decoder) = &mut self.stage.decoder else { return Ok(Some((batch, latents))) };
        let tiled = self.job.plan.decoding.as_ref().is_some_and(|decoding| decoding.tiles > 1);
        let watch = Watch::new(&self.job.plan.stage, batch, observer);
        Ok(Some((batch, decoder.decode(&latents, tiled, &watch)?)))
    }

    fn begin(&self, given: StageBatch) -> ediffi_core::Result<Drawing> {
        let StageBatch { batch, pictures, conditioning, unconditional, leaning, low_res, given, mut noise } = given;
        let (stage, plan) = (&*self.stage, self.job.plan);
        let scale = stage.latent_scale();
        let [height, width] = [plan.height, plan.width].map(|side| i64::from(side) / scale);
        let device = stage.runtime.device;
        let start = noise.normal(&[pictures, stage.io().channels, height, width])?.f_to_device(device)?;
        let (rule, table) = (stage.config().low_res, stage.config().precondition.timesteps());
        let condition = |x: Tensor| rule.condition(&x.f_to_device(device)?, height, width, table, noise.as_mut());
        let low_res = low_res.map(condition).transpose()?;
        let level = rule.noise_level.map(|level| level as i64);
        let level = level.map(|level| Tensor::f_full([pictures], level, (Kind::Int64, device))).transpose()?;
        let with_picture = |conditioning: &Conditioning| -> ediffi_core::Result<Conditioning> {
            let [low_res, noise_level] = [&low_res, &level].map(|x| x.as_ref().map(Tensor::shallow_clone));
            Ok(Conditioning { low_res, noise_level, ..conditioning.to(device, Kind::Float)? })
        };
        let conditional = conditioning.iter().map(with_picture).collect::<ediffi_core::Result<_>>()?;
        let unconditional = with_picture(&unconditional)?;
        let leaning = leaning.iter().map(|(expert, leaning)| Ok((*expert, with_picture(leaning)?)));
        let leaning = leaning.collect::<ediffi_core::Result<_>>()?;
        let inputs = Inputs { conditional, unconditional, leaning, pictures };
        let expert = self.experts.index_of(self.sigmas.first().copied().unwrap_or_default())?;
        let (solver, ends) = (plan.settings.solver_of(expert), plan.settings.schedule.ends(table));
        let trajectory = match given.as_ref().filter(|_| self.job.begins) {
            Some(given) => {
                let picture = given.start(plan.skipped == 0)?;
                solver.start_from(&picture, start, &self.sigmas, ends, noise.as_mut())?
            }
            None => solver.start_between(start, &self.sigmas, ends, noise.as_mut())?,
        };
        Ok(Drawing { batch, inputs, given, noise, trajectory, expert, made: 0 })
    }

    /// A turn of one batch.
    fn turn(&mut self, drawing: &mut Drawing, watch: &Watch<'_>) -> ediffi_core::Result<()> {
        let Drawing { inputs, given, noise, trajectory, expert, made, .. } = drawing;
        let (settings, table) = (&self.job.plan.settings, self.stage.config().precondition.timesteps());
        let ends = settings.schedule.ends(table);
        let turn = self.stage.turn(trajectory.sigma())?;
        let denoiser = StageDenoiser {
            ensemble: &mut self.stage.ensemble,
            weaker: self.stage.weaker.as_mut(),
            inputs,
            shares: self.job.shares,
            paint: self.job.paint,
            tiles: self.tiles.as_ref(),
            watch,
            current: None,
            contexts: HashMap::new(),
        };
        let mut guided = Guided::new(denoiser, settings.guidance.clone(), self.job.rows)?;
        while !trajectory.is_finished() && turn.contains(trajectory.sigma()) {
            if !settings.experts.is_empty() {
                guided.guide(settings.guidance_of(self.experts.index_of(trajectory.sigma())?))?;
            }
            let mut estimate = guided.estimate(trajectory.x(), trajectory.sigma())?;
            if let Some(pull) = guided.inner_mut().layout_pull(trajectory.x(), trajectory.sigma())? {
                estimate.denoised = estimate.denoised.f_add(&pull)?;
            }
            if let Some(given) = given {
                estimate = given.keep(estimate)?;
            }
            let Some(step) = trajectory.advance(estimate, noise.as_mut())? else { continue };
            watch.step(&step, *made, self.walk.len())?;
            *made += 1;
            let further_up = match (self.walk.get(*made - 1), self.walk.get(*made)) {
                (Some(&before), Some(&next)) if next <= before => self.sigmas.get(next..),
                _ => None,
            };
            let Some(&next) = self.walk.get(*made) else { continue };
            let left = self.sigmas.get(next..).unwrap_or_default();
            let before = std::mem::replace(expert, self.experts.index_of(left.first().copied().unwrap_or_default())?);
            let solver = settings.solver_of(*expert);
            if let Some(sigmas) = further_up {
                let (up, x) = (raised(trajectory.sigma(), sigmas), trajectory.x());
                let fresh = noise.normal(&x.size())?.f_to_device(x.device())?.f_mul_scalar(up)?;
                *trajectory = solver.start_from(x, fresh, sigmas, ends, noise.as_mut())?;
            } else if settings.forgets(before, *expert) {
                // The last estimate of a schedule that ends above 0 is a step down to 0.
                let end = [0.0].into_iter().filter(|_| left.len() == 1);
                let left: Vec<f64> = left.iter().copied().chain(end).collect();
                *trajectory = solver.resume(trajectory.x(), &left, ends, noise.as_mut())?;
            }
        }
        Ok(())
    }
}

/// The noise that has to be added at the level `sigma` to come to the first of `sigmas`, as a part of that level.
fn raised(sigma: f64, sigmas: &[f64]) -> f64 {
    let to = sigmas.first().copied().unwrap_or(sigma);
    (1.0 - (sigma / to).powi(2)).max(0.0).sqrt()
}

/// Finished pictures as they are kept between stages.
fn finished(pictures: &Tensor) -> ediffi_core::Result<Tensor> {
    Ok(pictures.f_clamp(-1.0, 1.0)?.f_to_device(Device::Cpu)?)
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        self.stage.finish();
    }
}

impl Stage {
    /// How the pictures of a plan are cut, if they are.
    pub(crate) fn tiles(&self, plan: &StagePlan) -> Result<Option<TileGrid>> {
        let Some(tiling) = plan.tiling else { return Ok(None) };
        let wrong = |source| Error::Tiling { stage: self.name().to_owned(), source };
        // What is wrong is said in pixels; what is cut may be latents.
        let (multiple, scale) = (self.sizes().multiple, self.latent_scale());
        tiling.check(usize::try_from(multiple).unwrap_or(usize::MAX)).map_err(wrong)?;
        let part = |pixels: usize| pixels / usize::try_from(scale).unwrap_or(1).max(1);
        let tiling = Tiling { tile: part(tiling.tile), overlap: part(tiling.overlap) };
        let [height, width] = [plan.height, plan.width].map(|side| i64::from(side) / scale);
        let grid = TileGrid::new(tiling, height, width, multiple / scale).map_err(wrong)?;
        // One tile is the whole picture.
        Ok(Some(grid).filter(|grid| grid.len() > 1))
    }

    /// The noise levels that a turn which begins at `sigma` may evaluate.
    fn turn(&self, sigma: f64) -> ediffi_core::Result<SigmaInterval> {
        let experts = self.ensemble.experts();
        let own = experts.intervals().get(experts.index_of(sigma)?).copied();
        Ok(own.filter(|_| self.residency != Residency::All).unwrap_or(SigmaInterval::ALL))
    }

    /// Names the stage, and the expert that made a NaN.
    fn explain(&self, source: ediffi_core::Error) -> Error {
        let sigma = match source {
            ediffi_core::Error::DenoisedNotFinite(sigma) => sigma,
            source => return Error::in_stage(self.name(), source),
        };
        let expert = self.ensemble.experts().index_of(sigma).unwrap_or_default();
        let weights = self.config().experts.get(expert).map(|expert| expert.weights.display().to_string());
        let (stage, weights) = (self.name().to_owned(), weights.unwrap_or_default());
        // Why a file cannot be read again matters less than what was seen.
        let broken = |files: &ExpertFiles| broken_tensor(files).ok().flatten();
        if let Some(tensor) = self.files().get(expert).and_then(broken) {
            return Error::WeightsNotFinite { stage, expert, weights, tensor };
        }
        match (self.weaker_files().and_then(broken), &self.config().weaker) {
            (Some(tensor), Some(weaker)) => {
                Error::WeightsNotFinite { stage, expert, weights: weaker.weights.display().to_string(), tensor }
            }
            _ => Error::NotFinite { stage, expert, weights, sigma },
        }
    }
}

#[cfg(test)]
mod tests;
