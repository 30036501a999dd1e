//! Checks of the prompts beside the first, and of the noise between two seeds.

use ediffi_cascade::Share;

use crate::shape::{self, StageShape};
use crate::{Mix, Near, Problem, Request};

/// What is wrong with what a request mixes in.
pub(super) fn mix(request: &Request, running: &[StageShape], problems: &mut Vec<Problem>) {
    let mut wrong = |reason: String| problems.push(Problem::Mix(reason));
    if request.mix.iter().any(|mix| mix.prompt.trim().is_empty()) {
        wrong("a prompt is empty".to_owned());
    }
    if let Some(reason) = Share::problem(&request.mix.iter().map(Mix::shared).collect::<Vec<_>>()) {
        wrong(reason);
    }
    if !request.mix.is_empty() && !running.iter().any(|stage| stage.needs.has_text()) {
        wrong("no stage that runs takes text".to_owned());
    }
}

/// The prompts that are nothing once they are cleaned, as `nothing` says. A blank prompt of a stage is meant to be none.
pub(crate) fn cleaned_away(request: &Request, nothing: impl Fn(&str) -> bool) -> Vec<Problem> {
    let lost = |text: &str| !text.trim().is_empty() && nothing(text);
    let mut problems = Vec::new();
    if !request.unconditional && nothing(&request.prompt) {
        problems.push(Problem::EmptyPrompt);
    }
    if request.mix.iter().any(|mix| lost(&mix.prompt)) {
        problems.push(Problem::Mix("of a prompt nothing is left when it is cleaned".to_owned()));
    }
    for (stage, _) in request.stage_prompts.iter().filter(|(_, own)| own.texts().any(|text| lost(text))) {
        let (stage, reason) = (stage.clone(), "nothing is left of it when it is cleaned");
        problems.push(Problem::StagePrompt { stage, reason });
    }
    problems
}

/// Refuses a canvas where others have all of the estimate at every noise level that the first stage begins a step with.
pub(super) fn unpainted(request: &Request, running: &[StageShape], problems: &mut Vec<Problem>) {
    let (Some(_), Some(first)) = (&request.canvas, running.first()) else { return };
    let shares: Vec<Share> = request.mix.iter().map(Mix::shared).collect();
    let levels = first.levels(request).unwrap_or_default();
    if !levels.is_empty() && levels.iter().all(|sigma| Share::left(&shares, *sigma) == 0.0) {
        let stage = &first.name;
        let reason =
            format!("the canvas paints words of the request's own prompt, which has no share in stage `{stage}`");
        problems.push(Problem::Mix(reason));
    }
}

/// What is wrong with the prompts of single stages.
pub(super) fn stages(request: &Request, all: &[StageShape], running: &[StageShape], problems: &mut Vec<Problem>) {
    for (name, own) in &request.stage_prompts {
        let Some(stage) = all.iter().find(|stage| stage.name == *name) else {
            let (setting, name) = ("stage prompts", name.clone());
            problems.push(Problem::UnknownStage { setting, name, stages: shape::names(all) });
            continue;
        };
        let mut wrong = |reason| problems.push(Problem::StagePrompt { stage: name.clone(), reason });
        if !running.iter().any(|running| running.name == *name) {
            wrong("does not run");
        }
        if !stage.needs.has_text() {
            wrong("its networks take no text");
        }
        if own.texts().next().is_none() {
            wrong("neither `prompt` nor `negative_prompt` is set");
        }
        if own.expert_negative_prompts.keys().any(|expert| *expert >= stage.owners.count()) {
            wrong("an expert has a negative prompt that the stage does not have");
        }
        let first = running.first().is_some_and(|first| first.name == *name);
        if first && request.canvas.is_some() && own.prompt.is_some() {
            wrong("the canvas paints words of the request's");
        }
    }
}

/// What is wrong with variations of another seed's picture.
pub(super) fn near(request: &Request, problems: &mut Vec<Problem>) {
    if let Some(Near { strength, .. }) = request.near.filter(|near| !(0.0..=1.0).contains(&near.strength)) {
        problems.push(Problem::Near(strength));
    }
}
