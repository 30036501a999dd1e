//! Several prompts in one picture, prompts of single stages, and pictures near that of another seed.

use ediffi::{Canvas, Error, Mix, Near, Pipeline, Region, Request, SigmaInterval, Solver, StagePrompt};

use crate::model::{Model, apple, bytes, distance, style, tensor};

const OTHER: &str = "a green dog";

/// The request of the same picture with the other prompt.
fn other() -> Request {
    Request::new(OTHER).seed(apple().seed)
}

fn interval(low: f64, high: f64) -> SigmaInterval {
    SigmaInterval::new(low, high).unwrap()
}

fn pixels(pipeline: &Pipeline, request: &Request) -> Vec<u8> {
    pipeline.generate(request).unwrap().images[0].rgb().as_raw().clone()
}

fn problems(result: Result<impl Sized, Error>) -> Vec<String> {
    match result.map(drop) {
        Err(Error::InvalidRequest { problems }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_prompt_with_everything_is_the_only_one() {
    let model = Model::new();
    let pipeline = model.open();
    for change in [
        |request: Request| request,
        |request: Request| request.negative_prompt("blur").style_with_strength(style(99), 0.5),
        |request: Request| request.solver("base", Solver::Kutta3).guidance("base", 1.0),
    ] {
        let with = |mix: Mix| pixels(&pipeline, &change(apple()).mix(mix));
        let (own, its) = (pixels(&pipeline, &change(apple())), pixels(&pipeline, &change(other())));
        assert_ne!(own, its);
        assert_eq!(with(Mix::new(OTHER)), its);
        assert_eq!(with(Mix::new(OTHER).sigma(interval(0.0, 1e6))), its);
        assert_eq!(with(Mix::new(OTHER).share(0.0)), own);
        assert_eq!(with(Mix::new(OTHER).sigma(interval(100.0, 200.0))), own);
        // The same prompt, mixed with itself.
        let same = pipeline.generate(&change(apple()).mix(Mix::new(apple().prompt).share(0.5))).unwrap();
        let far = same.images[0].rgb().as_raw().iter().zip(&own).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(far <= Some(1), "{far:?}");
        // Below sigma 2 the second expert works.
        let (half, late) = (with(Mix::new(OTHER).share(0.5)), with(Mix::new(OTHER).sigma(interval(0.0, 2.0))));
        assert!([&own, &its].iter().all(|single| **single != half && **single != late) && half != late);
    }
}

/// Between two prompts the picture moves without a jump.
#[test]
fn shares_lead_from_one_prompt_to_the_other() {
    let model = Model::new();
    let pipeline = model.open();
    let with = |share| tensor(&pipeline, &apple().mix(Mix::new(OTHER).share(share)));
    let (own, its) = (tensor(&pipeline, &apple()), tensor(&pipeline, &other()));
    let whole = distance(&own, &its);
    assert!(distance(&with(1e-6), &own) < 1e-3 * whole && distance(&with(1.0 - 1e-6), &its) < 1e-3 * whole);
    assert!(distance(&with(0.25), &own) < distance(&with(0.75), &own));
}

#[test]
fn paint_is_of_the_request_s_own_words() {
    let model = Model::new();
    let pipeline = model.open();
    let canvas = Canvas::new([Region::rectangle("red apple", (8, 8), 0..4, 0..8).unwrap()]).unwrap();
    let painted = |request: Request| pixels(&pipeline, &request.canvas(canvas.clone()));
    let half = apple().mix(Mix::new(OTHER).share(0.5));
    assert_ne!(painted(half.clone()), pixels(&pipeline, &half));
    assert_eq!(painted(apple().mix(Mix::new(OTHER).share(0.0))), painted(apple()));
}

#[test]
fn a_stage_has_a_prompt_of_its_own() {
    let model = Model::new();
    let pipeline = model.open();
    // The second stage takes no text: the prompt of the first is the picture's.
    let told = Request::new("blue").seed(7).stage_prompt("base", OTHER);
    assert_eq!(pixels(&pipeline, &told), pixels(&pipeline, &other()));
    let same = apple().stage_prompt("base", apple().prompt);
    assert_eq!(pixels(&pipeline, &same), pixels(&pipeline, &apple()));
    let negative = apple().stage_negative_prompt("base", "blur");
    assert_eq!(pixels(&pipeline, &negative), pixels(&pipeline, &apple().negative_prompt("blur")));
    assert_ne!(pixels(&pipeline, &negative), pixels(&pipeline, &apple()));
    // An empty prompt is none.
    let none = Request::unconditional().seed(7);
    assert_eq!(pixels(&pipeline, &apple().stage_prompt("base", "")), pixels(&pipeline, &none));
    // The prompt's place is taken, those beside it stay.
    let both = apple().mix(Mix::new("blue").share(0.5));
    let expected = pixels(&pipeline, &other().mix(Mix::new("blue").share(0.5)));
    assert_eq!(pixels(&pipeline, &both.stage_prompt("base", OTHER)), expected);
}

#[test]
fn every_mixture_replays_and_is_drawn_from_embeddings() {
    let model = Model::new();
    let pipeline = model.open();
    let mixed = apple().mix(Mix::new(OTHER).share(0.3).sigma(interval(0.5, 9.0))).mix(Mix::new("blue").share(0.2));
    let told = mixed.clone().stage_prompt("base", "a cat and a dog").near(3, 0.5);
    for request in [mixed.clone(), told.clone()] {
        let drawn = bytes(&pipeline.generate(&request).unwrap());
        let read = Request::from_png_bytes(&drawn[0]).unwrap();
        assert_eq!(read, request);
        assert_eq!(bytes(&pipeline.generate(&read).unwrap()), drawn);
        let file = model.path().join("texts.safetensors");
        pipeline.encode(&request).unwrap().save(&file).unwrap();
        let embeddings = ediffi::Embeddings::load(&file).unwrap();
        assert_eq!(bytes(&model.open().sample(&embeddings, &request).unwrap()), drawn);
        // What was encoded beside the prompt need not be drawn.
        let plain = embeddings.request().seed(7);
        assert_eq!(bytes(&pipeline.sample(&embeddings, &plain).unwrap()), bytes(&pipeline.generate(&apple()).unwrap()));
    }
    let embeddings = pipeline.encode(&mixed).unwrap();
    let error = pipeline.sample(&embeddings, &told).unwrap_err();
    assert!(matches!(error, Error::EmbeddingsOfAnother("the further prompts")), "{error}");
    // Beside others of the same kind, each is drawn by itself.
    let many = pipeline.generate_many(&[mixed.clone(), told.clone(), mixed.clone()]).unwrap();
    for (generation, request) in many.iter().zip([&mixed, &told, &mixed]) {
        assert_eq!(bytes(generation), bytes(&pipeline.generate(request).unwrap()));
    }
}

/// Also with noise on the way, and where the images of a request are drawn in several batches.
#[test]
fn near_a_seed_are_variations_of_its_picture() {
    let model = Model::new();
    let pipeline = model.open();
    for solver in [Solver::DpmPp2M, Solver::EulerAncestral] {
        let plain = |seed: u64| apple().seed(seed).solver("base", solver).solver("sr", solver);
        let near = |strength| plain(20).images(3).near(7, strength);
        let raw = |request: &Request| {
            let images = model.builder().batch(2).open().unwrap().generate(request).unwrap().images;
            images.iter().map(|image| image.rgb().as_raw().clone()).collect::<Vec<_>>()
        };
        let picture = pixels(&pipeline, &plain(7));
        let far = |strength| {
            let of = |image: &Vec<u8>| image.iter().zip(&picture).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            raw(&near(strength)).iter().map(of).sum::<u64>()
        };
        assert_eq!(far(0.0), 0);
        assert!(far(0.1) < far(0.4) && far(0.4) < far(1.0));
        let own: Vec<_> = (20..23).map(|seed| pixels(&pipeline, &plain(seed))).collect();
        let whole = raw(&near(1.0));
        let differ = whole.iter().flatten().zip(own.iter().flatten()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(differ <= Some(1), "{differ:?}");
        // Image k is the request with the seed of image k.
        let generation = pipeline.generate(&near(0.3)).unwrap();
        let second = generation.images[1].request();
        assert_eq!((second.seed, second.near), (21, Some(Near { seed: 7, strength: 0.3 })));
        let again = pipeline.generate(second).unwrap();
        let far = generation.images[1].rgb().as_raw().iter().zip(again.images[0].rgb().as_raw());
        assert!(far.map(|(a, b)| a.abs_diff(*b)).max() <= Some(1));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let model = Model::new();
    let pipeline = model.open();
    let canvas = Canvas::new([Region::rectangle("cat", (8, 8), 0..4, 0..8).unwrap()]).unwrap();
    let long = "red ".repeat(40);
    let painted = || apple().canvas(Canvas::new([Region::rectangle("apple", (8, 8), 0..4, 0..8).unwrap()]).unwrap());
    let mut silent = apple();
    silent.stage_prompts.insert("base".to_owned(), StagePrompt::default());
    // The first level of the schedule is 20.
    for request in
        [painted().mix(Mix::new(OTHER).share(0.9)), painted().mix(Mix::new(OTHER).sigma(interval(0.0, 20.0)))]
    {
        pipeline.validate(&request).unwrap();
    }
    for (request, culprit) in [
        (apple().mix(Mix::new(" ")), "mix: a prompt is empty"),
        (apple().mix(Mix::new("a").share(1.5)), "a share is 1.5"),
        (apple().mix(Mix::new("a").share(f64::NAN)), "a share is NaN"),
        (apple().mix(Mix::new("a").share(0.75)).mix(Mix::new("b").share(0.75)), "the shares add up to 1.5 at sigma 0"),
        (Request::unconditional().first_stage("sr").mix(Mix::new("a")), "mix: no stage that runs takes text"),
        (apple().mix(Mix::new(long.clone())), "the further prompt is too long for T5"),
        (
            painted().mix(Mix::new(OTHER)),
            "mix: the canvas paints words of the request's own prompt, which has no share in stage `base`",
        ),
        (painted().mix(Mix::new("a").share(0.4)).mix(Mix::new("b").share(0.6)), "which has no share in stage `base`"),
        (
            painted().mix(Mix::new(OTHER).sigma(interval(0.0, 21.0))).mix(Mix::new("a").sigma(interval(30.0, 40.0))),
            "which has no share in stage `base`",
        ),
        (silent, "stage `base` has a prompt of its own, but neither `prompt` nor `negative_prompt` is set"),
        (apple().stage_prompt("top", "a"), "stage prompts: there is no stage `top`"),
        (apple().stage_prompt("sr", "a"), "stage `sr` has a prompt of its own, but its networks take no text"),
        (apple().last_stage("base").stage_prompt("sr", "a"), "stage `sr` has a prompt of its own, but does not run"),
        (apple().canvas(canvas).stage_prompt("base", "a cat"), "the canvas paints words of the request's"),
        (apple().stage_prompt("base", long), "the further prompt is too long for CLIP"),
        (apple().near(1, -0.5), "near: the strength is -0.5"),
        (apple().near(1, f64::NAN), "near: the strength is NaN"),
    ] {
        let found = problems(pipeline.validate(&request));
        assert!(found.iter().any(|problem| problem.contains(culprit)), "{culprit}: {found:?}");
    }
    let nine = (0..9).fold(apple(), |request, _| request.mix(Mix::new("a").share(0.1)));
    assert!(problems(pipeline.validate(&nine))[0].contains("the limit is 8 (`Limits::prompts`)"));
    assert!(pipeline.generate(&apple().mix(Mix::new(" "))).is_err());
}
