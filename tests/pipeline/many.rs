//! Many requests at once.

use std::ops::ControlFlow;

use ediffi::{Canvas, Error, Event, Region, Request};

use crate::model::{Model, apple, style};

/// Different prompts, styles, numbers of images and settings.
fn requests() -> Vec<Request> {
    let canvas = Canvas::new([Region::rectangle("cat", (8, 8), 0..4, 0..8).unwrap()]).unwrap();
    vec![
        apple(),
        Request::new("a green cat").seed(4).images(3),
        apple().steps("base", 3),
        Request::new("a dog").negative_prompt("blur").style_with_strength(style(99), 0.5),
        apple().canvas(canvas),
        Request::unconditional().seed(11),
    ]
}

#[test]
fn each_image_is_that_of_its_own_request() {
    let model = Model::new();
    let pipeline = model.open();
    let requests = requests();
    let many = pipeline.generate_many(&requests).unwrap();
    assert_eq!(many.len(), requests.len());
    for (generation, request) in many.iter().zip(&requests) {
        let alone = pipeline.generate(request).unwrap();
        assert_eq!((generation.images.len(), generation.stages.len()), (alone.images.len(), 2));
        for (a, b) in generation.images.iter().zip(&alone.images) {
            assert_eq!(a.request(), b.request());
            let far = a.rgb().as_raw().iter().zip(b.rgb().as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(far <= Some(1), "{:?}: {far:?}", request.prompt);
        }
    }
    // They are not all alike.
    let raw = |index: usize| many[index].images[0].rgb().as_raw();
    assert!(raw(0) != raw(1) && raw(0) != raw(4));
    assert!(pipeline.generate_many(&[]).unwrap().is_empty());
}

#[test]
fn images_are_numbered_over_all_requests() {
    let model = Model::new();
    let mut told = Vec::new();
    let mut watch = |event: &Event<'_>| {
        if let Event::Image { index, image } = event {
            told.push((*index, image.seed()));
        }
        ControlFlow::Continue(())
    };
    model.open().generate_many_with(&requests(), &mut watch).unwrap();
    let mut numbers: Vec<usize> = told.iter().map(|(index, _)| *index).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
    assert!(told.contains(&(3, 6)) && told.contains(&(7, 11)), "{told:?}");
}

#[test]
fn the_one_that_is_refused_is_named() {
    let model = Model::new();
    let error = model.open().generate_many(&[apple(), apple().steps("base", 0)]).unwrap_err();
    let Error::OfMany { index: 1, source } = error else { panic!("{error}") };
    assert!(matches!(*source, Error::InvalidRequest { .. }));
}
