use ediffi_cascade::{SamplerSettings, Tiling};
use ediffi_core::guidance::Guidance;
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::Solver;
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::unet::{ClipText, Tokens};
use ediffi_paint::{Canvas, Region};

use super::*;
use crate::StyleImage;

const TEXT: EmbeddingShapes = EmbeddingShapes {
    t5: Some(Tokens { tokens: 4, width: 8 }),
    clip_text: Some(ClipText { tokens: 4, width: 8, pooled: 8 }),
    clip_image: Some(8),
};

fn stage(name: &str, size: i64, needs: EmbeddingShapes) -> StageShape {
    let (schedule, guidance) = (Schedule::edm(), Guidance::new(5.0));
    let settings = SamplerSettings { solver: Solver::Euler, steps: 5, schedule, guidance };
    StageShape {
        name: name.to_owned(),
        size: StageSize { size, multiple: 8 },
        needs,
        settings,
        timesteps: NoiseTable::SquaredCosine,
        weaker: false,
    }
}

/// The paper's three stages; the base takes multiples of 8.
fn cascade(needs: EmbeddingShapes) -> Vec<StageShape> {
    vec![stage("base", 64, needs), stage("sr-256", 256, needs), stage("sr-1024", 1024, needs)]
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
    assert_eq!(found, [Problem::NoTextEncoder("prompt"), Problem::NoTextEncoder("negative prompt")]);
    assert_eq!(problems_of(&Request::unconditional(), TEXT, deaf), []);
    assert_eq!(problems_of(&a(), TEXT, None), [], "embeddings need no encoder");
}

#[test]
fn numbers_of_images() {
    for images in [0, MAX_IMAGES + 1] {
        assert_eq!(problems(&a().images(images)), [Problem::Images(images)]);
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
fn stages_that_do_not_exist_or_run() {
    let found = problems(&a().last_stage("sr256").steps("bse", 3));
    assert_eq!(found[0].to_string(), "last stage: there is no stage `sr256`, only base, sr-256, sr-1024");
    assert_eq!(found[1].to_string(), "settings: there is no stage `bse`, only base, sr-256, sr-1024");
    let found = problems(&a().last_stage("base").steps("sr-1024", 3));
    assert!(matches!(&found[..], [Problem::StageDoesNotRun { stage, last }] if stage == "sr-1024" && last == "base"));
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
    assert_eq!(problems(&of(&[])), [Problem::StyleReferences(0)]);
    assert_eq!(problems(&of(&[1.0; MAX_STYLE_REFERENCES])), []);
    let many = MAX_STYLE_REFERENCES + 1;
    assert_eq!(problems(&of(&vec![1.0; many])), [Problem::StyleReferences(many)]);
    let tall = || StyleImage::new(image::RgbImage::new(448, 14_000)).unwrap();
    assert_eq!(problems(&a().style(tall())), []);
    let found = problems(&a().style(Style::from(tall()).and(tall(), 1.0)));
    assert_eq!(found, [Problem::StylePixels(2 * 448 * 14_000)]);
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
    assert_eq!(problems(&request.tiling("base", Tiling { tile: 64, overlap: 16 })), []);
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
