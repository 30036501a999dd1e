//! `evaluate style`: whether a reference picture gives its style and leaves the content to the prompt.

use std::path::PathBuf;
use std::time::Instant;

use ediffi::{Conditioning, Style as Reference, StyleImage};
use serde::Serialize;
use tch::Tensor;
use train_icons::config::{Mix, SamplerConfig};
use train_icons::pack::Pack;
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;
use train_icons::scene::Scene;
use train_icons::split::Split;

use crate::bootstrap::{Measure, share};
use crate::document::{Table, csv, percent};
use crate::error::{Error, Result};
use crate::judge::network::SIDE;
use crate::judge::{Judge, Verdict};
use crate::machine;
use crate::measured::Measured;
use crate::model::{Model, Wish};
use crate::pairs::paired;
use crate::plot::{Axis, Line, Plot};
use crate::prompts::next;
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// How the style was given.
    way: String,
    /// Strength of the reference, where there is one.
    strength: Option<f64>,
    /// Share of the pictures with the right style.
    style: Option<Measure>,
    /// Share of the objects that are there.
    objects: Option<Measure>,
    /// Share of the pictures that show something of the references they were given which the prompt does not ask for. Without
    /// a reference, that of the first one which they might have been given: how often this happens by chance.
    leaked: Option<Measure>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    model: PathBuf,
    prompts: usize,
    machine: String,
    judge: String,
    rows: Vec<Row>,
    seconds: f64,
}

/// A prompt with the style in words.
fn named(scene: &Scene) -> String {
    format!("{}, {} style", scene.caption, scene.style.word())
}

/// `count` prompts that `reads` accepts with the style in words; the same count always gives the same.
fn prompts(count: usize, reads: impl Fn(&str) -> Result<bool>) -> Result<Vec<Prompt>> {
    let sampler = |mix| {
        let config = SamplerConfig { mix, omit_style: 1.0, paraphrase: 0.0, ..SamplerConfig::small() };
        Sampler::new(config)
    };
    let one = sampler(Mix { one: 1.0, ..Mix::default() })?;
    let two = sampler(Mix { two: 1.0, ..Mix::default() })?;
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
        let mut other = 0;
        while references.len() < SEVERAL {
            references.push(next("a reference", &mut other, |other| {
                let candidate = one.scene(SEED + 1 + index, other, Split::Train)?;
                Ok((candidate.style == scene.style && !shown(&candidate)).then_some(candidate))
            })?);
        }
        Ok(Some(Prompt { wanted: Wanted::of(&scene), scene, references, seed: PICTURES + index }))
    };
    let mut from = 0;
    (0..count).map(|_| next("a prompt that the model reads", &mut from, prompt)).collect()
}

/// Evaluates a model.
pub fn evaluate(judge: &Judge, pack: &Pack, settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let model = Model::open(&settings.model, settings.threads)?;
    let base = model.judged_base()?.clone();
    let renderer = Renderer::new(pack)?;
    let prompts = prompts(settings.prompts as usize, |caption| model.reads(caption))?;
    let plain = model.wishes(prompts.iter().map(|prompt| (&prompt.scene, prompt.seed)), None)?;
    let words = prompts.iter().map(|p| model.wish(&named(&p.scene), p.seed, None)).collect::<Result<Vec<_>>>()?;
    let single = prompts.iter().map(|p| embedding(&model, &renderer, p, 1)).collect::<Result<Vec<_>>>()?;
    let several = prompts.iter().map(|p| embedding(&model, &renderer, p, SEVERAL)).collect::<Result<Vec<_>>>()?;

    let row = |way: &str, given: Option<(f64, usize)>, wishes: &[Wish]| -> Result<Row> {
        let verdicts = judge.look_at(&model.draw(wishes, 1, &base.settings, None)?)?;
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
        judge: judge.fingerprint.clone(),
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
    let embedding = model.pipeline.encode_style(Reference::mean(references))?;
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

impl Measured for Results {
    fn name(&self) -> String {
        "style".to_owned()
    }

    fn markdown(&self) -> String {
        let mut table =
            Table::new(["how the style is given", "strength", "style right, %", "object there, %", "leaked, %"]);
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

    fn csv(&self) -> Option<String> {
        let rows = self.rows.iter().map(|row| {
            let strength = row.strength.map_or_else(String::new, |strength| strength.to_string());
            (format!("{},{strength}", row.way), [row.style, row.objects, row.leaked])
        });
        Some(csv("way,strength", ["style", "objects", "leaked"], rows))
    }

    fn plots(&self) -> Vec<(String, Plot)> {
        let line = |name: &str, of: fn(&Row) -> Option<Measure>| {
            // Strength 0 is no reference.
            let curve = self.rows.iter().filter(|row| row.way == "no reference" || row.way == "reference");
            Line::measured(name, curve.map(|row| (row.strength.unwrap_or(0.0), of(row))))
        };
        let last = self.rows.iter().filter_map(|row| row.strength).fold(1.0, f64::max);
        let level = |name: &str, of: fn(&Row) -> Option<Measure>| {
            Line::level(name, self.rows.iter().find(|row| row.way == "style in words").and_then(of), [0.0, last])
        };
        let plot = Plot {
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
        };
        vec![("style-strength".to_owned(), plot)]
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
