//! The one place where a request is checked.

use ediffi_cascade::SamplerSettings;
use ediffi_paint::locate;

use crate::request::{MAX_IMAGES, MAX_SIDE};
use crate::shape::{Needs, StageShape};
use crate::{Error, Problem, Request, Result};

/// What a pipeline can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities<'a> {
    /// All stages in order; at least one.
    pub(crate) stages: &'a [StageShape],
    /// The embeddings that any of them takes.
    pub(crate) needs: Needs,
    /// Whether the model has an encoder that reads text for one of them, and one that looks at pictures. `None` where
    /// embeddings are at hand.
    pub(crate) encoders: Option<Encoders>,
}

/// Which encoders a model has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoders {
    pub(crate) text: bool,
    pub(crate) image: bool,
}

/// Checks a request against a pipeline; `problems` are those found already.
///
/// # Errors
/// [`Error::InvalidRequest`] with everything that is wrong.
pub(crate) fn validate(request: &Request, abilities: Abilities<'_>, mut problems: Vec<Problem>) -> Result<()> {
    text(request, abilities, &mut problems);
    if !(1..=MAX_IMAGES).contains(&request.images) {
        problems.push(Problem::Images { images: request.images });
    }
    let running = running(request, abilities.stages, &mut problems);
    size(request, running, &mut problems);
    settings(request, abilities.stages, running, &mut problems);
    style(request, abilities, &mut problems);
    canvas(request, abilities.stages, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidRequest { problems }) }
}

/// The stages up to the last one that the request names; all, if it names none or one that does not exist.
pub(crate) fn stages<'a>(request: &Request, stages: &'a [StageShape]) -> &'a [StageShape] {
    let last = request.last_stage.as_ref().and_then(|last| stages.iter().position(|stage| stage.name == *last));
    last.and_then(|last| stages.get(..=last)).unwrap_or(stages)
}

/// Width and height of the pictures of `stage`, one of the stages that run.
pub(crate) fn stage_size(request: &Request, running: &[StageShape], stage: &StageShape) -> (u64, u64) {
    let whole = running.last().map_or(1, |last| last.size);
    let side = |wish: Option<u32>| wish.map_or(stage.size, |wish| u64::from(wish) * stage.size / whole);
    (side(request.width), side(request.height))
}

fn text(request: &Request, abilities: Abilities<'_>, problems: &mut Vec<Problem>) {
    let empty = request.prompt.trim().is_empty();
    if empty && !request.unconditional {
        problems.push(Problem::EmptyPrompt);
    }
    if !empty && request.unconditional {
        problems.push(Problem::UnconditionalPrompt { prompt: request.prompt.clone() });
    }
    if abilities.encoders.is_some_and(|encoders| !encoders.text) {
        let negative = request.negative_prompt.is_some();
        for which in [(!empty).then_some("prompt"), negative.then_some("negative prompt")].into_iter().flatten() {
            problems.push(Problem::NoTextEncoder { which });
        }
    }
}

fn names(stages: &[StageShape]) -> Vec<String> {
    stages.iter().map(|stage| stage.name.clone()).collect()
}

fn running<'a>(request: &Request, all: &'a [StageShape], problems: &mut Vec<Problem>) -> &'a [StageShape] {
    if let Some(last) = &request.last_stage
        && !all.iter().any(|stage| stage.name == *last)
    {
        problems.push(Problem::UnknownStage { setting: "last stage", name: last.clone(), stages: names(all) });
    }
    stages(request, all)
}

fn size(request: &Request, running: &[StageShape], problems: &mut Vec<Problem>) {
    let whole = running.last().map_or(1, |last| last.size);
    // A side v of the picture is v·size/whole in a stage; that is a multiple of `multiple` exactly where v is one of this.
    let unit_of = |stage: &StageShape| {
        let needed = whole.saturating_mul(stage.multiple);
        needed / gcd(needed, stage.size).max(1)
    };
    let unit = running.iter().map(unit_of).fold(1, |a, b| (a / gcd(a, b).max(1)).saturating_mul(b));
    for (side, value) in [("width", request.width), ("height", request.height)] {
        let Some(value) = value else { continue };
        let fits = |unit: u64| value > 0 && value <= MAX_SIDE && u64::from(value).is_multiple_of(unit);
        if fits(unit) {
            continue;
        }
        if let Some(stage) = running.iter().find(|stage| !fits(unit_of(stage))).or(running.first()) {
            problems.push(Problem::Size {
                side,
                value,
                stage: stage.name.clone(),
                stage_side: f64::from(value) * stage.size as f64 / whole as f64,
                multiple: stage.multiple,
                unit,
            });
        }
    }
}

fn settings(request: &Request, all: &[StageShape], running: &[StageShape], problems: &mut Vec<Problem>) {
    for (name, wishes) in &request.stages {
        let Some(stage) = all.iter().find(|stage| stage.name == *name) else {
            problems.push(Problem::UnknownStage { setting: "settings", name: name.clone(), stages: names(all) });
            continue;
        };
        if !running.iter().any(|stage| stage.name == *name) {
            let last = running.last().map_or_else(String::new, |stage| stage.name.clone());
            problems.push(Problem::StageDoesNotRun { stage: name.clone(), last });
        }
        let (settings, tiling) = stage.with(Some(wishes));
        let mut wrong =
            |setting, reason| problems.push(Problem::Setting { stage: name.clone(), setting, reason });
        check_sampler(&settings, &mut wrong);
        if let Some(tiling) = tiling
            && let Err(error) = tiling.check(usize::try_from(stage.multiple).unwrap_or(usize::MAX))
        {
            wrong("tiling", error.to_string());
        }
    }
}

fn check_sampler(settings: &SamplerSettings, wrong: &mut impl FnMut(&'static str, String)) {
    if settings.steps == 0 {
        wrong("steps", "0 steps make no picture".to_owned());
    } else if let Err(error) = settings.sigmas() {
        wrong("schedule", error.to_string());
    }
    if let Err(error) = settings.solver.validate() {
        wrong("solver", error.to_string());
    }
    if let Err(error) = settings.guidance.validate() {
        wrong("guidance", error.to_string());
    }
}

fn style(request: &Request, abilities: Abilities<'_>, problems: &mut Vec<Problem>) {
    let Some(style) = &request.style else { return };
    if abilities.needs.clip_image.is_none() {
        problems.push(Problem::Style { reason: "no network of the model takes one" });
    } else if abilities.encoders.is_some_and(|encoders| !encoders.image) {
        problems.push(Problem::Style { reason: "the model has no encoder for it" });
    }
    if !(style.strength >= 0.0 && style.strength.is_finite()) {
        problems.push(Problem::StyleStrength { strength: style.strength });
    }
}

fn canvas(request: &Request, stages: &[StageShape], problems: &mut Vec<Problem>) {
    let (Some(canvas), Some(first)) = (&request.canvas, stages.first()) else { return };
    if !first.needs.text() {
        let reason = format!("stage `{}`, the one that is painted, takes no text", first.name);
        problems.push(Problem::Canvas { reason });
    }
    if request.stages.get(&first.name).is_some_and(|settings| settings.tiling.is_some()) {
        let reason = format!("stage `{}`, the one that is painted, cannot be cut into tiles", first.name);
        problems.push(Problem::Canvas { reason });
    }
    for region in canvas.regions() {
        if let Err(error) = locate(&request.prompt, &region.phrase, region.occurrence) {
            problems.push(Problem::Canvas { reason: error.to_string() });
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
