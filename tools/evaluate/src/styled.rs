//! `evaluate style`: whether a reference picture gives its style and leaves the content to the prompt.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ediffi::{Conditioning, Style as Reference, StyleImage};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use train_icons::config::{Mix, SamplerConfig};
use train_icons::pack::Pack;
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;
use train_icons::scene::Scene;
use train_icons::split::Split;

use crate::bootstrap::{Measure, share};
use crate::document::{self, Table, percent};
use crate::error::{Error, Result};
use crate::icons::look;
use crate::judge::network::SIDE;
use crate::judge::{Judge, Verdict};
use crate::machine;
use crate::model::{Model, Wish};
use crate::pairs::paired;
use crate::placed::CANDIDATES;
use crate::plot::{Axis, Line, Plot};
use crate::wanted::{Facts, Wanted};

/// Seed of the scenes; the generator's seeds are small numbers.
const SEED: u64 = 0x7374_796C_6501;
/// Seed of the first picture.
const PICTURES: u64 = 3_000_000;
/// Every so manieth prompt has two objects.
const TWO_EVERY: u64 = 3;
/// References of a mean.
const SEVERAL: usize = 4;

/// What to evaluate.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    pub model: PathBuf,
    /// How many prompts.
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(2..))]
    pub prompts: u32,
    /// The strengths to try.
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 1.0, 1.5, 2.0, 3.0])]
    pub strengths: Vec<f64>,
    /// How many threads draw; one a core unless said.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// A prompt without a style word, and pictures in the style it shall have.
#[derive(Debug, Clone)]
struct Prompt {
    scene: Scene,
    wanted: Wanted,
    /// Of other objects, in the style of the scene.
    references: Vec<Scene>,
    seed: u64,
}

/// What was measured in one way of giving the style.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// How the style was given.
    pub way: String,
    /// Strength of the reference, where there is one.
    pub strength: Option<f64>,
    /// Share of the pictures with the right style.
    pub style: Option<Measure>,
    /// Share of the objects that are there.
    pub objects: Option<Measure>,
    /// Share of the pictures that show something of the references they were given which the prompt does not ask for. Without
    /// a reference, that of the first one which they might have been given: how often this happens by chance.
    pub leaked: Option<Measure>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The model folder.
    pub model: PathBuf,
    /// How many prompts.
    pub prompts: usize,
    /// What computed.
    pub machine: String,
    /// The judge's fingerprint.
    pub judge: String,
    /// One row for each way of giving the style.
    pub rows: Vec<Row>,
    /// Seconds of the whole evaluation.
    pub seconds: f64,
}

/// A prompt with the style in words.
fn named(scene: &Scene) -> String {
    format!("{}, {} style", scene.caption, scene.style.word())
}

/// `count` prompts that `reads` accepts with the style in words; the same count always gives the same.
fn prompts(count: usize, reads: impl Fn(&str) -> Result<bool>) -> Result<Vec<Prompt>> {
    let none = Mix { one: 0.0, placed: 0.0, two: 0.0, three: 0.0, same: 0.0 };
    let sampler = |mix| {
        let config = SamplerConfig { mix, omit_style: 1.0, paraphrase: 0.0, ..SamplerConfig::small() };
        Sampler::new(config)
    };
    let (one, two) = (sampler(Mix { one: 1.0, ..none })?, sampler(Mix { two: 1.0, ..none })?);
    let prompt = |index: u64| {
        let sampler = if index % TWO_EVERY == TWO_EVERY - 1 { &two } else { &one };
        let scene = sampler.scene(SEED, index, Split::Train)?;
        if !reads(&named(&scene))? {
            return Ok(None);
        }
        let shown = |reference: &Scene| {
            let named = |concept: &String| scene.objects.iter().any(|object| object.concept == *concept);
            reference.objects.iter().any(|object| named(&object.concept))
        };
        // The first is the scene's own reference; the others are those of other scenes in the same style.
        let mut references = vec![sampler.style_reference(SEED, index, Split::Train)?];
        for other in 0..CANDIDATES {
            if references.len() == SEVERAL {
                return Ok(Some(Prompt { wanted: Wanted::of(&scene), scene, references, seed: PICTURES + index }));
            }
            let candidate = one.scene(SEED + 1 + index, other, Split::Train)?;
            if candidate.style == scene.style && !shown(&candidate) {
                references.push(candidate);
            }
        }
        Err(Error::Candidates { what: "a reference", tried: CANDIDATES })
    };
    let (mut found, mut from) = (Vec::with_capacity(count), 0);
    while found.len() < count {
        // The first that is usable, or the first error.
        let next = (from..from + CANDIDATES).find_map(|index| Some((index, prompt(index).transpose()?)));
        let Some((index, prompt)) = next else {
            return Err(Error::Candidates { what: "a prompt that the model reads", tried: CANDIDATES });
        };
        from = index + 1;
        found.push(prompt?);
    }
    Ok(found)
}

/// Evaluates a model.
///
/// # Errors
/// Those of the model, of the scenes and of the judge.
pub fn evaluate(judge: &Judge, pack: &Pack, settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let model = Model::open_on(&settings.model, settings.threads)?;
    let base = model.judged_base()?.clone();
    let renderer = Renderer::new(pack)?;
    let prompts = prompts(settings.prompts as usize, |caption| model.reads(caption))?;
    let plain = prompts.iter().map(|p| model.wish(&p.scene.caption, p.seed, None)).collect::<Result<Vec<_>>>()?;
    let words = prompts.iter().map(|p| model.wish(&named(&p.scene), p.seed, None)).collect::<Result<Vec<_>>>()?;
    let single = prompts.iter().map(|p| embedding(&model, &renderer, p, 1)).collect::<Result<Vec<_>>>()?;
    let several = prompts.iter().map(|p| embedding(&model, &renderer, p, SEVERAL)).collect::<Result<Vec<_>>>()?;

    let row = |way: &str, given: Option<(f64, usize)>, wishes: &[Wish]| -> Result<Row> {
        let verdicts = look(judge, &model.draw(wishes, 1, &base.settings)?)?;
        Row::new(way, given, &prompts, &verdicts)
    };
    let mut rows = vec![row("no reference", None, &plain)?, row("style in words", None, &words)?];
    for &strength in &settings.strengths {
        rows.push(row("reference", Some((strength, 1)), &styled(&plain, &single, strength)?)?);
    }
    let mean = styled(&plain, &several, 1.0)?;
    rows.push(row(&format!("mean of {SEVERAL} references"), Some((1.0, SEVERAL)), &mean)?);
    Ok(Results {
        model: settings.model.clone(),
        prompts: prompts.len(),
        machine: machine::describe(&model),
        judge: judge.fingerprint().to_owned(),
        rows,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// The mean embedding of the first references of a prompt.
///
/// # Shapes
/// → [1, width]
fn embedding(model: &Model, renderer: &Renderer, prompt: &Prompt, count: usize) -> Result<Tensor> {
    let render = |scene: &Scene| -> Result<(StyleImage, f64)> {
        let side = SIDE as u32;
        let pixels = image::RgbImage::from_raw(side, side, renderer.render(scene, side)?).ok_or(Error::Worker)?;
        Ok((StyleImage::new(pixels)?, 1.0))
    };
    let references = prompt.references.iter().take(count).map(render).collect::<Result<Vec<_>>>()?;
    let embedding = model.pipeline().encode_style(Reference::mean(references))?;
    Ok(Tensor::f_from_slice(embedding.values())?.f_unsqueeze(0)?)
}

/// The same wishes with these style embeddings.
fn styled(wishes: &[Wish], embeddings: &[Tensor], strength: f64) -> Result<Vec<Wish>> {
    let with = |(wish, embedding): (&Wish, &Tensor)| -> Result<Wish> {
        let clip_image = Some(embedding.f_mul_scalar(strength)?);
        Ok(Wish { conditioning: Conditioning { clip_image, ..wish.conditioning.shallow_clone() }, seed: wish.seed })
    };
    paired("style embeddings", wishes, embeddings)?.map(with).collect()
}

impl Row {
    /// `given`: the strength, and how many of the references were used.
    fn new(way: &str, given: Option<(f64, usize)>, prompts: &[Prompt], verdicts: &[Verdict]) -> Result<Self> {
        let rows: Vec<_> = paired("pictures", prompts, verdicts)?.collect();
        let of = |part: &dyn Fn(&Prompt, &Verdict) -> (f64, f64)| {
            share(&rows.iter().map(|(prompt, verdict)| part(prompt, verdict)).collect::<Vec<_>>())
        };
        let used = given.map_or(1, |(_, used)| used);
        let right = |yes: bool| (f64::from(u8::from(yes)), 1.0);
        let leaked = |prompt: &Prompt, verdict: &Verdict| {
            let asked = |concept: &str| prompt.wanted.objects.iter().any(|object| object.concept == concept);
            let shown = |concept: &str| {
                let mut objects = prompt.references.iter().take(used).flat_map(|scene| &scene.objects);
                objects.any(|object| object.concept == concept)
            };
            right(verdict.detections.iter().any(|seen| !asked(&seen.concept) && shown(&seen.concept)))
        };
        Ok(Self {
            way: way.to_owned(),
            strength: given.map(|(strength, _)| strength),
            style: of(&|prompt, verdict| right(verdict.style == prompt.scene.style)),
            objects: of(&|prompt, verdict| Facts::new(&prompt.wanted, verdict).objects),
            leaked: of(&leaked),
        })
    }
}

impl Results {
    /// The results as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut table =
            Table::new(&["how the style is given", "strength", "style right, %", "object there, %", "leaked, %"]);
        for row in &self.rows {
            let strength = row.strength.map_or_else(String::new, |strength| strength.to_string());
            let [style, objects, leaked] = [row.style, row.objects, row.leaked].map(percent);
            table.row([row.way.clone(), strength, style, objects, leaked]);
        }
        format!(
            "{} prompts without a style word, base stage; model `{}`; {}. Judge `{}`. {:.0} s; 95 % intervals in brackets.\n\n{table}",
            self.prompts,
            self.model.display(),
            self.machine,
            self.judge,
            self.seconds,
        )
    }

    /// The results as comma-separated values.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = "way,strength".to_owned();
        for name in ["style", "objects", "leaked"] {
            text.push_str(&format!(",{name},{name}_low,{name}_high"));
        }
        text.push('\n');
        for row in &self.rows {
            let strength = row.strength.map_or_else(String::new, |strength| strength.to_string());
            text.push_str(&format!("{},{strength}", row.way));
            for measure in [row.style, row.objects, row.leaked] {
                match measure {
                    Some(Measure { value, low, high, .. }) => text.push_str(&format!(",{value},{low},{high}")),
                    None => text.push_str(",,,"),
                }
            }
            text.push('\n');
        }
        text
    }

    /// Draws the strength curve into a folder.
    ///
    /// # Errors
    /// As [`Plot::save`].
    pub fn plots(&self, folder: &Path) -> Result<()> {
        let line = |name: &str, of: fn(&Row) -> Option<Measure>| {
            // Strength 0 is no reference.
            let curve = self.rows.iter().filter(|row| row.way == "no reference" || row.way == "reference");
            let point = |row: &Row| of(row).map(|m| (row.strength.unwrap_or(0.0), m.value, Some((m.low, m.high))));
            Line { name: name.to_owned(), points: curve.filter_map(point).collect() }
        };
        let level = |name: &str, of: fn(&Row) -> Option<Measure>| {
            let value = self.rows.iter().find(|row| row.way == "style in words").and_then(of);
            let last = self.rows.iter().filter_map(|row| row.strength).fold(1.0, f64::max);
            let points = value.map(|m| vec![(0.0, m.value, None), (last, m.value, None)]);
            Line { name: name.to_owned(), points: points.unwrap_or_default() }
        };
        Plot {
            title: "Style and content by the strength of a reference".to_owned(),
            x: Axis::linear("strength"),
            y: Axis::linear("share"),
            lines: vec![
                line("style right", |row| row.style),
                line("objects there", |row| row.objects),
                line("leaked from the reference", |row| row.leaked),
                level("style right, named in words", |row| row.style),
                level("objects there, style in words", |row| row.objects),
            ],
        }
        .save(&folder.join("style-strength.png"))
    }

    /// Writes JSON, CSV and plots into `out`; with a document, its table between its markers and the plots into the folder
    /// `images` beside it.
    ///
    /// # Errors
    /// Files that cannot be written; [`Error::Marker`] for a document without the markers.
    pub fn save(&self, out: &Path, page: Option<&Path>) -> Result<()> {
        document::json(&out.join("style.json"), self)?;
        document::write(&out.join("style.csv"), self.csv().as_bytes())?;
        let Some(page) = page else { return self.plots(out) };
        self.plots(&page.with_file_name("images"))?;
        document::replace(page, "style", &self.markdown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_leave_the_style_to_references_of_other_things() {
        let prompts = prompts(12, |_| Ok(true)).unwrap();
        assert_eq!(prompts.iter().filter(|prompt| prompt.scene.objects.len() == 2).count(), 4);
        for prompt in &prompts {
            assert!(!prompt.scene.caption.contains("style"), "{}", prompt.scene.caption);
            assert_eq!(prompt.references.len(), SEVERAL);
            for reference in &prompt.references {
                assert_eq!(reference.style, prompt.scene.style);
                let shared = |concept: &str| prompt.scene.objects.iter().any(|object| object.concept == concept);
                assert!(!reference.objects.iter().any(|object| shared(&object.concept)), "{}", prompt.scene.caption);
            }
        }
    }

    #[test]
    fn style_content_and_what_leaks_are_counted() {
        let prompts = prompts(1, |_| Ok(true)).unwrap();
        let prompt = &prompts[0];
        let seen = |concept: &str| crate::judge::Detection {
            concept: concept.to_owned(),
            confidence: 0.9,
            x: 0.5,
            y: 0.5,
            width: 0.5,
            height: 0.5,
            colour: train_icons::colour::Colour::Red,
        };
        let row = |concepts: &[&str], style, used| {
            let detections = concepts.iter().map(|concept| seen(concept)).collect();
            let background = prompt.scene.background.colour();
            let verdict = Verdict { detections, style, style_confidence: 1.0, background, features: Vec::new() };
            let row = Row::new("reference", Some((1.0, used)), &prompts, &[verdict]).unwrap();
            [row.style, row.objects, row.leaked].map(|measure| measure.map(|measure| measure.value))
        };
        let own = prompt.scene.objects[0].concept.as_str();
        let other = prompt.references[0].objects[0].concept.as_str();
        let wrong = train_icons::icon_set::IconSet::Vintage;
        assert_eq!(row(&[own], prompt.scene.style, 1), [Some(1.0), Some(1.0), Some(0.0)]);
        assert_eq!(row(&[own, other], wrong, 1), [Some(0.0), Some(1.0), Some(1.0)]);
        assert_eq!(row(&[], prompt.scene.style, 1), [Some(1.0), Some(0.0), Some(0.0)]);
        // What the later references show leaks only where they were used.
        let of_first = |concept: &str| prompt.references[0].objects.iter().any(|object| object.concept == concept);
        let mut later = prompt.references[1..].iter().flat_map(|scene| &scene.objects);
        let later = later.find(|object| !of_first(&object.concept)).unwrap().concept.as_str();
        assert_eq!(row(&[own, later], wrong, 1)[2], Some(0.0));
        assert_eq!(row(&[own, later], wrong, SEVERAL)[2], Some(1.0));
        assert!(matches!(Row::new("", None, &prompts, &[]), Err(Error::Rows { expected: 1, found: 0, .. })));
    }
}
