//! Paint-with-words through the public API.

use ediffi::{
    Canvas, Error, Growth, LayoutGuidance, Pipeline, Problem, Region, Request, Site, Statistic, Strength, Tiling,
    WeightFunction,
};
use tch::{Kind, Tensor};

use crate::by_hand::{ByHand, encoded};
use crate::model::{Model, apple, distance, tensor};

fn canvas(phrase: &str, x: std::ops::Range<u32>, weight: f64) -> Canvas {
    let region = Region::rectangle(phrase, (8, 8), x, 0..8).unwrap();
    Canvas::new([region]).unwrap().with_strength(Strength::new(weight)).unwrap()
}

/// The picture of a painted request is that of the first stage with the painter.
fn is_painted(model: &Model, pipeline: &Pipeline, request: &Request) -> Tensor {
    let painter = pipeline.painter(request).unwrap().unwrap();
    let conditioning = encoded(pipeline, request);
    let by_hand = ByHand { conditioning, paint: Some(&painter), ..ByHand::apple(pipeline) };
    let drawn = tensor(pipeline, request);
    assert_eq!(distance(&drawn, &by_hand.draw(model)), 0.0);
    drawn
}

#[test]
fn paint_acts_in_the_first_stage() {
    let model = Model::new();
    let pipeline = model.open();
    let painted = |canvas| is_painted(&model, &pipeline, &apple().canvas(canvas));
    let left = painted(canvas("red apple", 0..4, 2.0));
    assert!(distance(&left, &painted(canvas("red apple", 4..8, 2.0))) > 1e-5, "elsewhere");
    assert!(distance(&left, &painted(canvas("cat", 0..4, 2.0))) > 1e-5, "other words");
    assert_eq!(distance(&tensor(&pipeline, &apple()), &painted(canvas("red apple", 0..4, 0.0))), 0.0);
}

#[test]
fn paint_works_with_one_encoder_of_two() {
    let model = Model::new();
    model.edit(|manifest| drop(manifest["encoders"].as_object_mut().unwrap().remove("t5")));
    let pipeline = model.open();
    let painted = is_painted(&model, &pipeline, &apple().canvas(canvas("cat", 0..4, 2.0)));
    assert!(distance(&painted, &tensor(&pipeline, &apple())) > 1e-5);
}

/// The painted picture of a request in tiles is that of the cascade, and a single tile is the picture. A canvas of the whole
/// picture paints each tile with its part: after one evaluation of tiles that do not overlap, what is painted in the left ones
/// has changed nothing in the right ones.
#[test]
fn paint_works_in_tiles() {
    let model = Model::new();
    let pipeline = model.open();
    let request = apple().size(48, 32).canvas(canvas("red apple", 0..4, 2.0));
    let tiling = Tiling { tile: 12, overlap: 4 };
    let painter = pipeline.painter(&request).unwrap().unwrap();
    let by_hand =
        ByHand { size: (48, 32), tiling: [Some(tiling), None], paint: Some(&painter), ..ByHand::apple(&pipeline) };
    let tiled = tensor(&pipeline, &request.clone().tiling("base", tiling));
    assert_eq!(distance(&tiled, &by_hand.draw(&model)), 0.0);
    let one = tensor(&pipeline, &request.clone().tiling("base", Tiling { tile: 24, overlap: 0 }));
    assert_eq!(distance(&one, &tensor(&pipeline, &request)), 0.0);
    // On 24x16 pixels tiles of 12 lie left and right; rows of tiles overlap.
    let once = apple().size(24, 16).last_stage("base").steps("base", 1).tiling("base", Tiling { tile: 12, overlap: 0 });
    let plain = tensor(&pipeline, &once);
    let painted = tensor(&pipeline, &once.canvas(canvas("red apple", 0..4, 2.0)));
    let half = |x: &Tensor, from| x.narrow(2, from, 12);
    assert!(distance(&half(&plain, 12), &half(&painted, 12)) < 1e-6);
    assert!(distance(&half(&plain, 0), &half(&painted, 0)) > 1e-4);
}

#[test]
fn a_phrase_that_is_not_in_the_prompt_is_an_error() {
    let model = Model::new();
    let error = model.open().generate(&apple().canvas(canvas("dog", 0..4, 1.0))).unwrap_err();
    let Error::InvalidRequest { problems } = &error else { panic!("{error}") };
    assert!(matches!(&problems[..], [Problem::Canvas(reason)] if reason.contains("dog")));
}

#[test]
fn a_phrase_that_no_encoder_reads_is_an_error() {
    let long = "a a a a a a a a a a a a dog";
    let request = Request::new(long).truncate(true).canvas(canvas("dog", 0..4, 1.0));
    let model = Model::new();
    let error = model.open().generate(&request).unwrap_err();
    assert!(matches!(&error, Error::Paint(_)) && error.to_string().contains("dog"), "{error}");
}

#[test]
fn two_painted_images_together_are_those_alone() {
    let model = Model::new();
    let pipeline = model.open();
    let request = apple().canvas(canvas("red apple", 0..4, 2.0));
    let together = model.builder().batch(2).open().unwrap().generate(&request.clone().images(2)).unwrap();
    for (k, image) in together.images.iter().enumerate() {
        let alone = tensor(&pipeline, &request.clone().seed(7 + k as u64));
        // A hundredth of a step of an 8-bit pixel.
        assert!(distance(&alone, &image.tensor().unwrap()) < 0.01 * 2.0 / 255.0, "image {k}");
    }
}

#[test]
fn bindings_say_which_tokens_a_region_takes() {
    let model = Model::new();
    let pipeline = model.open();
    assert!(pipeline.bindings(&apple()).unwrap().is_empty());
    let bindings = pipeline.bindings(&apple().canvas(canvas("red apple", 0..4, 2.0))).unwrap();
    let [binding] = &bindings[..] else { panic!("{bindings:?}") };
    let [t5, clip] = &binding.encoders[..] else { panic!("{binding:?}") };
    assert_eq!((binding.phrase.as_str(), t5.encoder.as_str(), clip.encoder.as_str()), ("red apple", "t5", "clip"));
    // CLIP has a token in front.
    assert_eq!((&t5.tokens[..], &clip.tokens[..]), (&[1, 2][..], &[2, 3][..]));
    assert_eq!((&t5.pieces, &clip.pieces), (&vec!["red".to_owned(), "apple".to_owned()], &t5.pieces));
    assert!(matches!(pipeline.bindings(&apple().canvas(canvas("dog", 0..4, 1.0))), Err(Error::InvalidRequest { .. })));
    let long = Request::new("a a a a a a a a a a a a dog").truncate(true).canvas(canvas("dog", 0..4, 1.0));
    assert!(matches!(pipeline.bindings(&long), Err(Error::Paint(_))));
}

/// Paints with the same number at every noise level.
#[derive(Debug)]
struct Flat(f64);

impl WeightFunction for Flat {
    fn weight(&self, site: &Site<'_>) -> ediffi_paint::Result<Option<Tensor>> {
        Ok(Some(Tensor::f_full([1, 1, 1, 1], self.0, (Kind::Float, site.device()))?))
    }
}

#[test]
fn a_rule_of_ones_own_takes_the_place_of_the_canvas() {
    let model = Model::new();
    let request = apple().canvas(canvas("red apple", 0..4, 0.0));
    let with = |weight| tensor(&model.builder().paint_weight(Flat(weight)).open().unwrap(), &request);
    let pipeline = model.open();
    assert!(distance(&with(3.0), &tensor(&pipeline, &request)) > 1e-5, "the canvas alone has no weight");
    // What a constant is in the words of the canvas.
    for weight in [1.0, 3.0] {
        let one = Strength { statistic: Statistic::One, growth: Growth::Constant, ..Strength::new(weight) };
        let constant = apple().canvas(canvas("red apple", 0..4, 0.0).with_strength(one).unwrap());
        assert_eq!(distance(&with(weight), &tensor(&pipeline, &constant)), 0.0);
    }
}

#[test]
fn layout_guidance_moves_the_picture_and_each_image_has_its_own() {
    let model = Model::new();
    let pipeline = model.open();
    let painted = |layout| {
        let strength = Strength { layout, ..Strength::new(2.0) };
        apple().canvas(canvas("red apple", 0..4, 2.0).with_strength(strength).unwrap())
    };
    let without = tensor(&pipeline, &painted(None));
    let layout = |scale| Some(LayoutGuidance::new(scale));
    assert_eq!(distance(&tensor(&pipeline, &painted(layout(0.0))), &without), 0.0);
    let guided = painted(layout(3.0));
    let with = tensor(&pipeline, &guided);
    assert!(distance(&with, &without) > 1e-5);
    let json = serde_json::to_string(&guided).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), guided);
    let together = model.builder().batch(2).open().unwrap().generate(&guided.clone().images(2)).unwrap();
    for (k, image) in together.images.iter().enumerate() {
        let alone = tensor(&pipeline, &guided.clone().seed(7 + k as u64));
        assert!(distance(&alone, &image.tensor().unwrap()) < 0.01 * 2.0 / 255.0, "image {k}");
    }
}
