//! Editing through the public API: image to image, inpainting, enlarging.

use ediffi::{Canvas, Churn, Edit, EditPicture, Error, Margins, Problem, Region, Request, Schedule, Solver};
use image::{GrayImage, Luma, Rgb, RgbImage};

use crate::model::{Model, apple, bytes, distance, tensor};

/// What the tiny model draws is 16 pixels wide.
fn picture(width: u32, height: u32) -> EditPicture {
    EditPicture::new(&pixels(width, height)).unwrap()
}

fn pixels(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(16 * x) as u8, (16 * y) as u8, (x * y) as u8]))
}

/// White in the left half.
fn left(width: u32, height: u32) -> EditPicture {
    let mask = GrayImage::from_fn(width, height, |x, _| Luma([if x < width / 2 { 255 } else { 0 }]));
    let mut png = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut png, image::ImageFormat::Png).unwrap();
    EditPicture::from_bytes(png.into_inner()).unwrap()
}

/// Words where the mask is white.
fn painted(words: &str) -> Canvas {
    Canvas::new([Region::rectangle(words, (8, 8), 0..4, 0..8).unwrap()]).unwrap()
}

fn churning() -> Solver {
    Solver::Heun(Churn { s_churn: 4.0, ..Churn::NONE })
}

fn problems(result: Result<impl Sized, Error>) -> Vec<String> {
    match result.map(drop) {
        Err(Error::InvalidRequest { problems }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_edit_replays_from_its_png() {
    let model = Model::new();
    let pipeline = model.open();
    let edit = Edit::new(picture(16, 16));
    let requests = [
        apple().edit(edit.clone()),
        apple().edit(edit.clone().strength(0.25)),
        apple().edit(edit.clone().mask(left(16, 16)).strength(0.75)),
        apple().edit(edit.clone().mask(left(16, 16)).strength(0.75).jumps(1, 2)),
        apple().edit(edit.clone().mask(left(16, 16)).strength(0.75)).canvas(painted("red apple")),
        apple().edit(Edit::outpaint(&picture(8, 16), Margins { right: 8, ..Margins::default() }).unwrap()),
        Request::unconditional().first_stage("sr").edit(edit),
    ];
    let mut drawn: Vec<Vec<u8>> = Vec::new();
    for request in requests {
        let image = pipeline.generate(&request).unwrap().images.remove(0);
        let png = image.to_png().unwrap();
        let read = Request::from_png_bytes(&png).unwrap();
        assert_eq!(read, request);
        assert_eq!(bytes(&pipeline.generate(&read).unwrap()), [png]);
        drawn.push(image.rgb().as_raw().clone());
    }
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), 7);
}

/// Words that are painted change what is drawn, and nothing of what stays.
#[test]
fn what_is_black_in_the_mask_is_the_given_picture() {
    let (model, given) = (Model::new(), pixels(16, 16));
    let pipeline = model.open();
    let request = apple().edit(Edit::new(picture(16, 16)).mask(left(16, 16)));
    let drawn = [request.clone(), request.clone().canvas(painted("red apple"))]
        .map(|request| pipeline.generate(&request).unwrap().images.remove(0));
    for drawn in drawn.iter().map(ediffi::GeneratedImage::rgb) {
        assert!((8..16).all(|x| (0..16).all(|y| drawn.get_pixel(x, y) == given.get_pixel(x, y))));
        assert!((0..8).any(|x| (0..16).any(|y| drawn.get_pixel(x, y) != given.get_pixel(x, y))));
    }
    assert_ne!(drawn[0].rgb(), drawn[1].rgb());
    // The same for all images of a request, whatever batch they are in.
    let two = model.builder().batch(1).open().unwrap().generate(&request.images(2)).unwrap();
    assert!(two.images.iter().all(|image| image.rgb().get_pixel(12, 3) == given.get_pixel(12, 3)));
    assert_ne!(two.images[0].rgb(), two.images[1].rgb());
}

/// Without a jump nothing changes, and outside of the mask nothing ever does.
#[test]
fn jumps_go_back_in_the_first_stage() {
    let (model, given) = (Model::new(), pixels(16, 16));
    let pipeline = model.open();
    let edit = || Edit::new(picture(16, 16)).mask(left(16, 16));
    let drawn = |edit: Edit| pipeline.generate(&apple().edit(edit)).unwrap();
    let (plain, never, twice) = (drawn(edit()), drawn(edit().jumps(2, 0)), drawn(edit().jumps(2, 2)));
    assert_eq!(never.images[0].rgb(), plain.images[0].rgb());
    assert_ne!(twice.images[0].rgb(), plain.images[0].rgb());
    // 4 steps: back from the last but one, twice two steps.
    let steps = |generation: &ediffi::Generation, stage: usize| generation.stages[stage].plan.plan.steps().len();
    assert_eq!((steps(&plain, 0), steps(&twice, 0), steps(&plain, 1), steps(&twice, 1)), (4, 8, 2, 2));
    let rgb = twice.images[0].rgb();
    assert!((8..16).all(|x| (0..16).all(|y| rgb.get_pixel(x, y) == given.get_pixel(x, y))));
}

/// What counts are the steps that are made: those of a schedule that ends above 0 are one more, and a strength leaves some out.
#[test]
fn the_steps_that_jumps_make_are_counted() {
    let model = Model::new();
    let pipeline = model.open();
    let edit = |length, count| Edit::new(picture(16, 16)).mask(left(16, 16)).jumps(length, count);
    let deis = |edit| apple().edit(edit).schedule("base", Schedule::Deis { min: 0.02, max: 20.0, order: 6.0 });
    let custom = |edit| apple().edit(edit).schedule("base", Schedule::Custom(vec![4.0, 2.0, 1.0]));
    for (request, steps) in [
        (deis(edit(4, 1)), 9),
        (custom(edit(2, 1)), 5),
        (apple().edit(edit(1, 997).strength(0.5)), 999),
        (apple().edit(edit(99, 0)), 4),
        (apple().edit(edit(1, 0)).solver("base", churning()), 4),
        (apple().edit(Edit::new(picture(16, 16)).strength(1.0).jumps(1, 0)), 4),
    ] {
        assert_eq!(pipeline.plan(&request).unwrap()[0].plan.steps().len(), steps);
    }
    for (request, culprit) in [
        (deis(edit(5, 1)), "5 steps, and only 5 are made"),
        (custom(edit(3, 1)), "3 steps, and only 3 are made"),
        (deis(edit(1, 249)), "edit, steps with its jumps: 1001"),
        (apple().edit(edit(1, 999).strength(0.5)), "edit, steps with its jumps: 1001"),
    ] {
        let found = problems(pipeline.validate(&request));
        assert!(found.len() == 1 && found[0].contains(culprit), "{culprit}: {found:?}");
    }
    // What the model itself has as steps is not the request's doing.
    let strict = model.builder().limits(ediffi::Limits { steps: 3, ..ediffi::Limits::default() }).open().unwrap();
    strict.validate(&apple().edit(edit(1, 0))).unwrap();
    assert!(problems(strict.validate(&apple().edit(edit(1, 1))))[0].contains("jumps: 7"));
}

#[test]
fn outpainting_keeps_the_picture_in_its_margins() {
    let model = Model::new();
    let pipeline = model.open();
    let margins = Margins { left: 4, right: 4, ..Margins::default() };
    let request = apple().edit(Edit::outpaint(&picture(8, 16), margins).unwrap());
    let drawn = pipeline.generate(&request).unwrap();
    let (rgb, given) = (drawn.images[0].rgb(), pixels(8, 16));
    assert_eq!(rgb.dimensions(), (16, 16));
    // A pixel at each side is the seam.
    assert!((1..7).all(|x| (0..16).all(|y| rgb.get_pixel(x + 4, y) == given.get_pixel(x, y))));
    assert!((0..16).any(|y| rgb.get_pixel(0, y) != given.get_pixel(0, y)));
}

/// The tiny model draws multiples of 4, with a shorter side of 16.
#[test]
fn margins_are_widened_so_that_the_proportions_stay() {
    let model = Model::new();
    let pipeline = model.open();
    let right = |right| Margins { right, ..Margins::default() };
    let widened = |request: &Request, margins| pipeline.margins(request, &picture(16, 16), margins);
    assert_eq!(widened(&apple(), right(3)), right(4));
    assert_eq!(widened(&apple().size(32, 16), right(3)), right(16));
    assert_eq!(widened(&apple().last_stage("base"), right(3)), right(4));
    let canvas = Edit::outpaint(&picture(16, 16), widened(&apple(), right(3))).unwrap();
    let drawn = pipeline.generate(&apple().edit(canvas)).unwrap();
    let (rgb, given) = (drawn.images[0].rgb(), pixels(16, 16));
    assert_eq!(rgb.dimensions(), (20, 16));
    assert!((0..15).all(|x| (0..16).all(|y| rgb.get_pixel(x, y) == given.get_pixel(x, y))));
}

#[test]
fn strength_0_is_the_picture_as_later_stages_see_it() {
    let model = Model::new();
    let pipeline = model.open();
    let base = |strength| apple().last_stage("base").edit(Edit::new(picture(8, 8)).strength(strength));
    let untouched = pipeline.generate(&base(0.0)).unwrap();
    assert_eq!(*untouched.images[0].rgb(), pixels(8, 8));
    assert_eq!(untouched.stages[0].plan.plan.steps().len(), 0);
    let far: Vec<f64> = [0.25, 0.5, 1.0]
        .into_iter()
        .map(|strength| distance(&tensor(&pipeline, &base(strength)), &tensor(&pipeline, &base(0.0))))
        .collect();
    assert!(far[0] > 1e-4 && far[0] < far[2], "{far:?}");
}

/// Enlarging is the stage of super-resolution on the picture that it is given.
#[test]
fn a_stage_of_super_resolution_enlarges_the_picture() {
    let model = Model::new();
    let pipeline = model.open();
    let whole = pipeline.generate(&apple()).unwrap();
    let small = pipeline.generate(&apple().last_stage("base")).unwrap();
    let small = EditPicture::new(small.images[0].rgb()).unwrap();
    let enlarged = pipeline.generate(&apple().first_stage("sr").edit(Edit::new(small))).unwrap();
    assert_eq!(enlarged.images[0].rgb().dimensions(), (16, 16));
    // The picture went through eight bits on the way.
    let far = |a: &RgbImage, b: &RgbImage| a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(far(enlarged.images[0].rgb(), whole.images[0].rgb()) <= Some(12));
    assert_eq!(enlarged.stages.len(), 1);
}

#[test]
fn without_a_size_the_proportions_stay() {
    let model = Model::new();
    let pipeline = model.open();
    // 30x20: the shorter side becomes 16, the other the nearest multiple of 4 to 24.
    let request = apple().edit(Edit::new(picture(30, 20)));
    assert_eq!(pipeline.generate(&request).unwrap().images[0].rgb().dimensions(), (24, 16));
    let error = problems(pipeline.plan(&request.clone().size(16, 16)));
    assert!(error.iter().any(|problem| problem.contains("30x20") && problem.contains("stretched")), "{error:?}");
    assert!(pipeline.plan(&request.size(48, 32)).is_ok());
}

#[test]
fn what_does_not_fit_is_named() {
    let model = Model::new();
    let pipeline = model.open();
    let edit = Edit::new(picture(16, 16));
    for (request, culprit) in [
        (apple().edit(edit.clone().strength(1.5)), "strength is 1.5"),
        (apple().edit(edit.clone().strength(f64::NAN)), "strength is NaN"),
        (apple().edit(edit.clone().mask(left(8, 16))), "mask has 8x16"),
        (apple().edit(edit.clone().jumps(1, 1)), "there are jumps, but no mask"),
        (apple().edit(edit.clone().mask(left(16, 16)).jumps(0, 1)), "the jumps have no length"),
        (apple().edit(edit.clone().mask(left(16, 16)).jumps(2, 1).strength(0.5)), "2 steps, and only 2 are made"),
        (apple().first_stage("sr").edit(edit.clone().jumps(1, 1)), "there are jumps, but stage `sr` is the first"),
        (
            apple().edit(edit.clone().mask(left(16, 16)).jumps(1, 1)).solver("base", churning()),
            "a solver of stage `base` churns",
        ),
        (
            apple().edit(edit.clone().mask(left(16, 16)).jumps(1, 1)).expert_solver("base", 1, churning()),
            "a solver of stage `base` churns",
        ),
        (apple().edit(edit.clone().mask(left(16, 16)).jumps(1, 400)), "edit, steps with its jumps: 1204"),
        (apple().first_stage("sr"), "stage `sr` is the first and enlarges a picture, but there is none"),
        (
            Request::unconditional().first_stage("sr").edit(Edit::new(picture(51, 30))),
            "would draw 28x16 pixels, fewer than the picture's 51x30: set a size of 52x30 at least",
        ),
        (apple().first_stage("sr").edit(edit.clone().strength(0.5)), "there is a strength"),
        (apple().first_stage("sr").edit(edit.clone().mask(left(16, 16))), "there is a mask"),
        (apple().first_stage("top"), "first stage: there is no stage `top`"),
        (
            apple().first_stage("sr").last_stage("base").edit(edit.clone()),
            "`sr` is the first stage to run, but comes after `base`",
        ),
        (apple().first_stage("sr").edit(edit.clone()).steps("base", 3), "stage `base` has settings"),
    ] {
        let found = problems(pipeline.validate(&request));
        assert!(found.iter().any(|problem| problem.contains(culprit)), "{culprit}: {found:?}");
    }
    let limits = ediffi::Limits { edit_pixels: 255, ..ediffi::Limits::default() };
    let strict = model.builder().limits(limits).open().unwrap();
    let Err(Error::InvalidRequest { problems }) = strict.generate(&apple().edit(edit)) else { panic!("refused") };
    assert!(
        matches!(problems.as_slice(), [Problem::Limit { value: 256, limit: 255, name: "edit_pixels", .. }]),
        "{problems:?}"
    );
}
