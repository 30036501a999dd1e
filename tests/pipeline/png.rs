//! Pictures that hold their request.

use ediffi::{Canvas, Region, Request};

use crate::model::{Model, apple, bytes, style};

#[test]
fn the_request_read_from_a_picture_gives_the_same_bytes() {
    let model = Model::new();
    let pipeline = model.open();
    let canvas = Canvas::new([Region::rectangle("red apple", (8, 8), 0..4, 0..8).unwrap()]).unwrap();
    let requests = [
        apple(),
        apple()
            .negative_prompt("blur")
            .style_with_strength(style(99), 0.7)
            .canvas(canvas)
            .guidance("base", 4.3)
            .steps("sr", 3)
            .size(32, 16),
    ];
    let folder = tempfile::tempdir().unwrap();
    for request in requests {
        let path = folder.path().join("picture.png");
        pipeline.generate(&request).unwrap().images[0].save(&path).unwrap();
        let read = Request::from_png(&path).unwrap();
        assert_eq!(read, request);
        let again = pipeline.generate(&read).unwrap();
        assert_eq!(bytes(&again), [std::fs::read(&path).unwrap()]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn each_image_of_many_holds_a_request_of_its_own() {
    // One at a time, so that no rounding stands between the many and the one.
    let model = Model::new();
    let pipeline = model.builder().batch(1).open().unwrap();
    let many = pipeline.generate(&apple().images(3)).unwrap();
    for (k, png) in bytes(&many).into_iter().enumerate() {
        let request = Request::from_png_bytes(&png).unwrap();
        assert_eq!(request, apple().seed(7 + k as u64));
        assert_eq!(bytes(&pipeline.generate(&request).unwrap()), [png]);
    }
}
