//! Paint-with-words through the public API.

use ediffi::{Canvas, Error, Problem, Region, Request, Strength};
use tch::Tensor;

use crate::model::{Model, apple, distance};

fn canvas(phrase: &str, x: std::ops::Range<u32>, weight: f64) -> Canvas {
    let region = Region::rectangle(phrase, (8, 8), x, 0..8).unwrap();
    Canvas::new([region]).unwrap().with_strength(Strength::new(weight)).unwrap()
}

fn drawn(request: &Request) -> Tensor {
    let model = Model::new();
    let pipeline = model.open();
    pipeline.generate(request).unwrap().images.remove(0).tensor().shallow_clone()
}

#[test]
fn paint_changes_the_picture_and_no_paint_does_not() {
    let plain = drawn(&apple());
    let left = drawn(&apple().canvas(canvas("red apple", 0..4, 2.0)));
    let right = drawn(&apple().canvas(canvas("red apple", 4..8, 2.0)));
    assert!(distance(&plain, &left) > 1e-5);
    assert!(distance(&left, &right) > 1e-5);
    assert!(distance(&left, &drawn(&apple().canvas(canvas("cat", 0..4, 2.0)))) > 1e-5, "other words");
    assert_eq!(distance(&plain, &drawn(&apple().canvas(canvas("red apple", 0..4, 0.0)))), 0.0);
}

#[test]
fn paint_works_with_one_encoder_of_two() {
    let model = Model::new();
    model.edit(|manifest| drop(manifest["encoders"].as_object_mut().unwrap().remove("t5")));
    let pipeline = model.open();
    let plain = pipeline.generate(&apple()).unwrap();
    let painted = pipeline.generate(&apple().canvas(canvas("cat", 0..4, 2.0))).unwrap();
    assert!(distance(plain.images[0].tensor(), painted.images[0].tensor()) > 1e-5);
}

#[test]
fn a_phrase_that_is_not_in_the_prompt_is_an_error() {
    let model = Model::new();
    let error = model.open().generate(&apple().canvas(canvas("dog", 0..4, 1.0))).unwrap_err();
    let Error::InvalidRequest { problems } = &error else { panic!("{error}") };
    assert!(matches!(&problems[..], [Problem::Canvas { reason }] if reason.contains("dog")));
}

#[test]
fn a_phrase_that_no_encoder_reads_is_an_error() {
    let long = "a a a a a a a a a a a a dog";
    let request = Request::new(long).truncate(true).canvas(canvas("dog", 0..4, 1.0));
    let model = Model::new();
    let error = model.open().generate(&request).unwrap_err();
    assert!(matches!(&error, Error::Paint(_)) && error.to_string().contains("dog"), "{error}");
}
