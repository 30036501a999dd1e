//! `evaluate icons`: how good a model's pictures are, beside renders of the same scenes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ediffi_core::files::make_folder_of;
use ediffi_train::pixels::{from_rgb, to_rgb};
use serde::Serialize;
use tch::{Kind as TensorKind, Tensor};
use train_icons::pack::Pack;

use crate::bootstrap::{Measure, mean, share};
use crate::document::{Table, number, percent};
use crate::error::Result;
use crate::frechet;
use crate::judge::network::SIDE;
use crate::judge::{Accuracy, Judge, Verdict};
use crate::machine;
use crate::measured::Measured;
use crate::model::{Model, Wish};
use crate::plot::{Axis, Line, Plot};
use crate::prompts::{self, Kind, Prompt, facts};
use crate::times;
use crate::wanted::Facts;

/// Noise levels at which the denoising loss is measured.
pub const SIGMAS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0];
/// The most scenes of the denoising loss.
const LOSSES: usize = 200;
/// How many times as many reference renders as prompts the Fréchet distance has.
const REFERENCES: usize = 2;

/// The most pictures of the sheet.
const SHOWN: usize = 60;

/// Where the pictures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Last {
    /// The base's pictures, 64×64.
    Base,
    /// Those of the last stage, reduced to what the judge sees.
    Last,
}

/// What to evaluate.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    pub model: PathBuf,
    /// How many prompts.
    #[arg(long, default_value_t = prompts::ALL as u32, value_parser = clap::value_parser!(u32).range(2..))]
    pub prompts: u32,
    /// Which stage's pictures are judged.
    #[arg(long, value_enum, default_value_t = Last::Base)]
    pub stage: Last,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    name: String,
    /// On renders of the scenes that the prompts were written for.
    renders: Option<Measure>,
    /// On the model's pictures.
    model: Option<Measure>,
}

/// The denoising loss at a noise level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Loss {
    sigma: f64,
    /// Mean squared error of the estimate, per pixel and channel in [-1, 1].
    error: Measure,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    model: PathBuf,
    stage: Last,
    prompts: usize,
    machine: String,
    judge: String,
    judge_accuracy: Option<Accuracy>,
    shares: Vec<Row>,
    /// The Fréchet distance to other renders.
    frechet: Row,
    loss: Vec<Loss>,
    /// Milliseconds of a step of one picture, by stage.
    times: Vec<times::StepTime>,
    /// Seconds that drawing all pictures took, all workers together at work.
    drawing_seconds: f64,
    seconds: f64,
}

/// A share: what it is called, which prompts it is of, which facts.
pub(crate) type ShareOf = (&'static str, &'static [Kind], fn(&Facts) -> (f64, f64));

/// The shares, in the order of the table.
pub(crate) const SHARES: [ShareOf; 14] = [
    ("one object: it is there", &[Kind::One], |facts| facts.whole),
    ("two objects: both are there", &[Kind::Two], |facts| facts.whole),
    ("two objects: each of them", &[Kind::Two], |facts| facts.objects),
    ("three objects: each of them", &[Kind::Three], |facts| facts.objects),
    ("unseen style of a concept: it is there", &[Kind::HeldOutStyle], |facts| facts.whole),
    ("unseen style of a concept: the style is right", &[Kind::HeldOutStyle], |facts| facts.style),
    ("unseen pair: both are there", &[Kind::HeldOutPair], |facts| facts.whole),
    ("objects that are there were asked for", &Kind::TRAINED, |facts| facts.asked_for),
    ("style", &Kind::TRAINED, |facts| facts.style),
    ("relation: both there and placed as asked", &[Kind::Two], |facts| facts.relation),
    ("relation, where both are there", &[Kind::Two], |facts| facts.placed),
    ("count of two or three: exact", &[Kind::Same], |facts| facts.count),
    ("colour of objects that are there", &Kind::TRAINED, |facts| facts.colour),
    ("colour of the background", &Kind::TRAINED, |facts| facts.background),
];

/// Evaluates a model. A sheet of some of its pictures, evenly chosen, is written into `out`: numbers alone do not say what
/// is wrong.
pub fn evaluate(judge: &Judge, pack: &Pack, settings: &Settings, out: &Path) -> Result<Results> {
    let began = Instant::now();
    let model = Model::open(&settings.model, None)?;
    let base = model.judged_base()?.clone();
    let prompts = prompts::prompts(settings.prompts as usize)?;
    let clean = renders(pack, &prompts)?;
    let wishes = model.wishes(prompts.iter().map(Prompt::asked), None)?;
    let stages = if settings.stage == Last::Base { 1 } else { model.stages().len() };
    let drawing = Instant::now();
    let pictures = model.draw(&wishes, stages, &base.settings, None)?;
    let drawing_seconds = drawing.elapsed().as_secs_f64();
    sheet(&pictures, &out.join(format!("{}-pictures.png", name(settings.stage))))?;

    let (ideal, drawn) = (judge.look_at(&clean)?, judge.look_at(&pictures)?);
    let shares = shares(&prompts, &ideal, &drawn)?;
    let reference = reference(judge, pack, prompts.len())?;
    let distance = |verdicts: &[Verdict]| frechet::measure(&frechet::features(verdicts)?, &reference);
    let frechet = Row {
        name: "Fréchet distance to other renders".to_owned(),
        renders: Some(distance(&ideal)?),
        model: Some(distance(&drawn)?),
    };
    let loss = errors(&model, &wishes, &clean)?
        .into_iter()
        .filter_map(|(sigma, errors)| Some(Loss { sigma, error: mean(&errors)? }))
        .collect();
    let times = times::step_times(&settings.model, stages)?;
    Ok(Results {
        model: settings.model.clone(),
        stage: settings.stage,
        prompts: prompts.len(),
        machine: machine::describe(&model),
        judge: judge.fingerprint.clone(),
        judge_accuracy: judge.accuracy,
        shares,
        frechet,
        loss,
        times,
        drawing_seconds,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// What is right of the renders of prompts and of their pictures, as a judge sees them.
pub(crate) fn shares(prompts: &[Prompt], renders: &[Verdict], pictures: &[Verdict]) -> Result<Vec<Row>> {
    let row = |(name, kinds, of): ShareOf| {
        let [renders, model] = [renders, pictures].map(|verdicts| facts(prompts, verdicts, kinds, of));
        Ok(Row { name: name.to_owned(), renders: share(&renders?), model: share(&model?) })
    };
    SHARES.into_iter().map(row).collect()
}

/// The shares as a table.
pub(crate) fn shares_table(rows: &[Row]) -> Table {
    let mut table = Table::new(["%, with 95 % interval", "asked", "renders (ceiling)", "model"]);
    for row in rows {
        let asked = row.model.or(row.renders).map_or(0, |measure| measure.samples);
        table.row([row.name.clone(), asked.to_string(), percent(row.renders), percent(row.model)]);
    }
    table
}

fn name(stage: Last) -> &'static str {
    if stage == Last::Last { "icons-last" } else { "icons" }
}

/// Writes up to [`SHOWN`] pictures, evenly chosen, as a sheet.
fn sheet(pictures: &Tensor, path: &Path) -> Result<()> {
    let every = (pictures.size4()?.0 as usize).div_ceil(SHOWN).max(1);
    let chosen: Vec<_> = to_rgb(pictures)?.into_iter().step_by(every).collect();
    make_folder_of(path)?;
    Ok(train_icons::sheet::write(path, &chosen, SIDE as u32, 12)?)
}

/// Features of renders of other scenes, twice as many as `prompts`: what pictures are compared with as a whole.
pub(crate) fn reference(judge: &Judge, pack: &Pack, prompts: usize) -> Result<Tensor> {
    frechet::features(&judge.look_at(&renders(pack, &prompts::references(prompts * REFERENCES)?)?)?)
}

/// Renders of the prompts' scenes.
pub(crate) fn renders(pack: &Pack, prompts: &[Prompt]) -> Result<Tensor> {
    let renderer = train_icons::render::Renderer::new(pack)?;
    let draw = |prompt: &Prompt| Ok(renderer.render(&prompt.scene, SIDE as u32)?);
    Ok(from_rgb(&prompts.iter().map(draw).collect::<Result<Vec<_>>>()?, SIDE, SIDE)?)
}

/// The mean squared error of the base's estimates of evenly chosen scenes, at each of [`SIGMAS`].
pub(crate) fn errors(model: &Model, wishes: &[Wish], clean: &Tensor) -> Result<Vec<(f64, Vec<f64>)>> {
    let every = wishes.len().div_ceil(LOSSES).max(1);
    let places: Vec<i64> = (0..wishes.len() as i64).step_by(every).collect();
    let clean = clean.f_index_select(0, &Tensor::f_from_slice(&places)?)?;
    let chosen: Vec<Wish> = wishes
        .iter()
        .step_by(every)
        .map(|wish| Wish { conditioning: wish.conditioning.shallow_clone(), seed: wish.seed })
        .collect();
    let at = |sigma| {
        let error = model.estimate(&chosen, &clean, sigma)?.f_sub(&clean)?.f_square()?;
        let errors = error.f_mean_dim([1_i64, 2, 3].as_slice(), false, TensorKind::Double)?;
        Ok((sigma, Vec::<f64>::try_from(errors)?))
    };
    SIGMAS.into_iter().map(at).collect()
}

impl Measured for Results {
    fn name(&self) -> String {
        name(self.stage).to_owned()
    }

    fn markdown(&self) -> String {
        let shares = shares_table(&self.shares);
        let Row { name, renders, model } = &self.frechet;
        let mut table = Table::new(["", "renders (floor)", "model"]);
        table.row([name.clone(), number(*renders, 3), number(*model, 3)]);
        let mut loss = Table::new(["σ", "squared error × 1000"]);
        for Loss { sigma, error } in &self.loss {
            loss.row([sigma.to_string(), number(Some(error.times(1e3)), 2)]);
        }
        let mut times = Table::new(["stage", "side", "ms a step"]);
        for time in &self.times {
            times.row([time.stage.clone(), time.side.to_string(), number(Some(time.milliseconds), 1)]);
        }
        format!(
            "{} prompts, {} stage; {}. Judge `{}`. Drawn in {:.0} s, evaluated in {:.0} s.\n\n{shares}\n{table}\n{loss}\n{times}",
            self.prompts,
            if self.stage == Last::Base { "base" } else { "last" },
            self.machine,
            self.judge,
            self.drawing_seconds,
            self.seconds,
        )
    }

    fn plots(&self) -> Vec<(String, Plot)> {
        let points = self.loss.iter().map(|loss| (loss.sigma, Some(loss.error)));
        let plot = Plot {
            title: "Denoising loss of the base on held-out scenes".to_owned(),
            x: Axis::logarithmic("σ"),
            y: Axis::logarithmic("squared error per pixel"),
            lines: vec![Line::measured("model", points)],
        };
        vec![(format!("evaluation-{}-loss", self.name()), plot)]
    }
}
