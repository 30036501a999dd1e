//! What decides a picture.

use std::ops::ControlFlow;

use ediffi::{Conditioning, Event, Guidance, Observer, Request, Residency, Rows, Solver, Tiling};
use tch::{Device, Kind, Tensor};

use crate::by_hand::{ByHand, encoded};
use crate::model::{Model, apple, bytes, distance, style, tensor};

#[test]
fn a_generation_says_what_was_done() {
    let model = Model::new();
    let generation = model.open().generate(&apple()).unwrap();
    assert_eq!((generation.images.len(), generation.stages.len()), (1, 2));
    let image = &generation.images[0];
    assert_eq!((image.rgb().dimensions(), image.tensor().unwrap().size()), ((16, 16), vec![3, 16, 16]));
    assert!(generation.encoding > std::time::Duration::ZERO);
    let lines: Vec<_> = image.plan().lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("stage base (8x8), expert 0: steps 1-"), "{}", lines[0]);
    assert!(lines[1].starts_with("stage base (8x8), expert 1: steps "), "{}", lines[1]);
    assert!(lines[2].starts_with("stage sr (16x16), expert 0: steps 1-2 of 2"), "{}", lines[2]);
    let range = f64::try_from(image.tensor().unwrap().abs().max()).unwrap();
    assert!(range > 0.05 && range <= 1.0, "neither blank nor out of range: {range}");
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let model = Model::new();
    let pipeline = model.open();
    let first = bytes(&pipeline.generate(&apple()).unwrap());
    assert_eq!(first, bytes(&pipeline.generate(&apple()).unwrap()), "the same pipeline again");
    assert_eq!(first, bytes(&model.open().generate(&apple()).unwrap()), "another one");
    pipeline.release().unwrap();
    assert_eq!(first, bytes(&pipeline.generate(&apple()).unwrap()), "after everything was dropped");
}

#[test]
fn memory_does_not_change_a_picture() {
    let model = Model::new();
    let expected = bytes(&model.open().generate(&apple()).unwrap());
    for residency in [Residency::Relay, Residency::RelayPrefetch] {
        let pipeline = model.builder().residency(residency).keep_encoders(true).open().unwrap();
        assert_eq!(bytes(&pipeline.generate(&apple()).unwrap()), expected, "{residency:?}");
    }
}

/// What a request says is what the stages are told: each picture is that of the stages alone.
#[test]
fn every_setting_reaches_its_stage() {
    type Change = fn(&mut ByHand<'_>);
    let model = Model::new();
    let pipeline = model.open();
    let cases: [(Request, Change); 12] = [
        (apple(), |_| ()),
        (apple().seed(8), |by_hand| by_hand.seed = 8),
        (apple().size(24, 16), |by_hand| by_hand.size = (24, 16)),
        (apple().steps("base", 6), |by_hand| by_hand.settings[0].steps = 6),
        (apple().steps("sr", 4), |by_hand| by_hand.settings[1].steps = 4),
        (apple().solver("base", Solver::Euler), |by_hand| by_hand.settings[0].solver = Solver::Euler),
        (apple().guidance("base", 1.0), |by_hand| by_hand.settings[0].guidance.scale = 1.0),
        (apple().guidance("base", 9.0), |by_hand| by_hand.settings[0].guidance.scale = 9.0),
        (apple().guidance_rule("base", Guidance::new(9.0)), |by_hand| {
            by_hand.settings[0].guidance = Guidance::new(9.0)
        }),
        (apple().size(48, 32).tiling("sr", Tiling { tile: 24, overlap: 8 }), |by_hand| {
            (by_hand.size, by_hand.tiling[1]) = ((48, 32), Some(Tiling { tile: 24, overlap: 8 }));
        }),
        (apple().size(48, 32).tiling("base", Tiling { tile: 12, overlap: 4 }), |by_hand| {
            (by_hand.size, by_hand.tiling[0]) = ((48, 32), Some(Tiling { tile: 12, overlap: 4 }));
        }),
        (Request::unconditional().seed(7), |by_hand| by_hand.conditioning = Conditioning::default()),
    ];
    for (request, change) in cases {
        let mut by_hand = ByHand::apple(&pipeline);
        change(&mut by_hand);
        assert_eq!(distance(&tensor(&pipeline, &request), &by_hand.draw(&model)), 0.0, "{request:?}");
    }
}

#[test]
fn texts_and_styles_reach_the_networks() {
    let model = Model::new();
    let pipeline = model.open();
    let conditioning = |request: &Request| encoded(&pipeline, request);
    let is = |request: &Request, conditioning: Conditioning, unconditional: Conditioning| {
        let by_hand = ByHand { conditioning, unconditional, ..ByHand::apple(&pipeline) };
        assert_eq!(distance(&tensor(&pipeline, request), &by_hand.draw(&model)), 0.0, "{request:?}");
    };
    let (nothing, green) = (Conditioning::default, Request::new("a green apple left of a cat").seed(7));
    is(&green, conditioning(&green), nothing());
    is(&apple().negative_prompt("blur"), conditioning(&apple()), conditioning(&Request::new("blur")));
    let styled = apple().style(style(200));
    let strong = |strength: f64| {
        let whole = conditioning(&styled);
        Conditioning { clip_image: whole.clip_image.map(|style| style * strength), ..whole }
    };
    is(&styled, strong(1.0), nothing());
    is(&apple().style_with_strength(style(200), 0.5), strong(0.5), nothing());
    is(&apple().style_with_strength(style(200), 0.0), conditioning(&apple()), nothing());
}

/// Rows of a batch are added up in another order than a row alone, so the last bits may differ; the tolerance is a
/// hundredth of a step of an 8-bit pixel.
#[test]
fn four_images_in_a_batch_equal_four_alone() {
    let model = Model::new();
    let together = model.builder().batch(4).open().unwrap().generate(&apple().images(4)).unwrap();
    let in_threes = model.builder().batch(3).open().unwrap().generate(&apple().images(4)).unwrap();
    let alone = model.open();
    assert_eq!((together.images.len(), in_threes.images.len()), (4, 4));
    for (k, image) in together.images.iter().enumerate() {
        assert_eq!((image.seed(), image.request()), (7 + k as u64, &apple().seed(7 + k as u64)));
        let single = tensor(&alone, image.request());
        for other in [image, &in_threes.images[k]] {
            let difference = distance(&single, &other.tensor().unwrap());
            assert!(difference < 0.01 * 2.0 / 255.0, "image {k}: {difference}");
        }
    }
    let [first, second] = [0, 1].map(|k| together.images[k].tensor().unwrap());
    assert!(distance(&first, &second) > 1e-3, "each has noise of its own");
}

#[test]
fn stages_and_sizes_are_those_asked_for() {
    let model = Model::new();
    let pipeline = model.open();
    let size = |request: &Request| pipeline.generate(request).unwrap().images[0].rgb().dimensions();
    assert_eq!(size(&apple().last_stage("base")), (8, 8));
    assert_eq!(size(&apple().size(24, 16)), (24, 16));
    assert_eq!(size(&apple().size(12, 8).last_stage("base")), (12, 8));
    let plans = pipeline.plan(&apple().size(24, 16).steps("base", 7)).unwrap();
    let shapes: Vec<_> = plans.iter().map(|p| (p.stage.as_str(), p.width, p.height, p.plan.steps().len())).collect();
    assert_eq!(shapes, [("base", 12, 8, 7), ("sr", 24, 16, 2)]);
}

/// Every tensor that is made while a request runs is made without gradients, whichever thread runs it; the thread gets them
/// back.
#[test]
fn a_fresh_thread_tracks_no_gradients() {
    let model = Model::new();
    let pipeline = model.open();
    let tracks = || (Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true) * 2.0).requires_grad();
    let thread = std::thread::spawn(move || {
        assert!(tracks());
        let mut events = 0;
        let mut watch = |event: &Event<'_>| {
            events += 1;
            assert!(!tracks(), "{event:?}");
            ControlFlow::Continue(())
        };
        pipeline.generate_with(&apple(), &mut watch).unwrap();
        assert!(tracks());
        let embeddings = pipeline.encode(&apple()).unwrap();
        pipeline.sample_with(&embeddings, &apple(), &mut watch).unwrap();
        assert!(tracks());
        assert!(events > 20);
    });
    thread.join().unwrap();
}

/// T5 reads ten tokens, of which one is its end, CLIP twelve, of which two are its ends.
#[test]
fn a_prompt_that_is_too_long_can_be_cut() {
    let model = Model::new();
    let pipeline = model.open();
    let long = Request::new("a red apple left of a cat on a blue dog and a green cat").truncate(true).seed(7);
    let conditioning = Conditioning {
        t5: encoded(&pipeline, &Request::new("a red apple left of a cat on a")).t5,
        ..encoded(&pipeline, &Request::new("a red apple left of a cat on a blue").truncate(true))
    };
    let by_hand = ByHand { conditioning, ..ByHand::apple(&pipeline) };
    assert_eq!(distance(&tensor(&pipeline, &long), &by_hand.draw(&model)), 0.0);
}

/// Without an encoder its embedding is absent.
#[test]
fn each_encoder_is_optional() {
    let model = Model::new();
    let both = model.open();
    for encoder in ["t5", "clip"] {
        let other = Model::new();
        other.edit(|manifest| drop(manifest["encoders"].as_object_mut().unwrap().remove(encoder)));
        let mut by_hand = ByHand::apple(&both);
        match encoder {
            "t5" => by_hand.conditioning.t5 = None,
            _ => (by_hand.conditioning.clip_text, by_hand.conditioning.clip_text_pooled) = (None, None),
        }
        assert_eq!(distance(&tensor(&other.open(), &apple()), &by_hand.draw(&model)), 0.0, "without {encoder}");
    }
}

/// Counts the evaluations, before each of which an observer is asked.
#[derive(Default)]
struct Asked(usize);

impl Observer for Asked {
    fn event(&mut self, _event: &Event<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn cancelled(&mut self) -> bool {
        self.0 += 1;
        false
    }
}

#[test]
fn guidance_can_evaluate_its_rows_one_after_the_other() {
    let model = Model::new();
    let run = |rows| {
        let mut asked = Asked::default();
        let pipeline = model.builder().rows(rows).open().unwrap();
        let generation = pipeline.generate_with(&apple().last_stage("base"), &mut asked).unwrap();
        (generation.images[0].tensor().unwrap(), asked.0)
    };
    let ((batched, once), (sequential, twice)) = (run(Rows::Batched), run(Rows::Sequential));
    assert!(distance(&batched, &sequential) < 1e-5);
    // Each of the four steps is guided.
    assert_eq!(twice, once + 4);
}
