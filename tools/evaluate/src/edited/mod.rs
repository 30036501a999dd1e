//! `evaluate edits`: whether inpainting replaces what it is asked for and leaves the rest, whether image to image keeps the layout, and
//! whether variations keep what is there and its style.

mod cases;
mod results;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::ValueEnum as _;
use ediffi::{Edit, EditPicture, Pipeline, Request, Style as Reference, StyleImage};
use image::RgbImage;
use train_icons::pack::Pack;
use train_icons::render::Renderer;

use crate::error::{Error, Result};
use crate::judge::{Judge, Verdict};
use crate::machine;
use crate::model::Model;
use crate::pairs::paired;
use cases::{Case, cases};
pub use results::Results;
use results::{Inpainted, Kept};

/// How many requests are drawn together.
const TOGETHER: usize = 8;

/// A kind of edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// One of two objects becomes another.
    Inpainting,
    /// The same objects in another style.
    ImageToImage,
    /// The same again.
    Variations,
}

/// A way to inpaint.
struct Way {
    name: &'static str,
    /// Length and count of jumps.
    jumps: Option<(usize, usize)>,
    /// Whether the words of the new object are painted into the mask.
    painted: bool,
}

const WAYS: [Way; 6] = [
    Way { name: "words alone", jumps: None, painted: false },
    Way { name: "words, jumps of 1 once", jumps: Some((1, 1)), painted: false },
    Way { name: "words, jumps of 4 twice", jumps: Some((4, 2)), painted: false },
    Way { name: "words painted into the mask", jumps: None, painted: true },
    Way { name: "painted, jumps of 1 once", jumps: Some((1, 1)), painted: true },
    Way { name: "painted, jumps of 4 twice", jumps: Some((4, 2)), painted: true },
];

/// What to evaluate.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    pub model: PathBuf,
    /// How many edits of each kind.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    pub edits: u32,
    /// The kinds of edits; all of them unless said.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Inpainting, Kind::ImageToImage, Kind::Variations])]
    pub kinds: Vec<Kind>,
    /// The strengths of image to image.
    #[arg(long, value_delimiter = ',', default_values_t = [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0])]
    pub strengths: Vec<f64>,
}

impl Settings {
    /// Refuses to put some kinds in the place of all of them: the tables of the others would be lost.
    pub fn expect_all(&self) -> Result<()> {
        match Kind::value_variants().iter().find(|kind| !self.kinds.contains(kind)) {
            Some(kind) => {
                let reason =
                    format!("{kind:?} is not among them, and the page has its table: leave out --kinds or --write");
                Err(Error::Setting { what: "--kinds", reason })
            }
            None => Ok(()),
        }
    }
}

/// Evaluates a model.
pub fn evaluate(judge: &Judge, pack: &Pack, settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let model = Model::open(&settings.model, None)?;
    let base = model.judged_base()?.name.clone();
    let renderer = Renderer::new(pack)?;
    let cases = cases(settings.edits as usize, |caption| model.reads(caption))?;
    let pictures = cases.iter().map(|case| case.picture(&renderer)).collect::<Result<Vec<_>>>()?;
    let both: Vec<(&Case, &RgbImage)> = paired("pictures", &cases, &pictures)?.collect();

    let looked = |requests: Vec<Request>| -> Result<Vec<Verdict>> { judge.look(&drawn(&model, &base, &requests)?) };
    let rendered = |of: &dyn Fn(&Case) -> Result<RgbImage>| -> Result<Vec<Verdict>> {
        judge.look(&cases.iter().map(of).collect::<Result<Vec<_>>>()?)
    };

    let wanted = |kind: Kind| settings.kinds.contains(&kind);
    let inpainted = if wanted(Kind::Inpainting) {
        let masked = |way: &Way| {
            let of = |(case, picture): &(&Case, &RgbImage)| -> Result<Request> {
                let mut edit = Edit::new(EditPicture::new(picture)?).mask(case.mask()?);
                if let Some((length, count)) = way.jumps {
                    edit = edit.jumps(length, count);
                }
                let request = Request::new(case.caption()?).seed(case.placed.seed).edit(edit);
                Ok(if way.painted { request.canvas(case.painted()?) } else { request })
            };
            looked(both.iter().map(of).collect::<Result<_>>()?)
        };
        let mut rows = vec![
            Inpainted::new("true pictures of it", &cases, &rendered(&|case| case.truth(&renderer))?)?,
            Inpainted::new("the given pictures", &cases, &judge.look(&pictures)?)?,
        ];
        for way in &WAYS {
            rows.push(Inpainted::new(way.name, &cases, &masked(way)?)?);
        }
        rows
    } else {
        Vec::new()
    };

    let mut redrawn = Vec::new();
    if wanted(Kind::ImageToImage) {
        let truth = rendered(&|case| case.restyled(&renderer))?;
        redrawn.push(Kept::new("true pictures in the other style", None, &cases, &truth, true)?);
        redrawn.push(Kept::new("the given pictures", Some(0.0), &cases, &judge.look(&pictures)?, true)?);
        for &strength in &settings.strengths {
            let edited = |(case, picture): &(&Case, &RgbImage)| -> Result<Request> {
                let edit = Edit::new(EditPicture::new(picture)?).strength(strength);
                Ok(Request::new(case.in_other_style()?).seed(case.placed.seed).edit(edit))
            };
            let verdicts = looked(both.iter().map(edited).collect::<Result<_>>()?)?;
            redrawn.push(Kept::new("image to image", Some(strength), &cases, &verdicts, true)?);
        }
    }

    let mut variations = Vec::new();
    if wanted(Kind::Variations) {
        // As `ediffi vary` does it, with and without the prompt, and the embedding alone.
        let varied = |words: bool, strength: Option<f64>| {
            let of = |(case, picture): &(&Case, &RgbImage)| -> Result<Request> {
                let request = if words { Request::new(case.before()?) } else { Request::unconditional() };
                let style = Reference::from(StyleImage::new((*picture).clone())?);
                let request = request.seed(case.placed.seed).style(style);
                Ok(match strength {
                    Some(strength) => request.edit(Edit::new(EditPicture::new(picture)?).strength(strength)),
                    None => request,
                })
            };
            looked(both.iter().map(of).collect::<Result<_>>()?)
        };
        variations.push(Kept::new("the given pictures", None, &cases, &judge.look(&pictures)?, false)?);
        for (way, words, strength) in [
            ("picture, CLIP and prompt", true, Some(0.7)),
            ("picture and CLIP", false, Some(0.7)),
            ("CLIP and prompt", true, None),
            ("CLIP alone", false, None),
        ] {
            variations.push(Kept::new(way, strength, &cases, &varied(words, strength)?, false)?);
        }
    }
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

/// The pictures of requests, by the base alone, on every worker with a pipeline of its own.
fn drawn(model: &Model, base: &str, requests: &[Request]) -> Result<Vec<RgbImage>> {
    let requests: Vec<Request> = requests.iter().map(|request| request.clone().last_stage(base)).collect();
    let queue = Mutex::new(requests.chunks(TOGETHER).enumerate());
    let folder = model.pipeline.folder();
    let worker = || -> Result<Vec<(usize, Vec<RgbImage>)>> {
        let pipeline = Pipeline::open(folder)?;
        let mut parts = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, requests)) = next else { return Ok(parts) };
            let drawn = pipeline.generate_many(requests)?;
            let images = drawn.into_iter().flat_map(|generation| generation.images);
            parts.push((number, images.map(|image| image.rgb().clone()).collect()));
        }
    };
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..model.workers).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| Error::Worker)?).collect::<Result<Vec<_>>>()
    })?;
    let parts: BTreeMap<usize, Vec<RgbImage>> = parts.into_iter().flatten().collect();
    Ok(parts.into_values().flatten().collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn some_kinds_do_not_take_the_place_of_all() {
        let settings = |arguments: &[&str]| Arguments::parse_from([&["edits"], arguments].concat()).settings;
        assert!(settings(&[]).expect_all().is_ok());
        let refused = settings(&["--kinds", "inpainting,variations"]).expect_all().unwrap_err().to_string();
        assert!(refused.contains("ImageToImage"), "{refused}");
    }
}
