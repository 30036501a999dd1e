//! `evaluate seen`: what a person sees of a model's pictures, at full size.
//!
//! Each picture is measured beside renders of its prompt ([`truths`]): how plain it is ([`plainness`]), how wide its edges are
//! ([`sharpness`]), how rough its contours ([`roughness`]) and how much they turn ([`curvature`]), how many spots it has that belong to nothing ([`specks`]). All
//! pictures together are measured by the distance of their patches to those of other renders ([`patches`]).

pub mod contours;
pub mod curvature;
pub mod drawn;
pub mod lite0;
pub mod look;
pub mod patches;
pub mod plainness;
mod results;
pub mod roughness;
pub mod samplers;
pub mod sharpness;
pub mod specks;
pub mod truths;
pub mod views;
pub mod worst;

use std::path::{Path, PathBuf};
use std::time::Instant;

use ediffi_core::files::write_json;
use ediffi_train::lineage::fingerprint;
use image::RgbImage;
use rayon::prelude::*;
use tch::Tensor;
use train_icons::pack::Pack;
use train_icons::render::Renderer;
use train_icons::scene::Scene;

use crate::error::{Error, Result};
use crate::frechet;
use crate::judge::Judge;
use crate::machine;
use crate::model::Model;
use crate::prompts::{self, Prompt};
use drawn::{Drawn, read};
pub use drawn::{Note, Sampler, Work};
use lite0::Lite0;
use look::{Look, Seen};
pub use results::{Line, OfPicture, Results};
use views::{SMALL, reduced};

/// How many times as many reference renders as prompts the distance of patches has.
const REFERENCES: usize = 2;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    pub model: PathBuf,
    /// How many prompts.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    pub prompts: u32,
    /// Another sampler of a stage, as STAGE=JSON: `base={"solver": "tab-deis-3", "steps": 30}`.
    #[arg(long)]
    pub sampler: Vec<Sampler>,
    /// Draw with this many stages alone, the first ones: quicker, where samplers of the base are compared.
    #[arg(long)]
    pub stages: Option<usize>,
    /// Measure the PNGs of this folder, one for each prompt in the order of their names, and draw nothing.
    #[arg(long, conflicts_with_all = ["sampler", "stages"])]
    pub pictures: Option<PathBuf>,
    /// A second judge, which then says what the pictures show.
    #[arg(long)]
    pub second: Option<PathBuf>,
    /// The weights of the network whose features patches are compared by.
    #[arg(long, default_value = lite0::DEFAULT_PATH)]
    pub lite0: PathBuf,
    /// What results, their markers and the page of the worst pictures are called.
    #[arg(long, default_value = "seen")]
    pub name: String,
    /// How many threads draw; one a core unless said.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// Measures a model or a folder of pictures. Pictures are kept in `out/drawn`, the page of the worst is in `out/NAME-worst`, and
/// the prompts, for who draws elsewhere, in `out/NAME-prompts.json`.
pub fn evaluate(pack: &Pack, settings: &Settings, out: &Path) -> Result<Results> {
    let began = Instant::now();
    let prompts = prompts::prompts(settings.prompts as usize)?;
    let listed: Vec<_> = prompts.iter().map(|prompt| (&prompt.scene.caption, prompt.seed)).collect();
    write_json(&out.join(format!("{}-prompts.json", settings.name)), &listed)?;
    let (drawn, machine) = match &settings.pictures {
        Some(folder) => (drawn::found(folder, prompts.len())?, machine::processor()),
        None => {
            let model = Model::open(&settings.model, settings.threads)?;
            (
                drawn::draw(&model, &prompts, &settings.sampler, settings.stages, &out.join("drawn"))?,
                machine::describe(&model),
            )
        }
    };
    let renderer = Renderer::new(pack)?;
    let measured = looks(&prompts, &drawn, &renderer)?;
    let (seen, ideal): (Vec<Seen>, Vec<Seen>) = measured.into_iter().unzip();
    let mut columns = Results::columns(&seen);
    let mut lines = Line::of(&ideal, &seen);
    let side = drawn.paths.first().map_or(Ok(SMALL), |path| Ok::<_, Error>(read(path)?.width()))?;
    tch::set_num_threads(std::thread::available_parallelism().map_or(1, usize::from) as i32);
    let patches = Patches {
        network: Lite0::open(&settings.lite0)?,
        renderer: &renderer,
        full: side,
        kept: out.join("render-features"),
        key: serde_json::to_string(pack)? + &fingerprint(&settings.lite0)?,
    };
    for (title, side) in [("patches, full size", side), ("patches, 256", SMALL)] {
        let (line, column) = patches.line(title, side, &prompts, &drawn)?;
        lines.push(line);
        columns.push(column);
    }
    worst::page(&out.join(format!("{}-worst", settings.name)), &columns, &prompts, &drawn.paths, &renderer)?;
    let second = settings.second.as_ref().map(|path| second(path, &prompts, &drawn, &renderer, side)).transpose()?;
    let pictures = prompts.iter().zip(&drawn.paths).zip(&seen).map(|((prompt, path), seen)| OfPicture {
        prompt: prompt.scene.caption.clone(),
        seed: prompt.seed,
        picture: path.clone(),
        seen: *seen,
    });
    Ok(Results {
        name: settings.name.clone(),
        source: settings.pictures.clone().unwrap_or_else(|| settings.model.clone()),
        samplers: settings.sampler.clone(),
        side,
        machine,
        pictures: pictures.collect(),
        note: drawn.note,
        lines,
        second,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Every picture, and another render of its prompt, beside the renders of its prompt.
fn looks(prompts: &[Prompt], drawn: &Drawn, renderer: &Renderer) -> Result<Vec<(Seen, Seen)>> {
    let bar = indicatif::ProgressBar::new(prompts.len() as u64).with_message("measuring");
    let of = |(prompt, path): (&Prompt, &PathBuf)| {
        let picture = read(path)?;
        let look = |scene: &Scene| Look::at(&render(renderer, scene, picture.width())?, Some(scene.background.tones()));
        let renders = truths::truths(&prompt.scene)?.iter().map(look).collect::<Result<Vec<_>>>()?;
        let own = Seen::beside(&Look::at(&picture, truths::tones(&prompt.scene))?, &renders);
        let ideal = Seen::beside(&look(&truths::redrawn(&prompt.scene, prompt.seed)?)?, &renders);
        bar.inc(1);
        Ok((own, ideal))
    };
    let found = prompts.par_iter().zip(&drawn.paths).map(of).collect();
    bar.finish_and_clear();
    found
}

/// A scene drawn.
fn render(renderer: &Renderer, scene: &Scene, side: u32) -> Result<RgbImage> {
    let wrong = || Error::Setting { what: "render", reason: "it has too few bytes".to_owned() };
    RgbImage::from_raw(side, side, renderer.render(scene, side)?).ok_or_else(wrong)
}

/// Compares patches of pictures with patches of renders.
struct Patches<'a> {
    network: Lite0,
    renderer: &'a Renderer,
    /// Side of the pictures.
    full: u32,
    /// Where the features of renders are kept.
    kept: PathBuf,
    /// What these depend on beside the scenes: drawings and weights.
    key: String,
}

impl Patches<'_> {
    /// The distance of the patches of pictures reduced to `side`, that of the renders of the same scenes, and how far each picture is
    /// from its render. Both distances are to renders of other scenes.
    fn line(&self, title: &'static str, side: u32, prompts: &[Prompt], drawn: &Drawn) -> Result<(Line, worst::Column)> {
        let bar = indicatif::ProgressBar::new(drawn.paths.len() as u64).with_message(title);
        let of = |path: &PathBuf| {
            bar.inc(1);
            patches::features(&self.network, &reduced(&read(path)?, side))
        };
        let pictures = drawn.paths.iter().map(of).collect::<Result<Vec<_>>>()?;
        bar.finish_and_clear();
        let renders = self.renders(side, prompts)?;
        let references = self.renders(side, &prompts::references(prompts.len() * REFERENCES)?)?;
        let each = pictures.first().map_or(1, |rows| rows.size().first().copied().unwrap_or(1));
        let distance = |rows: &Tensor| frechet::measure_by(rows, each, &references);
        let (ideal, own) = (distance(&renders)?, distance(&Tensor::f_cat(&pictures, 0)?)?);
        let pairs = pictures.iter().zip(renders.f_split(each, 0)?);
        let apart = pairs.map(|(picture, render)| Ok(Some(patches::apart(picture, &render)?)));
        let line = Line { name: title.to_owned(), renders: Some(ideal), pictures: Some(own) };
        Ok((line, (title, apart.collect::<Result<Vec<_>>>()?)))
    }

    /// The features of the patches of renders, those of one scene after those of the other. They are computed once for all models.
    ///
    /// # Shapes
    /// → [scenes · patches, 112]
    fn renders(&self, side: u32, prompts: &[Prompt]) -> Result<Tensor> {
        let scenes: Vec<&Scene> = prompts.iter().map(|prompt| &prompt.scene).collect();
        let name = drawn::hash([self.key.clone(), serde_json::to_string(&(self.full, side, &scenes))?]);
        patches::kept(&self.kept.join(format!("{name}.safetensors")), || {
            let bar = indicatif::ProgressBar::new(scenes.len() as u64).with_message("renders");
            let of = |scene: &&Scene| {
                bar.inc(1);
                patches::features(&self.network, &reduced(&render(self.renderer, scene, self.full)?, side))
            };
            let rows = scenes.iter().map(of).collect::<Result<Vec<_>>>()?;
            bar.finish_and_clear();
            Ok(Tensor::f_cat(&rows, 0)?)
        })
    }
}

/// What another judge sees in the pictures and in the renders of their scenes.
fn second(
    path: &Path,
    prompts: &[Prompt],
    drawn: &Drawn,
    renderer: &Renderer,
    side: u32,
) -> Result<(String, Vec<crate::icons::Row>)> {
    let judge = Judge::open(path)?;
    let (mut pictures, mut renders) = (Vec::new(), Vec::new());
    for (prompt, path) in prompts.iter().zip(&drawn.paths) {
        pictures.extend(judge.look(&[read(path)?])?);
        renders.extend(judge.look(&[render(renderer, &prompt.scene, side)?])?);
    }
    Ok((judge.fingerprint.clone(), crate::icons::shares(prompts, &renders, &pictures)?))
}
