//! The one place where a request is checked.

use ediffi_cascade::SamplerSettings;
use ediffi_core::unet::EmbeddingShapes;
use ediffi_paint::locate;

use crate::request::{MAX_IMAGES, MAX_SIDE};
use crate::shape::StageShape;
use crate::{Error, MAX_STYLE_PIXELS, MAX_STYLE_REFERENCES, Problem, Request, Result, Style};

/// Why a model without an encoder of pictures takes no style.
pub(crate) const NO_STYLE_ENCODER: &str = "the model has no encoder for it";

/// What a pipeline can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities<'a> {
    /// All stages in order; at least one.
    pub(crate) stages: &'a [StageShape],
    /// The embeddings that any of them takes.
    pub(crate) needs: EmbeddingShapes,
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
        let mut wrong = |setting, reason| problems.push(Problem::Setting { stage: name.clone(), setting, reason });
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
    references(style, problems);
    if abilities.needs.clip_image.is_none() {
        problems.push(Problem::Style { reason: "no network of the model takes one" });
    } else if abilities.encoders.is_some_and(|encoders| !encoders.image) {
        problems.push(Problem::Style { reason: NO_STYLE_ENCODER });
    }
    if !(style.strength >= 0.0 && style.strength.is_finite()) {
        problems.push(Problem::StyleStrength { strength: style.strength });
    }
}

fn references(style: &Style, problems: &mut Vec<Problem>) {
    let references = style.references.len();
    if !(1..=MAX_STYLE_REFERENCES).contains(&references) {
        problems.push(Problem::StyleReferences { references });
    }
    let pixels = style.pixels();
    if pixels > MAX_STYLE_PIXELS {
        problems.push(Problem::StylePixels { pixels });
    }
    let weights: Vec<f64> = style.references.iter().map(|reference| reference.weight).collect();
    let sound = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
    // The sum of finite weights may still overflow.
    let sum: f64 = weights.iter().sum();
    if references > 0 && !(sound && sum > 0.0 && sum.is_finite()) {
        problems.push(Problem::StyleWeights { weights });
    }
}

/// Checks a style alone, to be encoded without a prompt.
///
/// # Errors
/// [`Error::InvalidRequest`] with everything that is wrong.
pub(crate) fn validate_style(request: &Request, abilities: Abilities<'_>, mut problems: Vec<Problem>) -> Result<()> {
    style(request, abilities, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidRequest { problems }) }
}

fn canvas(request: &Request, stages: &[StageShape], problems: &mut Vec<Problem>) {
    let (Some(canvas), Some(first)) = (&request.canvas, stages.first()) else { return };
    if !first.needs.has_text() {
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

#[cfg(test)]
mod tests {
    use ediffi_cascade::Tiling;
    use ediffi_core::guidance::{Guidance, Rows};
    use ediffi_core::schedule::Schedule;
    use ediffi_core::solver::Solver;
    use ediffi_core::unet::{ClipText, Tokens};
    use ediffi_paint::{Canvas, Region};

    use super::*;
    use crate::StyleImage;

    const TEXT: EmbeddingShapes = EmbeddingShapes {
        t5: Some(Tokens { tokens: 4, width: 8 }),
        clip_text: Some(ClipText { tokens: 4, width: 8, pooled: 8 }),
        clip_image: Some(8),
    };

    fn stage(name: &str, size: u64, multiple: u64, needs: EmbeddingShapes) -> StageShape {
        let schedule = Schedule::edm();
        let guidance = Guidance::new(5.0);
        let settings = SamplerSettings { solver: Solver::Euler, steps: 5, schedule, guidance, rows: Rows::default() };
        StageShape { name: name.to_owned(), size, multiple, needs, settings }
    }

    /// The paper's three stages; the base takes multiples of 8.
    fn cascade(needs: EmbeddingShapes) -> Vec<StageShape> {
        vec![stage("base", 64, 8, needs), stage("sr-256", 256, 8, needs), stage("sr-1024", 1024, 8, needs)]
    }

    fn problems_of(request: &Request, needs: EmbeddingShapes, encoders: Option<Encoders>) -> Vec<Problem> {
        let stages = cascade(needs);
        match validate(request, Abilities { stages: &stages, needs, encoders }, Vec::new()) {
            Ok(()) => Vec::new(),
            Err(Error::InvalidRequest { problems }) => problems,
            Err(other) => panic!("{other}"),
        }
    }

    fn problems(request: &Request) -> Vec<Problem> {
        problems_of(request, TEXT, Some(Encoders { text: true, image: true }))
    }

    fn a() -> Request {
        Request::new("a cat")
    }

    fn style() -> StyleImage {
        StyleImage::new(image::RgbImage::new(2, 2)).unwrap()
    }

    #[test]
    fn a_sound_request_has_no_problem() {
        for request in [
            a(),
            Request::unconditional().style(style()),
            a().size(1280, 640).images(MAX_IMAGES),
            a().last_stage("sr-256").size(256, 288).steps("base", 1).guidance("sr-256", 0.0),
            a().schedule("base", Schedule::Custom(vec![80.0, 1.0, 0.0])),
            a().tiling("sr-1024", Tiling { tile: 256, overlap: 64 }),
            a().canvas(Canvas::new([Region::rectangle("cat", (4, 4), 0..2, 0..2).unwrap()]).unwrap()),
        ] {
            assert_eq!(problems(&request), [], "{request:?}");
        }
    }

    #[test]
    fn prompts() {
        assert_eq!(problems(&Request::new(" \n")), [Problem::EmptyPrompt]);
        let both = Request { prompt: "a cat".to_owned(), ..Request::unconditional() };
        assert!(matches!(problems(&both)[..], [Problem::UnconditionalPrompt { .. }]));
        let deaf = Some(Encoders { text: false, image: true });
        let found = problems_of(&a().negative_prompt("blur"), TEXT, deaf);
        assert_eq!(
            found,
            [Problem::NoTextEncoder { which: "prompt" }, Problem::NoTextEncoder { which: "negative prompt" }]
        );
        assert_eq!(problems_of(&Request::unconditional(), TEXT, deaf), []);
        assert_eq!(problems_of(&a(), TEXT, None), [], "embeddings need no encoder");
    }

    #[test]
    fn numbers_of_images() {
        for images in [0, MAX_IMAGES + 1] {
            assert_eq!(problems(&a().images(images)), [Problem::Images { images }]);
        }
    }

    #[test]
    fn sizes_name_the_stage_and_what_is_possible() {
        // 1024 -> 64 is a factor of 16, and the base takes multiples of 8: multiples of 128.
        let found = problems(&a().size(1000, 1024));
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "width 1000: stage `base` would draw 62.5 pixels and takes multiples of 8; the width has to be a multiple of 128, \
             from 128 to 16384: the nearest are 896 and 1024"
        );
        for (width, height, count) in [(0, 1024, 1), (1024, 129, 1), (64, 32, 2), (MAX_SIDE + 128, 128, 1)] {
            assert_eq!(problems(&a().size(width, height)).len(), count, "{width}x{height}");
        }
        // Without the last stage the factor is 4.
        assert_eq!(problems(&a().size(96, 32).last_stage("sr-256")), []);
        assert_eq!(problems(&a().size(8, 16).last_stage("base")), []);
    }

    #[test]
    fn sizes_are_carried_to_every_stage() {
        let stages = cascade(TEXT);
        let sizes = |request: &Request| {
            let running = super::stages(request, &stages);
            running.iter().map(|stage| stage_size(request, running, stage)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&a()), [(64, 64), (256, 256), (1024, 1024)]);
        assert_eq!(sizes(&a().size(1280, 640)), [(80, 40), (320, 160), (1280, 640)]);
        assert_eq!(sizes(&a().size(96, 32).last_stage("sr-256")), [(24, 8), (96, 32)]);
    }

    #[test]
    fn stages_that_do_not_exist_or_run() {
        let found = problems(&a().last_stage("sr256").steps("bse", 3));
        assert_eq!(found[0].to_string(), "last stage: there is no stage `sr256`, only base, sr-256, sr-1024");
        assert_eq!(found[1].to_string(), "settings: there is no stage `bse`, only base, sr-256, sr-1024");
        let found = problems(&a().last_stage("base").steps("sr-1024", 3));
        assert!(
            matches!(&found[..], [Problem::StageDoesNotRun { stage, last }] if stage == "sr-1024" && last == "base")
        );
    }

    #[test]
    fn settings_name_stage_and_setting() {
        let cases = [
            (a().steps("base", 0), "steps"),
            (a().steps("base", 1_000_000), "schedule"),
            (a().schedule("base", Schedule::Custom(vec![1.0, 2.0])), "schedule"),
            (a().schedule("base", Schedule::Custom(vec![2.0, 1.0])).steps("base", 3), "schedule"),
            (a().solver("base", Solver::TabDeis { order: 9 }), "solver"),
            (a().guidance("base", f64::NAN), "guidance"),
            (a().guidance_rule("base", Guidance::new(-1.0)), "guidance"),
            (a().tiling("base", Tiling { tile: 60, overlap: 8 }), "tiling"),
        ];
        for (request, expected) in cases {
            let found = problems(&request);
            assert!(
                matches!(&found[..], [Problem::Setting { stage, setting, .. }] if stage == "base" && *setting == expected),
                "{found:?}"
            );
        }
    }

    #[test]
    fn settings_replace_those_of_the_model() {
        let stage = stage("base", 64, 8, TEXT);
        let request =
            a().guidance_rule("base", Guidance { interval: None, ..Guidance::new(2.0) }).guidance("base", 3.0);
        let request =
            request.schedule("base", Schedule::Custom(vec![4.0, 2.0, 1.0, 0.0])).solver("base", Solver::DpmPp2M);
        let (settings, tiling) = stage.with(request.stages.get("base"));
        assert_eq!((settings.steps, settings.solver, settings.guidance.scale), (3, Solver::DpmPp2M, 3.0));
        assert!(tiling.is_none());
        assert_eq!(stage.with(None).0, stage.settings);
    }

    #[test]
    fn styles_need_a_network_and_an_encoder() {
        let request = a().style(style());
        assert_eq!(problems(&request), []);
        let deaf = EmbeddingShapes { clip_image: None, ..TEXT };
        assert!(matches!(problems_of(&request, deaf, None)[..], [Problem::Style { .. }]));
        let blind = Some(Encoders { text: true, image: false });
        assert!(matches!(problems_of(&request, TEXT, blind)[..], [Problem::Style { .. }]));
        for strength in [-0.1, f64::NAN, f64::INFINITY] {
            let found = problems(&a().style_with_strength(style(), strength));
            assert!(matches!(found[..], [Problem::StyleStrength { .. }]));
        }
    }

    #[test]
    fn styles_have_references_with_weights() {
        let of = |weights: &[f64]| a().style(Style::mean(weights.iter().map(|&weight| (style(), weight))));
        assert_eq!(problems(&of(&[0.0, 2.5])), []);
        assert_eq!(problems(&of(&[])), [Problem::StyleReferences { references: 0 }]);
        assert_eq!(problems(&of(&[1.0; MAX_STYLE_REFERENCES])), []);
        let many = MAX_STYLE_REFERENCES + 1;
        assert_eq!(problems(&of(&vec![1.0; many])), [Problem::StyleReferences { references: many }]);
        let tall = || StyleImage::new(image::RgbImage::new(448, 14_000)).unwrap();
        assert_eq!(problems(&a().style(tall())), []);
        let found = problems(&a().style(Style::from(tall()).and(tall(), 1.0)));
        assert_eq!(found, [Problem::StylePixels { pixels: 2 * 448 * 14_000 }]);
        for weights in [[0.0, 0.0], [1.0, -0.5], [1.0, f64::NAN], [f64::INFINITY, 1.0], [f64::MAX, f64::MAX]] {
            assert!(matches!(problems(&of(&weights))[..], [Problem::StyleWeights { .. }]), "{weights:?}");
        }
    }

    #[test]
    fn a_canvas_needs_words_of_the_prompt_and_a_stage_that_listens() {
        let canvas = || Canvas::new([Region::rectangle("dog", (4, 4), 0..2, 0..2).unwrap()]).unwrap();
        let found = problems(&a().canvas(canvas()));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "canvas: phrase `dog` is not in the prompt, whose words are: a, cat");
        let request = Request::new("a dog").canvas(canvas());
        assert_eq!(problems(&request), []);
        assert!(matches!(problems_of(&request, EmbeddingShapes::default(), None)[..], [Problem::Canvas { .. }]));
        let tiled = request.tiling("base", Tiling { tile: 64, overlap: 16 });
        assert!(matches!(problems(&tiled)[..], [Problem::Canvas { .. }]));
    }

    #[test]
    fn everything_wrong_is_in_one_error() {
        let request = Request::new("").images(0).size(1, 1024).steps("base", 0).last_stage("x");
        let stages = cascade(TEXT);
        let abilities = Abilities { stages: &stages, needs: TEXT, encoders: None };
        let earlier = Problem::TooLong { which: "prompt", encoder: "T5", lost: "end".to_owned() };
        let error = validate(&request, abilities, vec![earlier]).unwrap_err();
        let Error::InvalidRequest { problems } = &error else { panic!("{error}") };
        assert_eq!(problems.len(), 6);
        let text = error.to_string();
        for part in ["too long for T5", "the prompt is empty", "0 images", "`x`", "width 1", "0 steps"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
