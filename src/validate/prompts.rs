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
