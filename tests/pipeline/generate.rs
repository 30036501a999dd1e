//! What decides a picture.

use ediffi::{Guidance, Pipeline, Request, Residency, Solver, Tiling};

use crate::model::{Model, apple, bytes, distance, style};

fn tensor(pipeline: &Pipeline, request: &Request) -> tch::Tensor {
    pipeline.generate(request).unwrap().images.remove(0).tensor().shallow_clone()
}

#[test]
fn a_generation_says_what_was_done() {
    let model = Model::new();
    let generation = model.open().generate(&apple()).unwrap();
    assert_eq!((generation.images.len(), generation.stages.len()), (1, 2));
    let image = &generation.images[0];
    assert_eq!((image.rgb().dimensions(), image.tensor().size()), ((16, 16), vec![3, 16, 16]));
    assert!(generation.encoding > std::time::Duration::ZERO);
    let lines: Vec<_> = image.plan().lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("stage base (8x8), expert 0: steps 1-"), "{}", lines[0]);
    assert!(lines[1].starts_with("stage base (8x8), expert 1: steps "), "{}", lines[1]);
    assert!(lines[2].starts_with("stage sr (16x16), expert 0: steps 1-2 of 2"), "{}", lines[2]);
    let range = f64::try_from(image.tensor().abs().max()).unwrap();
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

/// Each of them has to reach the networks: a setting that is lost on the way gives the same picture.
#[test]
fn every_setting_changes_the_picture() {
    let model = Model::new();
    let pipeline = model.open();
    let usual = tensor(&pipeline, &apple());
    let requests = [
        apple().seed(8),
        Request::new("a green apple left of a cat").seed(7),
        apple().negative_prompt("blur"),
        apple().style(style(200)),
        apple().steps("base", 6),
        apple().steps("sr", 4),
        apple().solver("base", Solver::Euler),
        apple().guidance("base", 1.0),
        apple().guidance("base", 9.0),
        Request::unconditional().seed(7),
    ];
    for request in requests {
        let difference = distance(&tensor(&pipeline, &request), &usual);
        assert!(difference > 1e-4, "{difference} for {request:?}");
    }
    let whole = tensor(&pipeline, &apple().guidance_rule("base", Guidance::new(9.0)));
    assert_eq!(distance(&whole, &tensor(&pipeline, &apple().guidance("base", 9.0))), 0.0);
}

#[test]
fn a_style_has_a_strength() {
    let model = Model::new();
    let pipeline = model.open();
    let at = |strength| tensor(&pipeline, &apple().style_with_strength(style(200), strength));
    assert_eq!(distance(&at(0.0), &tensor(&pipeline, &apple())), 0.0, "no strength is no style");
    assert_eq!(distance(&at(1.0), &tensor(&pipeline, &apple().style(style(200)))), 0.0);
    assert!(distance(&at(0.5), &at(1.0)) > 1e-5);
    assert!(distance(&at(1.0), &tensor(&pipeline, &apple().style(style(20)))) > 1e-5, "another style");
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
        for other in [image.tensor(), in_threes.images[k].tensor()] {
            let difference = distance(&single, other);
            assert!(difference < 0.01 * 2.0 / 255.0, "image {k}: {difference}");
        }
    }
    assert!(distance(together.images[0].tensor(), together.images[1].tensor()) > 1e-3);
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

#[test]
fn a_stage_can_be_cut_into_tiles() {
    let model = Model::new();
    let pipeline = model.open();
    let request = apple().size(48, 32);
    let tiled = tensor(&pipeline, &request.clone().tiling("sr", Tiling { tile: 24, overlap: 8 }));
    let difference = distance(&tiled, &tensor(&pipeline, &request));
    assert!(difference > 0.0, "self-attention sees a tile instead of the picture");
}

#[test]
fn a_fresh_thread_tracks_no_gradients() {
    let model = Model::new();
    let pipeline = model.open();
    let thread = std::thread::spawn(move || {
        let tensor = tensor(&pipeline, &apple());
        let embeddings = pipeline.encode(&apple()).unwrap().conditioning();
        (tensor.requires_grad(), embeddings.t5.unwrap().requires_grad(), tch::no_grad(|| ()))
    });
    let (picture, embedding, ()) = thread.join().unwrap();
    assert!(!picture && !embedding);
}

#[test]
fn a_prompt_that_is_too_long_can_be_cut() {
    let model = Model::new();
    let pipeline = model.open();
    let long = "a red apple left of a cat on a blue dog and a green cat";
    let cut = pipeline.generate(&Request::new(long).truncate(true).seed(7)).unwrap();
    assert!(
        distance(cut.images[0].tensor(), &tensor(&pipeline, &apple())) > 1e-4,
        "more of it is read than seven words"
    );
}

#[test]
fn each_encoder_is_optional() {
    let model = Model::new();
    let both = tensor(&model.open(), &apple());
    for encoder in ["t5", "clip"] {
        let other = Model::new();
        other.edit(|manifest| drop(manifest["encoders"].as_object_mut().unwrap().remove(encoder)));
        assert!(distance(&tensor(&other.open(), &apple()), &both) > 1e-4, "without {encoder}");
    }
}
