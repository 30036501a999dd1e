//! `evaluate edits`: whether inpainting replaces what it is asked for and leaves the rest, whether image to image keeps the layout, and
//! whether variations keep what is there and its style.

mod cases;
mod results;

use std::path::PathBuf;
use std::time::Instant;

use ediffi::{Edit, EditPicture, Request, Style as Reference, StyleImage};
use image::RgbImage;
use train_icons::pack::Pack;
use train_icons::render::Renderer;

use crate::error::Result;
use crate::judge::{Judge, Verdict};
use crate::machine;
use crate::model::Model;
use crate::pairs::paired;
use cases::{Case, cases};
pub use results::Results;
use results::{Inpainted, Kept};

/// How many requests are drawn together.
const TOGETHER: usize = 8;

/// What to evaluate.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    pub model: PathBuf,
    /// How many edits of each kind.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    pub edits: u32,
    /// The strengths of image to image.
    #[arg(long, value_delimiter = ',', default_values_t = [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0])]
    pub strengths: Vec<f64>,
}

/// Evaluates a model.
pub fn evaluate(judge: &Judge, pack: &Pack, settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let model = Model::open(&settings.model, Some(1))?;
    tch::set_num_threads(std::thread::available_parallelism().map_or(1, |cores| cores.get() as i32));
    let base = model.judged_base()?.name.clone();
    let renderer = Renderer::new(pack)?;
    let cases = cases(settings.edits as usize, |caption| model.reads(caption))?;
    let pictures = cases.iter().map(|case| case.picture(&renderer)).collect::<Result<Vec<_>>>()?;
    let both: Vec<(&Case, &RgbImage)> = paired("pictures", &cases, &pictures)?.collect();

    let looked = |requests: Vec<Request>| -> Result<Vec<Verdict>> { judge.look(&drawn(&model, &base, &requests)?) };
    let rendered = |of: &dyn Fn(&Case) -> Result<RgbImage>| -> Result<Vec<Verdict>> {
        judge.look(&cases.iter().map(of).collect::<Result<Vec<_>>>()?)
    };

    let masked = |(case, picture): &(&Case, &RgbImage)| -> Result<Request> {
        let edit = Edit::new(EditPicture::new(picture)?).mask(case.mask()?);
        Ok(Request::new(case.caption()?).seed(case.placed.seed).edit(edit))
    };
    let inpainted = vec![
        Inpainted::new("true pictures of it", &cases, &rendered(&|case| case.truth(&renderer))?)?,
        Inpainted::new("the given pictures", &cases, &judge.look(&pictures)?)?,
        Inpainted::new("inpainted", &cases, &looked(both.iter().map(masked).collect::<Result<_>>()?)?)?,
    ];

    let mut redrawn = vec![
        Kept::new(
            "true pictures in the other style",
            None,
            &cases,
            &rendered(&|case| case.restyled(&renderer))?,
            true,
        )?,
        Kept::new("the given pictures", Some(0.0), &cases, &judge.look(&pictures)?, true)?,
    ];
    for &strength in &settings.strengths {
        let edited = |(case, picture): &(&Case, &RgbImage)| -> Result<Request> {
            let edit = Edit::new(EditPicture::new(picture)?).strength(strength);
            Ok(Request::new(case.in_other_style()?).seed(case.placed.seed).edit(edit))
        };
        let verdicts = looked(both.iter().map(edited).collect::<Result<_>>()?)?;
        redrawn.push(Kept::new("image to image", Some(strength), &cases, &verdicts, true)?);
    }

    // As `ediffi vary` does it, with and without the prompt, and the embedding alone.
    let varied = |words: bool, strength: Option<f64>| {
        let of = |(case, picture): &(&Case, &RgbImage)| -> Result<Request> {
            let request = if words { Request::new(case.before()?) } else { Request::unconditional() };
            let request = request.seed(case.placed.seed).style(Reference::from(StyleImage::new((*picture).clone())?));
            Ok(match strength {
                Some(strength) => request.edit(Edit::new(EditPicture::new(picture)?).strength(strength)),
                None => request,
            })
        };
        looked(both.iter().map(of).collect::<Result<_>>()?)
    };
    let variations = vec![
        Kept::new("the given pictures", None, &cases, &judge.look(&pictures)?, false)?,
        Kept::new("picture, CLIP and prompt", Some(0.7), &cases, &varied(true, Some(0.7))?, false)?,
        Kept::new("picture and CLIP", Some(0.7), &cases, &varied(false, Some(0.7))?, false)?,
        Kept::new("CLIP and prompt", None, &cases, &varied(true, None)?, false)?,
        Kept::new("CLIP alone", None, &cases, &varied(false, None)?, false)?,
    ];
    Ok(Results {
        model: settings.model.clone(),
        edits: cases.len(),
        machine: machine::describe(&model),
        judge: judge.fingerprint.clone(),
        inpainted,
        redrawn,
        variations,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// The pictures of requests, by the base alone.
fn drawn(model: &Model, base: &str, requests: &[Request]) -> Result<Vec<RgbImage>> {
    let requests: Vec<Request> = requests.iter().map(|request| request.clone().last_stage(base)).collect();
    let mut pictures = Vec::with_capacity(requests.len());
    for together in requests.chunks(TOGETHER) {
        let drawn = model.pipeline.generate_many(together)?;
        pictures.extend(drawn.into_iter().flat_map(|generation| generation.images).map(|image| image.rgb().clone()));
    }
    Ok(pictures)
}
