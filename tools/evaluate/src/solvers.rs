//! `evaluate solvers`: how near each way to sample comes to the exact solution, and what the judge says, against the number
//! of evaluations of the network.

use std::path::PathBuf;
use std::time::Instant;

use ediffi_cascade::SamplerSettings;
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::Solver;
use serde::Serialize;
use tch::{Kind as TensorKind, Tensor};

use crate::bootstrap::{Measure, mean, share};
use crate::document::{Table, percent};
use crate::error::{Error, Result};
use crate::judge::network::reduced;
use crate::judge::{Judge, Verdict};
use crate::machine;
use crate::measured::Measured;
use crate::model::Model;
use crate::plot::{Axis, Line, Plot};
use crate::prompts::{self, Kind, Prompt, facts};

/// Evaluations of the network that a picture may cost.
const EVALUATIONS: [usize; 6] = [5, 8, 12, 20, 32, 50];

/// What to compare.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    pub model: PathBuf,
    /// The stage that is sampled in all these ways, those before it in the model's own; the base if none is given.
    #[arg(long)]
    pub stage: Option<String>,
    /// How many prompts: of one object and of two, half each.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..))]
    pub prompts: u32,
    /// Steps of the reference.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..))]
    pub reference: u32,
}

/// One way to sample, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    solver: Solver,
    schedule: String,
    steps: usize,
    /// Evaluations of the denoiser: with guidance each is two rows of the network.
    evaluations: usize,
    /// Root of the mean squared distance to the reference, over the pixels of a picture, in [-1, 1]; a mean over pictures.
    distance: Option<Measure>,
    recall: Option<Measure>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    model: PathBuf,
    stage: String,
    is_base: bool,
    prompts: usize,
    /// What the reference was drawn with.
    reference: SamplerSettings,
    /// Objects that the judge finds in the reference.
    reference_recall: Option<Measure>,
    machine: String,
    judge: String,
    points: Vec<Point>,
    seconds: f64,
}

/// Compares every solver on every schedule, all from the same noise.
///
/// # Errors
/// [`Error::Setting`] for a stage that is not there; those of the model and of the judge.
pub fn evaluate(judge: &Judge, settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let model = Model::open(&settings.model, None)?;
    let base = model.judged_base()?;
    let name = settings.stage.as_deref().unwrap_or(&base.name);
    let names = || model.stages().iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(", ");
    let missing = || Error::Setting { what: "stage", reason: format!("{name} is none of {}", names()) };
    let index = model.stages().iter().position(|stage| stage.name == name).ok_or_else(missing)?;
    let prompts = chosen(settings.prompts as usize)?;
    let wishes = model.wishes(prompts.iter().map(Prompt::asked), None)?;
    // The stages before are the same for all ways.
    let mut smaller: Option<Tensor> = None;
    for (before, stage) in model.stages().iter().enumerate().take(index) {
        smaller = Some(model.draw_stage(&wishes, before, smaller.as_ref(), &stage.settings)?);
    }
    let draw = |way: &SamplerSettings| model.draw_stage(&wishes, index, smaller.as_ref(), way);
    let stage = model.stages().get(index).ok_or_else(missing)?.settings.clone();
    let reference = SamplerSettings { steps: settings.reference as usize, ..stage.clone() };
    let exact = draw(&reference)?;
    let reference_recall = recall(&prompts, &judge.look_at(&reduced(exact.shallow_clone())?)?)?;
    let mut points = Vec::new();
    for (name, schedule) in schedules(&stage.schedule)? {
        for solver in Solver::deterministic() {
            for evaluations in EVALUATIONS {
                let Some((steps, made)) = steps(solver, &schedule, evaluations)? else { continue };
                let way = SamplerSettings { solver, steps, schedule: schedule.clone(), ..stage.clone() };
                let pictures = draw(&way)?;
                points.push(Point {
                    solver,
                    schedule: name.clone(),
                    steps,
                    evaluations: made,
                    distance: mean(&distances(&pictures, &exact)?),
                    recall: recall(&prompts, &judge.look_at(&reduced(pictures)?)?)?,
                });
            }
        }
    }
    Ok(Results {
        model: settings.model.clone(),
        stage: name.to_owned(),
        is_base: index == 0,
        prompts: prompts.len(),
        reference,
        reference_recall,
        machine: machine::describe(&model),
        judge: judge.fingerprint.clone(),
        points,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Prompts of one and of two objects, half each.
fn chosen(count: usize) -> Result<Vec<Prompt>> {
    let all = prompts::prompts(4 * count.max(8))?;
    let of = |kind: Kind, count: usize| all.iter().filter(move |prompt| prompt.kind == kind).take(count).cloned();
    Ok(of(Kind::One, count.div_ceil(2)).chain(of(Kind::Two, count / 2)).collect())
}

fn recall(prompts: &[Prompt], verdicts: &[Verdict]) -> Result<Option<Measure>> {
    Ok(share(&facts(prompts, verdicts, &Kind::TRAINED, |facts| facts.objects)?))
}

/// Root mean squared distances of pictures, one a row.
pub(crate) fn distances(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let squares = a.f_sub(b)?.f_square()?.f_mean_dim([1_i64, 2, 3].as_slice(), false, TensorKind::Double)?;
    Ok(Vec::try_from(squares.f_sqrt()?)?)
}

/// The schedules, between the ends of the model's own.
fn schedules(own: &Schedule) -> Result<Vec<(String, Schedule)>> {
    let (min, max) = match *own {
        Schedule::Karras { min, max, .. } | Schedule::Deis { min, max, .. } | Schedule::Exponential { min, max } => {
            (min, max)
        }
        _ => {
            let reason = "its schedule is a list, not a rule with two ends".to_owned();
            return Err(Error::Setting { what: "model", reason });
        }
    };
    Ok(vec![
        ("karras 7".to_owned(), Schedule::Karras { min, max, rho: 7.0 }),
        ("deis 6".to_owned(), Schedule::Deis { min, max, order: 6.0 }),
        ("exponential".to_owned(), Schedule::Exponential { min, max }),
    ])
}

/// The most steps that cost at most so many evaluations, and what they cost; none where fewer than two do.
fn steps(solver: Solver, schedule: &Schedule, evaluations: usize) -> Result<Option<(usize, usize)>> {
    let mut best = None;
    for steps in 2..=evaluations {
        let cost = solver.evaluations(&schedule.sigmas(steps)?);
        if cost > evaluations {
            break;
        }
        best = Some((steps, cost));
    }
    Ok(best)
}

impl Measured for Results {
    /// `solvers`, or `solvers-sr256` for a stage of that name that is not the base.
    fn name(&self) -> String {
        if self.is_base { "solvers".to_owned() } else { format!("solvers-{}", self.stage) }
    }

    /// The distances, then what the judge finds on the schedule of the model's family.
    fn markdown(&self) -> String {
        let table = |first: &str, cell: &dyn Fn(&Point) -> Option<String>| {
            let most = EVALUATIONS.map(|evaluations| format!("≤ {evaluations}"));
            let mut table = Table::new([first.to_owned(), "schedule".to_owned()].into_iter().chain(most));
            let ways = self.points.chunk_by(|a, b| (a.solver, &a.schedule) == (b.solver, &b.schedule));
            for (way, first) in ways.filter_map(|way| Some((way, way.first()?))) {
                let of = |most: usize| {
                    let within = way.iter().filter(|point| point.evaluations <= most);
                    within.max_by_key(|point| point.evaluations).and_then(cell).unwrap_or_else(|| "–".to_owned())
                };
                table.row([first.solver.to_string(), first.schedule.clone()].into_iter().chain(EVALUATIONS.map(of)));
            }
            table
        };
        let distance = |point: &Point| point.distance.map(|measure| format!("{:.3}", measure.value));
        let recall = |point: &Point| point.recall.map(|measure| format!("{:.0}", measure.value * 100.0));
        format!(
            "{} prompts, stage {}; reference: {} with {} steps, in which the judge finds {} % of the objects; {}; {:.0} s.\n\n{}\n{}",
            self.prompts,
            self.stage,
            self.reference.solver,
            self.reference.steps,
            percent(self.reference_recall),
            self.machine,
            self.seconds,
            table("distance to the reference", &distance),
            table("objects that the judge finds, %", &recall),
        )
    }

    /// The distance of every solver on the first schedule.
    fn plots(&self) -> Vec<(String, Plot)> {
        let first = self.points.first().map(|point| point.schedule.clone()).unwrap_or_default();
        let line = |solver: Solver| {
            let of = self.points.iter().filter(|point| point.schedule == first && point.solver == solver);
            let place = |point: &Point| Some((point.evaluations as f64, point.distance?.value, None));
            Line { name: solver.to_string(), points: of.filter_map(place).collect() }
        };
        let plot = Plot {
            title: format!("{}: distance to {} steps, schedule {first}", self.stage, self.reference.steps),
            x: Axis::logarithmic("evaluations of the denoiser"),
            y: Axis::logarithmic("root mean squared distance"),
            lines: Solver::deterministic().map(line).collect(),
        };
        vec![(format!("evaluation-{}", self.name()), plot)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cost_what_they_say() {
        let schedule = Schedule::Karras { min: 0.05, max: 80.0, rho: 7.0 };
        let of = |solver: &str, most| steps(solver.parse().unwrap(), &schedule, most).unwrap();
        assert_eq!(of("euler", 10), Some((10, 10)));
        // Two evaluations a step but one for the last: five steps cost nine, six eleven.
        assert_eq!(of("heun", 10), Some((5, 9)));
        assert_eq!(of("kutta-3", 10), Some((4, 10)));
        assert_eq!(of("kutta-3", 3), None);
        // The grid of DEIS makes one evaluation more than it has steps.
        let deis = Schedule::Deis { min: 0.05, max: 80.0, order: 6.0 };
        assert_eq!(steps(Solver::Euler, &deis, 10).unwrap(), Some((9, 10)));
    }

    #[test]
    fn half_of_the_prompts_have_two_objects() {
        let prompts = chosen(10).unwrap();
        assert_eq!(prompts.len(), 10);
        assert_eq!(prompts.iter().filter(|prompt| prompt.wanted.objects.len() == 2).count(), 5);
    }
}
