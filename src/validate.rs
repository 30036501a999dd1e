//! The one place where a request is checked.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ediffi_cascade::sizes::{self, StageSize};
use ediffi_core::guidance::Against;
use ediffi_core::unet::EmbeddingShapes;
use ediffi_paint::locate;

use crate::bounds::{MAX_SCORE, MAX_SIDE, MAX_STRENGTH};
use crate::limits::{Drawing, Limits};
use crate::micro::{MicroConditioning, Told};
use crate::preset::{self, SettingsPreset};
use crate::shape::{self, StageShape};
use crate::{Error, Problem, Request, Result, Style};

mod edit;
mod prompts;

pub(crate) use prompts::cleaned_away;

/// Why a model without an encoder of pictures takes no style.
pub(crate) const NO_STYLE_ENCODER: &str = "the model has no encoder for it";

/// What a pipeline can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities<'a> {
    /// All stages in order; at least one.
    pub(crate) stages: &'a [StageShape],
    /// Where the image embedding comes from that they see.
    pub(crate) image: ImageSource<&'a StageShape>,
    /// Settings that a request may ask for by name.
    pub(crate) presets: &'a BTreeMap<String, SettingsPreset>,
    /// The embeddings that any of them takes.
    pub(crate) needs: EmbeddingShapes,
    /// Whether the model has an encoder that reads text for one of them, and one that looks at pictures. `None` where
    /// embeddings are at hand.
    pub(crate) encoders: Option<Encoders>,
    /// The most that a request may ask for.
    pub(crate) limits: &'a Limits,
    /// How it draws.
    pub(crate) drawing: Drawing,
}

/// Where the image embedding comes from that the stages of a model see.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ImageSource<P> {
    /// From the style of a request, if it has one.
    Style,
    /// From the style, or else from the text by the prior.
    Prior(P),
    /// From the style, which a request has to have: the model draws variations of pictures.
    Picture,
}

impl<P> ImageSource<P> {
    pub(crate) fn map<Q>(self, map: impl FnOnce(P) -> Q) -> ImageSource<Q> {
        match self {
            Self::Style => ImageSource::Style,
            Self::Prior(prior) => ImageSource::Prior(map(prior)),
            Self::Picture => ImageSource::Picture,
        }
    }

    pub(crate) fn as_ref(&self) -> ImageSource<&P> {
        match self {
            Self::Style => ImageSource::Style,
            Self::Prior(prior) => ImageSource::Prior(prior),
            Self::Picture => ImageSource::Picture,
        }
    }
}

/// What a pipeline can do, apart from the pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Checks {
    pub(crate) stages: Vec<StageShape>,
    pub(crate) image: ImageSource<StageShape>,
    pub(crate) presets: BTreeMap<String, SettingsPreset>,
    pub(crate) needs: EmbeddingShapes,
    pub(crate) encoders: Encoders,
    pub(crate) limits: Limits,
    pub(crate) drawing: Drawing,
}

impl Checks {
    pub(crate) fn abilities(&self) -> Abilities<'_> {
        let Self { stages, presets, needs, encoders, limits, drawing, .. } = self;
        let image = self.image.as_ref();
        Abilities { stages, image, presets, needs: *needs, encoders: Some(*encoders), limits, drawing: *drawing }
    }
}

/// Which encoders a model has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoders {
    pub(crate) text: bool,
    pub(crate) image: bool,
}

/// Checks a request against a pipeline: its limits first, and where they hold everything else. `others` finds what takes more
/// than a look at the request.
///
/// # Errors
/// [`Error::InvalidRequest`] with every limit that is broken, or with everything else that is wrong.
pub(crate) fn validate(
    request: &Request,
    abilities: Abilities<'_>,
    others: impl FnOnce() -> Result<Vec<Problem>>,
) -> Result<()> {
    let (request, unknown) = match preset::resolved(request, abilities.presets, abilities.stages) {
        Ok(resolved) => (resolved, None),
        Err(problem) => (Cow::Borrowed(request), Some(problem)),
    };
    let request = &*request;
    let asked = shape::running(request, abilities.stages);
    let prior = match abilities.image {
        ImageSource::Prior(prior) => Some(prior),
        _ => None,
    };
    let mut problems = abilities.limits.problems(request, abilities.stages, asked, abilities.drawing);
    problems.extend(prior.and_then(|prior| abilities.limits.steps_problem(request, prior)));
    if !problems.is_empty() {
        return Err(Error::InvalidRequest { problems });
    }
    let mut problems = others()?;
    problems.extend(unknown);
    text(request, abilities, &mut problems);
    if request.images == 0 {
        problems.push(Problem::NoImages);
    }
    let running = running(request, abilities.stages, &mut problems);
    size(request, running, &mut problems);
    settings(request, (abilities.stages, prior), running, &mut problems);
    prompts::mix(request, running, &mut problems);
    prompts::unpainted(request, running, &mut problems);
    prompts::stages(request, abilities.stages, running, &mut problems);
    prompts::near(request, &mut problems);
    negative(request, running, &mut problems);
    style(request, abilities, &mut problems);
    micro(request, abilities, &mut problems);
    edit::check(request, running, &mut problems);
    canvas(request, running, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidRequest { problems }) }
}

fn text(request: &Request, abilities: Abilities<'_>, problems: &mut Vec<Problem>) {
    let empty = request.prompt.trim().is_empty();
    if empty && !request.unconditional && !problems.contains(&Problem::EmptyPrompt) {
        problems.push(Problem::EmptyPrompt);
    }
    if !empty && request.unconditional {
        problems.push(Problem::UnconditionalPrompt(request.prompt.clone()));
    }
    if abilities.encoders.is_some_and(|encoders| !encoders.text) {
        let (negative, further) = (request.negative_prompt.is_some(), request.has_further_texts());
        let given = [(!empty, "prompt"), (negative, "negative prompt"), (further, "further prompts")];
        for (_, which) in given.into_iter().filter(|(given, _)| *given) {
            problems.push(Problem::NoTextEncoder(which));
        }
    }
}

fn running<'a>(request: &Request, all: &'a [StageShape], problems: &mut Vec<Problem>) -> &'a [StageShape] {
    if let Some(last) = &request.last_stage
        && !all.iter().any(|stage| stage.name == *last)
    {
        problems.push(Problem::UnknownStage { setting: "last stage", name: last.clone(), stages: shape::names(all) });
    }
    if let Some(first) = &request.first_stage {
        let place = |name: &String| all.iter().position(|stage| stage.name == *name);
        match (place(first), request.last_stage.as_ref().and_then(place)) {
            (None, _) => {
                problems.push(Problem::UnknownStage {
                    setting: "first stage",
                    name: first.clone(),
                    stages: shape::names(all),
                });
            }
            (Some(begin), Some(end)) if begin > end => {
                let last = request.last_stage.clone().unwrap_or_default();
                problems.push(Problem::StageOrder { first: first.clone(), last });
            }
            _ => {}
        }
    }
    shape::running(request, all)
}

fn size(request: &Request, running: &[StageShape], problems: &mut Vec<Problem>) {
    let sizes: Vec<StageSize> = running.iter().map(|stage| stage.size).collect();
    let last = sizes.last().map_or(1, |stage| stage.size);
    let (width, height) = shape::size(request, running);
    for (side, value) in [("width", width), ("height", height)] {
        let Some(value) = value else { continue };
        if value <= MAX_SIDE && sizes::sides(&sizes, Some(value)).is_some() {
            continue;
        }
        let fits = |stage: &StageSize| value > 0 && value <= MAX_SIDE && i64::from(value) % stage.unit(last) == 0;
        if let Some(stage) = running.iter().find(|stage| !fits(&stage.size)).or(running.first()) {
            problems.push(Problem::Size {
                side,
                value,
                stage: stage.name.clone(),
                stage_side: f64::from(value) * stage.size.size as f64 / last as f64,
                multiple: stage.size.multiple.unsigned_abs(),
                unit: sizes::unit(&sizes).unsigned_abs(),
            });
        }
    }
}

fn settings(
    request: &Request,
    (all, prior): (&[StageShape], Option<&StageShape>),
    running: &[StageShape],
    problems: &mut Vec<Problem>,
) {
    for (name, patch) in &request.stages {
        let Some(stage) = prior.into_iter().chain(all).find(|stage| stage.name == *name) else {
            let stages = prior.into_iter().chain(all).map(|stage| stage.name.clone()).collect();
            problems.push(Problem::UnknownStage { setting: "settings", name: name.clone(), stages });
            continue;
        };
        let drawn = prior.filter(|_| shape::has_prior(request, all));
        if !running.iter().chain(drawn).any(|stage| stage.name == *name) {
            let last = running.last().map_or_else(String::new, |stage| stage.name.clone());
            let first = running.first().map_or_else(String::new, |stage| stage.name.clone());
            problems.push(Problem::StageDoesNotRun { stage: name.clone(), first, last });
        }
        let mut wrong = |setting, reason| problems.push(Problem::Setting { stage: name.clone(), setting, reason });
        let patched = stage.settings.patched(Some(patch));
        let found = patched.problems(stage.timesteps, stage.weaker);
        // What is wrong with the schedule is wrong with all that is counted on it.
        if let Some(error) = stage.owners.owned(&patched).err().filter(|_| found.is_empty()) {
            wrong("experts", error.to_string());
        }
        for (setting, error) in found {
            wrong(setting, error.to_string());
        }
        if let Some(error) = patched.latent_problem().filter(|_| stage.latent) {
            wrong("guidance", error.to_string());
        }
        let multiple = usize::try_from(stage.size.multiple).unwrap_or(usize::MAX);
        if let Some(Err(error)) = patch.tiling.map(|tiling| tiling.check(multiple)) {
            wrong("tiling", error.to_string());
        }
        if patch.tiling.is_some() && prior.is_some_and(|prior| prior.name == *name) {
            wrong("tiling", "it draws embeddings, and no pictures that could be cut".to_owned());
        } else if patch.tiling.is_some_and(|tiling| tiling.overlap > tiling.tile / 2) {
            // The work grows with the square of tile / (tile - overlap).
            wrong("tiling", "the overlap is more than half of a tile".to_owned());
        }
    }
}

/// A negative prompt stands in the place of the unconditional estimate, which a stage with a weaker network does not make.
fn negative(request: &Request, running: &[StageShape], problems: &mut Vec<Problem>) {
    let weaker = |stage: &&StageShape| {
        let guidance = stage.settings.patched(request.stages.get(&stage.name)).guidance;
        stage.weaker && guidance.against == Against::Weaker && guidance.scale != 1.0
    };
    let told = |stage: &&StageShape| {
        let own = request.stage_prompts.get(&stage.name);
        let experts = own.into_iter().flat_map(|own| own.expert_negative_prompts.values());
        let own = own.and_then(|own| own.negative_prompt.as_ref());
        own.or(request.negative_prompt.as_ref()).into_iter().chain(experts).any(|text| !text.trim().is_empty())
    };
    if let Some(stage) = running.iter().filter(told).find(weaker) {
        problems.push(Problem::NegativePromptUnused(stage.name.clone()));
    }
}

/// Whether a request gives no picture to a model that varies one: to enlarge what is there, none is needed.
pub(crate) fn lacks_picture(request: &Request, stages: &[StageShape]) -> bool {
    request.style.is_none() && shape::running(request, stages).iter().any(|stage| !stage.enlarges)
}

fn style(request: &Request, abilities: Abilities<'_>, problems: &mut Vec<Problem>) {
    let Some(style) = &request.style else {
        // Whoever asks for a plan need not have it yet.
        let varies = abilities.encoders.is_some() && matches!(abilities.image, ImageSource::Picture);
        if varies && lacks_picture(request, abilities.stages) {
            problems.push(Problem::NoPicture);
        }
        return;
    };
    references(style, problems);
    if abilities.needs.clip_image.is_none() {
        problems.push(Problem::Style("no network of the model takes one"));
    } else if abilities.encoders.is_some_and(|encoders| !encoders.image) {
        problems.push(Problem::Style(NO_STYLE_ENCODER));
    }
    if !(0.0..=MAX_STRENGTH).contains(&style.strength) {
        problems.push(Problem::StyleStrength(style.strength));
    }
}

fn micro(request: &Request, abilities: Abilities<'_>, problems: &mut Vec<Problem>) {
    let Some(micro) = &request.micro else { return };
    if abilities.needs.micro.is_none() {
        problems.push(Problem::Micro("no network of the model is told"));
    }
    let scores = |micro: &MicroConditioning| [micro.aesthetic_score, micro.negative_aesthetic_score];
    if !scores(micro).iter().all(|score| (-MAX_SCORE..=MAX_SCORE).contains(score)) {
        problems.push(Problem::Micro("an aesthetic score is no number from -100 to 100"));
    } else if abilities.needs.micro == Some(Told::Sizes.count()) && scores(micro) != scores(&Default::default()) {
        problems.push(Problem::Micro("no network of the model is told an aesthetic score, only SDXL's refiner is"));
    }
}

fn references(style: &Style, problems: &mut Vec<Problem>) {
    let references = style.references.len();
    if references == 0 {
        problems.push(Problem::NoStyleReferences);
    }
    let weights: Vec<f64> = style.references.iter().map(|reference| reference.weight).collect();
    let sound = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
    // The sum of finite weights may still overflow.
    let sum: f64 = weights.iter().sum();
    if references > 0 && !(sound && sum > 0.0 && sum.is_finite()) {
        problems.push(Problem::StyleWeights(weights));
    }
}

/// Checks a style alone, to be encoded without a prompt.
///
/// # Errors
/// As [`validate`].
pub(crate) fn validate_style(
    request: &Request,
    abilities: Abilities<'_>,
    others: impl FnOnce() -> Result<Vec<Problem>>,
) -> Result<()> {
    let problems = request.style.as_ref().map(|style| abilities.limits.style_problems(style)).unwrap_or_default();
    if !problems.is_empty() {
        return Err(Error::InvalidRequest { problems });
    }
    let mut problems = others()?;
    style(request, abilities, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidRequest { problems }) }
}

fn canvas(request: &Request, stages: &[StageShape], problems: &mut Vec<Problem>) {
    let (Some(canvas), Some(first)) = (&request.canvas, stages.first()) else { return };
    if !first.needs.has_text() {
        let reason = format!("stage `{}`, the one that is painted, takes no text", first.name);
        problems.push(Problem::Canvas(reason));
    }
    if first.enlarges {
        let reason = format!("stage `{}` is the first to run, and what it enlarges says where things are", first.name);
        problems.push(Problem::Canvas(reason));
    }
    for region in canvas.regions() {
        if let Err(error) = locate(&request.prompt, &region.phrase, region.occurrence) {
            problems.push(Problem::Canvas(error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests;
