//! `evaluate probes`: when in sampling the caption matters (eDiff-I, figure 4): pictures whose caption is exchanged for
//! another one on the way.

use std::path::PathBuf;
use std::time::Instant;

use ediffi::Conditioning;
use ediffi_cascade::{Cascade, CascadeJob, SamplerSettings, SettingsPatch};
use ediffi_core::denoiser::{Denoiser, Estimate};
use ediffi_core::noise::NoiseSource;
use ediffi_core::schedule::Schedule;
use ediffi_core::seed::Noise;
use ediffi_core::solver::Solver;
use serde::Serialize;
use tch::Tensor;

use crate::bootstrap::{Measure, ratio, share};
use crate::document::{Table, percent};
use crate::error::{Error, Result};
use crate::judge::Judge;
use crate::machine;
use crate::measured::Measured;
use crate::model::{Batch, Model, Wish, first_estimate, stacked};
use crate::plot::{Axis, Line, Plot};
use crate::prompts::{self, Kind, Prompt, facts};
use crate::solvers::distances;

/// Shares of the steps after which the caption is exchanged; the paper's two are 40 % and 93 %.
const SHARES: [f64; 9] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.93, 1.0];

/// What to probe.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    pub model: PathBuf,
    /// How many pairs of captions.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..))]
    pub pairs: u32,
    /// Steps; the paper's 25.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(2..))]
    pub steps: u32,
}

/// What pictures show whose caption was exchanged after a share of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// The share of the steps that the first caption had.
    share: f64,
    steps: usize,
    /// The noise level from which on the second caption was asked.
    sigma: f64,
    /// Pictures that show the first caption's object.
    first: Option<Measure>,
    /// Pictures that show the second caption's object.
    second: Option<Measure>,
    /// Distance to the picture of the first caption alone, in distances between the pictures of both captions.
    moved: Option<Measure>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    model: PathBuf,
    pairs: usize,
    sampler: SamplerSettings,
    machine: String,
    judge: String,
    points: Vec<Point>,
    seconds: f64,
}

/// Exchanges captions.
pub fn evaluate(judge: &Judge, settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let model = Model::open(&settings.model, None)?;
    let base = model.judged_base()?;
    let sampler = SamplerSettings { steps: settings.steps as usize, ..base.settings.clone() };
    let sigmas = sampler.sigmas(base.precondition.timesteps())?;
    let (first, second) = pairs(settings.pairs as usize)?;
    // Both captions start from the same noise.
    let wishes = |prompts: &[Prompt]| model.wishes(prompts.iter().map(|p| &p.scene).zip(2_000_000..), None);
    let (a, b) = (wishes(&first)?, wishes(&second)?);
    let mut drawn = Vec::new();
    for share in SHARES {
        let steps = (share * sampler.steps as f64).round() as usize;
        // The estimate at `sigmas[i]` makes step i; the caption changes between two of them, or never.
        let sigma = sigmas.get(steps).copied().filter(|_| steps < sampler.steps).unwrap_or(0.0);
        drawn.push((share, steps, sigma, model.exchanged(&a, &b, sigma, &sampler)?));
    }
    let (Some((.., only_second)), Some((.., only_first))) = (drawn.first(), drawn.last()) else {
        return Err(Error::Worker);
    };
    let whole = distances(only_first, only_second)?;
    let mut points = Vec::new();
    for (part, steps, sigma, pictures) in &drawn {
        let verdicts = judge.look_at(pictures)?;
        let shown = |prompts| Ok::<_, Error>(share(&facts(prompts, &verdicts, &[Kind::One], |facts| facts.whole)?));
        let moved: Vec<(f64, f64)> = distances(pictures, only_first)?.into_iter().zip(whole.iter().copied()).collect();
        let (first, second, moved) = (shown(&first)?, shown(&second)?, ratio(&moved));
        points.push(Point { share: *part, steps: *steps, sigma: *sigma, first, second, moved });
    }
    Ok(Results {
        model: settings.model.clone(),
        pairs: first.len(),
        sampler,
        machine: machine::describe(&model),
        judge: judge.fingerprint.clone(),
        points,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Pairs of captions of one object each, of different concepts.
fn pairs(count: usize) -> Result<(Vec<Prompt>, Vec<Prompt>)> {
    let all = prompts::prompts(8 * count.max(8))?;
    let ones: Vec<&Prompt> = all.iter().filter(|prompt| prompt.kind == Kind::One).collect();
    let concept = |prompt: &Prompt| prompt.wanted.objects.first().map(|object| object.concept.clone());
    let different = |pair: &&[&Prompt]| matches!(pair, [a, b] if concept(a) != concept(b));
    let chosen: Vec<&[&Prompt]> = ones.chunks(2).filter(different).take(count).collect();
    let of = |place: usize| chosen.iter().filter_map(|pair| pair.get(place)).map(|prompt| (*prompt).clone()).collect();
    Ok((of(0), of(1)))
}

impl Model {
    /// The base's pictures whose caption is exchanged: estimates at noise levels above `sigma` are made for `first`, those at
    /// and below it for `second`. The noise is that of `first`.
    ///
    /// # Shapes
    /// → [wishes, 3, size, size] in [-1, 1]
    pub fn exchanged(&self, first: &[Wish], second: &[Wish], sigma: f64, settings: &SamplerSettings) -> Result<Tensor> {
        let sigmas = settings.sigmas(self.base()?.precondition.timesteps())?;
        let others = |rows| stacked(second.get(rows).unwrap_or_default());
        let pictures = self.each(first, 1, others, |cascade, Batch { conditioning, seeds }, other| {
            let mut noise = Noise::new(seeds, 0);
            let size = cascade.stages().first().map_or(0, |stage| stage.sizes().size);
            let start = noise.normal(&[seeds.len() as i64, 3, size, size])?;
            let conditionings = [conditioning, &other];
            let mut exchanging = Exchanging { cascade, conditionings, seeds, sigma, settings, failure: None };
            let picture = settings.solver.solve(&mut exchanging, start, &sigmas, &mut noise, &mut ());
            if let Some(failure) = exchanging.failure {
                return Err(failure);
            }
            Ok(picture?.f_clamp(-1.0, 1.0)?)
        })?;
        Ok(Tensor::f_cat(&pictures, 0)?)
    }
}

/// The base as a denoiser that asks for another caption at low noise.
struct Exchanging<'a> {
    cascade: &'a mut Cascade,
    conditionings: [&'a Conditioning; 2],
    seeds: &'a [u64],
    sigma: f64,
    settings: &'a SamplerSettings,
    /// What went wrong in the stage, whose errors a solver cannot pass on.
    failure: Option<Error>,
}

impl Exchanging<'_> {
    fn first_estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let [first, second] = self.conditionings;
        // One step from here: it begins with the estimate that is asked for.
        let patch = SettingsPatch::from(SamplerSettings {
            solver: Solver::Euler,
            steps: 1,
            schedule: Schedule::Custom(vec![sigma, 0.0]),
            ..self.settings.clone()
        });
        let plans = self.cascade.plan(0..=0, (None, None), |_| Some(&patch))?;
        let here = x.f_div_scalar(sigma)?;
        let mut noise = |_: &str, _: &[u64]| -> Box<dyn NoiseSource> { Box::new(Here(here.shallow_clone())) };
        let conditioning = if sigma > self.sigma { first } else { second };
        let job = CascadeJob::new(&plans, conditioning, self.seeds);
        first_estimate(self.cascade, CascadeJob { noise: Some(&mut noise), ..job })
    }
}

impl Denoiser for Exchanging<'_> {
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> ediffi_core::Result<Estimate> {
        self.first_estimate(x, sigma).map(Estimate::from).map_err(|failure| {
            self.failure = Some(failure);
            ediffi_core::Error::Cancelled
        })
    }
}

/// Noise that makes a stage begin where another solver stands.
struct Here(Tensor);

impl NoiseSource for Here {
    fn normal(&mut self, _shape: &[i64]) -> ediffi_core::Result<Tensor> {
        Ok(self.0.shallow_clone())
    }
}

impl Measured for Results {
    fn name(&self) -> String {
        "probes".to_owned()
    }

    fn markdown(&self) -> String {
        let mut table = Table::new([
            "first caption's share of the steps",
            "σ of the exchange",
            "first object seen, %",
            "second object seen, %",
            "way from the first picture to the second, %",
        ]);
        for point in &self.points {
            table.row([
                format!("{:.0} % ({} of {})", point.share * 100.0, point.steps, self.sampler.steps),
                format!("{:.3}", point.sigma),
                percent(point.first),
                percent(point.second),
                percent(point.moved),
            ]);
        }
        let (solver, steps) = (self.sampler.solver, self.sampler.steps);
        format!(
            "{} pairs of captions, base stage, {solver} with {steps} steps; {}; {:.0} s.\n\n{table}",
            self.pairs, self.machine, self.seconds
        )
    }

    fn plots(&self) -> Vec<(String, Plot)> {
        let line = |name: &str, of: fn(&Point) -> Option<Measure>| {
            Line::measured(name, self.points.iter().map(|at| (at.share * 100.0, of(at).map(|m| m.times(100.0)))))
        };
        let plot = Plot {
            title: "Captions exchanged on the way".to_owned(),
            x: Axis::linear("first caption's share of the steps, %"),
            y: Axis::linear("% of pictures"),
            lines: vec![
                line("first object seen", |point| point.first),
                line("second object seen", |point| point.second),
            ],
        };
        vec![("evaluation-probes".to_owned(), plot)]
    }
}
