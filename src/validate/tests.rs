use ediffi_cascade::{Owners, SamplerSettings, SettingsPatch, Tiling};
use ediffi_core::guidance::{Guidance, Thresholding};
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::{Churn, FreshNoise, Solver};
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::unet::{ClipText, Tokens};
use ediffi_paint::{Canvas, Region};

use super::*;
use crate::limits::Drawing;
use crate::{Limits, StyleImage};

mod presets;

const DRAWING: Drawing = Drawing { batch: 4, turns: false, keep_floats: false, scale: 1 };

const TEXT: EmbeddingShapes = EmbeddingShapes {
    t5: Some(Tokens { tokens: 4, width: 8 }),
    clip_text: Some(ClipText { tokens: 4, width: 8, pooled: Some(8) }),
    clip_image: Some(8),
    micro: None,
};

fn stage(name: &str, size: i64, needs: EmbeddingShapes) -> StageShape {
    let (schedule, guidance) = (Schedule::edm(), Guidance::new(5.0));
    let settings = SamplerSettings::new(Solver::Euler, 5, schedule, guidance);
    StageShape {
        name: name.to_owned(),
        size: StageSize { size, multiple: 8 },
        needs,
        settings,
        timesteps: NoiseTable::SquaredCosine,
        owners: Owners::single(NoiseTable::SquaredCosine),
        weaker: false,
        enlarges: name != "base",
        rgb: true,
        latent: false,
    }
}

/// The paper's three stages; the base takes multiples of 8.
fn cascade(needs: EmbeddingShapes) -> Vec<StageShape> {
    vec![stage("base", 64, needs), stage("sr-256", 256, needs), stage("sr-1024", 1024, needs)]
}

/// `fast` has few steps in all stages.
fn presets() -> BTreeMap<String, SettingsPreset> {
    let mut fast = SettingsPreset::new("a first look");
    for (stage, steps) in [("base", 3), ("sr-256", 2), ("sr-1024", 1)] {
        fast.stages.insert(stage.to_owned(), Request::new("").steps("base", steps).stages["base"].clone());
    }
    BTreeMap::from([("fast".to_owned(), fast)])
}

fn problems_of(request: &Request, needs: EmbeddingShapes, encoders: Option<Encoders>) -> Vec<Problem> {
    let (stages, presets) = (&cascade(needs), &presets());
    let limits = &Limits::default();
    let abilities = Abilities { stages, image: ImageSource::Style, presets, needs, encoders, limits, drawing: DRAWING };
    match validate(request, abilities, || Ok(Vec::new())) {
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
fn a_negative_prompt_beside_a_weaker_network_is_refused() {
    let problems = |request: &Request| {
        let mut stages = cascade(TEXT);
        stages[1].weaker = true;
        stages[1].settings.guidance.against = Against::Weaker;
        let encoders = Some(Encoders { text: true, image: true });
        let limits = &Limits::default();
        let abilities = Abilities {
            stages: &stages,
            image: ImageSource::Style,
            presets: &BTreeMap::new(),
            needs: TEXT,
            encoders,
            limits,
            drawing: DRAWING,
        };
        match validate(request, abilities, || Ok(Vec::new())) {
            Err(Error::InvalidRequest { problems }) => problems,
            other => other.map(|()| Vec::new()).unwrap(),
        }
    };
    let negative = a().negative_prompt("a dog");
    assert_eq!(problems(&a()), []);
    let found = problems(&negative);
    assert_eq!(found, [Problem::NegativePromptUnused("sr-256".to_owned())]);
    assert!(found[0].to_string().contains("stage `sr-256`"), "{}", found[0]);
    // Where the stage does not run, or is not guided, or is guided by the prompt, there is nothing to refuse.
    assert_eq!(problems(&negative.clone().last_stage("base")), []);
    assert_eq!(problems(&negative.clone().guidance("sr-256", 1.0)), []);
    let patch =
        SettingsPatch::from(SamplerSettings { guidance: Guidance::new(5.0), ..cascade(TEXT)[1].settings.clone() });
    let mut by_prompt = negative;
    by_prompt.stages.insert("sr-256".to_owned(), patch);
    assert_eq!(problems(&by_prompt), []);
}

#[test]
fn a_sound_request_has_no_problem() {
    for request in [
        a(),
        Request::unconditional().style(style()),
        a().size(1280, 640).images(Limits::default().images),
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
    assert_eq!(problems(&a().images(0)), [Problem::NoImages]);
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
    for (width, height, count) in
        [(0, 1024, 1), (1024, 129, 1), (64, 32, 2), (MAX_SIDE + 128, 128, 1), (u32::MAX, 0, 2)]
    {
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
    assert!(
        matches!(&found[..], [Problem::StageDoesNotRun { stage, last, .. }] if stage == "sr-1024" && last == "base")
    );
}

#[test]
fn settings_name_stage_and_setting() {
    let cases = [
        (a().steps("base", 0), "steps"),
        (a().schedule("base", Schedule::Custom(vec![1.0, 2.0])), "schedule"),
        (a().schedule("base", Schedule::Custom(vec![2.0, 1.0])).steps("base", 3), "schedule"),
        (a().solver("base", Solver::TabDeis { order: 9 }), "solver"),
        (a().guidance("base", f64::NAN), "guidance"),
        (a().guidance("base", 1e308), "guidance"),
        (a().guidance_rule("base", capped(1e308)), "guidance"),
        (a().solver("base", Solver::Heun(Churn { s_noise: 1e308, ..Churn::NONE })), "solver"),
        (a().solver("base", Solver::Heun(Churn { s_churn: 1e308, ..Churn::NONE })), "solver"),
        (a().solver("base", Solver::DpmPp2MSde(FreshNoise { eta: 1e308, s_noise: 1.0 })), "solver"),
        (a().schedule("base", Schedule::Karras { min: 0.002, max: 1e308, rho: 7.0 }), "schedule"),
        (a().schedule("base", Schedule::Deis { min: 1e-308, max: 80.0, order: 7.0 }), "schedule"),
        (a().schedule("base", Schedule::Exponential { min: 0.002, max: 1e308 }), "schedule"),
        (a().schedule("base", Schedule::Custom(vec![1e308, 1.0])).steps("base", 1), "schedule"),
        (a().guidance_rule("base", Guidance::new(-1.0)), "guidance"),
        (a().tiling("base", Tiling { tile: 60, overlap: 8 }), "tiling"),
        (a().tiling("base", Tiling { tile: 64, overlap: 40 }), "tiling"),
    ];
    for (request, expected) in cases {
        let found = problems(&request);
        assert!(
            matches!(&found[..], [Problem::Setting { stage, setting, .. }] if stage == "base" && *setting == expected),
            "{found:?}"
        );
        assert!(found[0].to_string().len() < 300, "{}", found[0]);
    }
}

fn capped(cap: f64) -> Guidance {
    let thresholding = Thresholding::Dynamic { percentile: 0.9, cap: Some(cap) };
    Guidance { thresholding, ..Guidance::new(2.0) }
}

#[test]
fn styles_need_a_network_and_an_encoder() {
    let request = a().style(style());
    assert_eq!(problems(&request), []);
    let deaf = EmbeddingShapes { clip_image: None, ..TEXT };
    assert!(matches!(problems_of(&request, deaf, None)[..], [Problem::Style { .. }]));
    let blind = Some(Encoders { text: true, image: false });
    assert!(matches!(problems_of(&request, TEXT, blind)[..], [Problem::Style { .. }]));
    for strength in [-0.1, f64::NAN, f64::INFINITY, 1e308] {
        let found = problems(&a().style_with_strength(style(), strength));
        assert!(matches!(found[..], [Problem::StyleStrength { .. }]));
    }
}

#[test]
fn styles_have_references_with_weights() {
    let of = |weights: &[f64]| a().style(Style::mean(weights.iter().map(|&weight| (style(), weight))));
    assert_eq!(problems(&of(&[0.0, 2.5])), []);
    assert_eq!(problems(&of(&[])), [Problem::NoStyleReferences]);
    assert_eq!(problems(&of(&[1.0; 32])), []);
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
    let limits = &Limits::default();
    let abilities = Abilities {
        stages: &stages,
        image: ImageSource::Style,
        presets: &BTreeMap::new(),
        needs: TEXT,
        encoders: None,
        limits,
        drawing: DRAWING,
    };
    let earlier = Problem::TooLong { which: "prompt", encoder: "T5", lost: "end".to_owned() };
    let error = validate(&request, abilities, || Ok(vec![earlier])).unwrap_err();
    let Error::InvalidRequest { problems } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 6);
    let text = error.to_string();
    for part in ["too long for T5", "the prompt is empty", "no images", "`x`", "width 1", "0 steps"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// What a pipeline with `limits` says to a request: fields and limits. Nothing else is looked for where one is broken.
fn limited(request: &Request, limits: &Limits) -> Vec<(String, u64, u64, &'static str)> {
    let stages = cascade(TEXT);
    let abilities = Abilities {
        stages: &stages,
        image: ImageSource::Style,
        presets: &BTreeMap::new(),
        needs: TEXT,
        encoders: None,
        limits,
        drawing: DRAWING,
    };
    let others = || panic!("something was read before the limits were checked");
    let Error::InvalidRequest { problems } = validate(request, abilities, others).unwrap_err() else { panic!() };
    let limit = |problem: Problem| match problem {
        Problem::Limit { field, value, limit, name } => (field, value, limit, name),
        other => panic!("{other}"),
    };
    problems.into_iter().map(limit).collect()
}

#[test]
fn each_limit_names_field_and_limit() {
    let (standard, small) = (Limits::default(), Limits { working_memory: 1 << 20, ..Limits::default() });
    let canvas = |regions: usize, side: u32, phrase: &str| {
        let region = |_| Region::rectangle(phrase, (side, side), 0..2, 0..2).unwrap();
        a().canvas(Canvas::new((0..regions).map(region)).unwrap())
    };
    let pictures = |count: usize, side: u32| {
        let picture = StyleImage::new(image::RgbImage::new(side, side)).unwrap();
        a().style(Style::mean((0..count).map(|_| (picture.clone(), 1.0))))
    };
    let few = Limits { style_pixels: 447 * 448, regions: 2, ..Limits::default() };
    let long = "x".repeat(4097);
    for (request, limits, field, name) in [
        (Request::new(&long), &standard, "prompt, characters", "prompt_characters"),
        (Request::new("é".repeat(1 << 20)), &standard, "prompt, characters", "prompt_characters"),
        (a().negative_prompt(&long), &standard, "negative prompt, characters", "prompt_characters"),
        (canvas(1, 4, &long), &standard, "canvas, characters of a phrase", "prompt_characters"),
        (a().images(65), &standard, "images", "images"),
        (a().steps("base", 1001), &standard, "stage `base`, steps", "steps"),
        (a().schedule("base", Schedule::Custom(vec![1.0; 1002])), &standard, "stage `base`, steps", "steps"),
        (
            a().schedule("base", Schedule::Custom(vec![1.0; 1002])).steps("base", 3),
            &standard,
            "stage `base`, steps",
            "steps",
        ),
        (a().size(2176, 2048), &standard, "width and height, pixels", "pixels"),
        (a().size(u32::MAX, u32::MAX), &standard, "width and height, pixels", "pixels"),
        (canvas(3, 4, "cat"), &few, "canvas, regions", "regions"),
        (canvas(17, 2048, "cat"), &standard, "canvas, bytes of its masks", "mask_bytes"),
        (pictures(33, 4), &standard, "style, references", "style_pictures"),
        (pictures(1, 448), &few, "style, pixels of its pictures", "style_pixels"),
        (a().size(1024, 1024), &small, "images, width and height: bytes", "working_memory"),
    ] {
        let found = limited(&request, limits);
        let [(named, value, limit, by)] = &found[..] else { panic!("{found:?}") };
        assert!(named == field && *by == name && value > limit, "{found:?}");
    }
    let both = limited(&a().images(100).steps("base", 5000), &standard);
    assert_eq!(both.len(), 2, "{both:?}");
    let text = Problem::Limit { field: "images".to_owned(), value: 65, limit: 64, name: "images" }.to_string();
    assert_eq!(text, "images: 65, the limit is 64 (`Limits::images`)");
}

/// Every picture of a relay waits in a trajectory, and an enlarger makes sixteen times the pixels.
#[test]
fn memory_is_what_the_pictures_take() {
    let (stages, limits) = (cascade(TEXT), Limits { working_memory: 400 << 20, ..Limits::default() });
    let holds = |request: &Request, drawing: Drawing| {
        let abilities = Abilities {
            stages: &stages,
            image: ImageSource::Style,
            presets: &BTreeMap::new(),
            needs: TEXT,
            encoders: None,
            limits: &limits,
            drawing,
        };
        validate(request, abilities, || Ok(Vec::new())).is_ok()
    };
    // 2^20 pixels of 3 + 12 bytes each for every picture, and 72 for four of them.
    assert!(holds(&a().images(7), DRAWING) && !holds(&a().images(8), DRAWING));
    let turns = Drawing { turns: true, ..DRAWING };
    assert!(holds(&a().images(4), turns) && !holds(&a().images(5), turns));
    assert!(!holds(&a().images(5), Drawing { keep_floats: true, ..DRAWING }));
    let enlarged = Drawing { scale: 4, ..DRAWING };
    assert!(holds(&a(), enlarged) && !holds(&a().images(2), enlarged));
    // The enlarger has no turn where the last stage has none.
    assert!(holds(&a().images(64).last_stage("sr-256"), enlarged));
}

#[test]
fn a_message_does_not_grow_with_the_request() {
    let name = "n".repeat(100_000);
    let mut request = Request { unconditional: true, prompt: "p ".repeat(2000), ..a() };
    request = request.last_stage(&name);
    for k in 0..1000 {
        request = request.steps(format!("{name}{k}"), 3);
    }
    let found = problems(&request);
    assert_eq!(found.len(), 1002);
    let text = Error::InvalidRequest { problems: found }.to_string();
    assert!(text.len() < 5000 && text.ends_with("and 986 more"), "{} {text}", text.len());
}
