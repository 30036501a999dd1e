//! Checks of a picture that is edited.

use ediffi_cascade::Jumps;
use ediffi_core::solver::Solver;

use crate::bounds::LONGEST_REQUEST;
use crate::shape::{self, Sides, StageShape};
use crate::{Edit, EditPicture, Problem, Request, Style};

/// What is wrong with the edit of a request, for the stages that run.
pub(super) fn check(request: &Request, running: &[StageShape], problems: &mut Vec<Problem>) {
    let Some(first) = running.first() else { return };
    let mut wrong = |reason: String| problems.push(Problem::Edit(reason));
    let Some(edit) = &request.edit else {
        if first.enlarges {
            wrong(format!("stage `{}` is the first and enlarges a picture, but there is none", first.name));
        }
        return;
    };
    if let Some(stage) = running.iter().find(|stage| stage.latent) {
        wrong(format!("stage `{}` draws latents, of which no picture can be edited yet", stage.name));
    }
    if let Some(stage) = running.iter().find(|stage| !stage.rgb) {
        wrong(format!("stage `{}` does not draw RGB, as the picture is", stage.name));
    }
    if first.enlarges {
        let set = [("is a strength", edit.strength.is_some()), ("is a mask", edit.mask.is_some())];
        for (name, _) in set.into_iter().chain([("are jumps", edit.jumps.is_some())]).filter(|(_, set)| *set) {
            let reason = "is the first and enlarges the picture as it is";
            wrong(format!("there {name}, but stage `{}` {reason}", first.name));
        }
    }
    if let Some(reason) = shrunk(request, edit, running) {
        wrong(reason);
    }
    if let Some(strength) = edit.strength.filter(|strength| !(0.0..=1.0).contains(strength)) {
        wrong(format!("the strength is {strength:?}: it has to be from 0 to 1"));
    }
    if let Some(reason) = edit.jumps.and_then(|jumps| misplaced(jumps, request, edit, first)) {
        wrong(reason);
    }
    let Edit { picture, mask, .. } = edit;
    if let Some(mask) =
        mask.as_ref().filter(|mask| (mask.width(), mask.height()) != (picture.width(), picture.height()))
    {
        let (width, height) = (mask.width(), mask.height());
        wrong(format!("the mask has {width}x{height} pixels, the picture {}x{}", picture.width(), picture.height()));
    }
    // A picture is kept in those that are made of it, as base64: four letters for three bytes.
    let files = edit.pictures().map(EditPicture::length).sum::<usize>();
    let bytes = files + request.style.as_ref().map_or(0, Style::bytes);
    let most = LONGEST_REQUEST / 4 * 3 * 9 / 10;
    if bytes > most {
        wrong(format!(
            "picture, mask and style have {bytes} bytes together, at most {most} fit into a finished picture"
        ));
    }
    if let Some(reason) = stretched(request, edit, running) {
        wrong(reason);
    }
}

/// Why there can be no jumps, if there cannot.
fn misplaced(jumps: Jumps, request: &Request, edit: &Edit, first: &StageShape) -> Option<String> {
    if jumps.length == 0 {
        return Some("the jumps have no length: it has to be 1 at least".to_owned());
    }
    if jumps.count == 0 {
        return None;
    }
    if edit.mask.is_none() {
        return Some("there are jumps, but no mask: nothing stays that the rest could fit".to_owned());
    }
    let made = first.levels(request).map(|levels| levels.len());
    if let Some(made) = made.filter(|made| jumps.length >= *made) {
        return Some(format!("the jumps go back {} steps, and only {made} are made", jumps.length));
    }
    let settings = first.settings.patched(request.stages.get(&first.name));
    let own = settings.experts.values().filter_map(|expert| expert.solver);
    let churns = |solver: Solver| matches!(solver, Solver::Heun(churn) if churn.s_churn > 0.0);
    own.chain([settings.solver])
        .any(churns)
        .then(|| format!("there are jumps, but a solver of stage `{}` churns, and adds noise of its own", first.name))
}

/// Why a picture that is to be enlarged would lose detail first, if it would.
fn shrunk(request: &Request, edit: &Edit, running: &[StageShape]) -> Option<String> {
    let first = running.first().filter(|first| first.enlarges)?;
    let ((width, height), (w, h)) =
        (shape::first_size(request, running)?, (edit.picture.width(), edit.picture.height()));
    let Sides { unit, own } = Sides::of(running);
    // The least side of the last stage's picture with which the first draws no less than the given one has.
    let least = |side: u32| (f64::from(side) * own / first.size.size as f64 / unit).ceil() * unit;
    (w > width || h > height).then(|| {
        let (name, wide, high) = (&first.name, least(w), least(h));
        let later = if running.len() > 1 { "begin with a later stage, " } else { "" };
        format!("stage `{name}` would draw {width}x{height} pixels, fewer than the picture's {w}x{h}: {later}set a size of {wide}x{high} at least, or scale the picture down")
    })
}

/// Why the picture would be stretched, if it would be.
fn stretched(request: &Request, edit: &Edit, running: &[StageShape]) -> Option<String> {
    let Sides { unit, own } = Sides::of(running);
    let (width, height) = shape::size(request, running);
    let [width, height] = [width, height].map(|side| side.map_or(own, f64::from));
    let (w, h) = (f64::from(edit.picture.width()), f64::from(edit.picture.height()));
    // One side may be off by what every stage needs.
    let off = (width - height * w / h).abs().min((height - width * h / w).abs());
    (off >= unit).then(|| {
        format!("the picture has {w}x{h} pixels and would be stretched to {width}x{height}; without width and height, its proportions stay")
    })
}
