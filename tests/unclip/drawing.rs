//! What a model of unCLIP does like any other.

use std::ops::ControlFlow;

use ediffi::{
    Canvas, Edit, EditPicture, Error, Event, Generation, Mix, Pipeline, Problem, Region, Request, Residency, RgbImage,
    SigmaInterval, Strength, Tiling,
};

use super::folders::Folder;
use super::{PROMPT, reference};

fn bytes(generation: &Generation) -> Vec<u8> {
    generation.images.iter().flat_map(|image| image.rgb().as_raw().clone()).collect()
}

fn request() -> Request {
    request_of(PROMPT)
}

fn request_of(prompt: &str) -> Request {
    Request::new(prompt).seed(3).steps("prior", 3).steps("base", 4).steps("sr-16", 3)
}

fn picture(pipeline: &Pipeline, request: &Request) -> Vec<u8> {
    bytes(&pipeline.generate(request).unwrap())
}

fn problems(pipeline: &Pipeline, request: &Request) -> Vec<Problem> {
    match pipeline.validate(request) {
        Err(Error::InvalidRequest { problems }) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_seed_does_not_depend_on_its_batch() {
    let folder = Folder::text();
    let request = request().images(3);
    let all = folder.builder().batch(1).residency(Residency::All).open().unwrap();
    let relay = folder.builder().batch(1).open().unwrap();
    let pictures = picture(&all, &request);
    assert_eq!(picture(&relay, &request), pictures);
    assert_eq!(picture(&relay, &request), pictures, "a second time, when everything was dropped");
    let second = picture(&relay, &self::request().seed(4));
    assert_eq!(second, pictures[second.len()..2 * second.len()]);
    // Together, to rounding.
    let together = picture(&folder.builder().batch(3).open().unwrap(), &request);
    let most = together.iter().zip(&pictures).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(most <= 1, "{most}");
    // Requests that are drawn alike share their batches, each with its own embedding.
    let requests = [self::request(), request_of("a cat")];
    let many = relay.generate_many(&requests).unwrap();
    for (request, generation) in requests.iter().zip(&many) {
        assert_eq!(picture(&relay, request), bytes(generation));
    }
    assert_ne!(bytes(&many[0]), bytes(&many[1]));
}

#[test]
fn the_prior_is_a_stage_before_the_others() {
    let folder = Folder::text();
    let pipeline = folder.open();
    let mut seen = Vec::new();
    let mut watch = |event: &Event<'_>| {
        match event {
            Event::StageStarted { stage, index, stages, width, .. } => {
                seen.push(format!("{stage} {index}/{stages} {width}"));
            }
            Event::Step { stage, preview, .. } if *stage == "prior" => assert!(preview.images().is_empty()),
            Event::Step { preview, .. } => assert!(preview.rgb(0).unwrap().is_some()),
            _ => {}
        }
        ControlFlow::Continue(())
    };
    let plain = bytes(&pipeline.generate_with(&request(), &mut watch).unwrap());
    assert_eq!(seen, ["prior 0/3 1", "base 1/3 8", "sr-16 2/3 16"]);
    let changed = |request: Request| picture(&pipeline, &request) != plain;
    assert!(changed(request().steps("prior", 4)));
    assert!(changed(request().guidance("prior", 1.0)));
    assert!(changed(request().negative_prompt("blur")));
    assert!(changed(request().stage_prompt("base", "a cat")));
    assert!(changed(request().mix(Mix::new("a cat").share(0.5))));
    assert!(changed(request().near(9, 0.5)) && !changed(request().near(3, 0.0)));
    assert_eq!(pipeline.plan(&Request::new(PROMPT)).unwrap()[0].plan.steps().len(), 25);
    let defaults = pipeline.plan(&Request::new(PROMPT)).unwrap();
    let settings = defaults.iter().map(|plan| (plan.settings.steps, plan.settings.guidance.scale));
    assert_eq!(settings.collect::<Vec<_>>(), [(25, 4.0), (25, 8.0), (7, 1.0)]);
}

#[test]
fn what_makes_no_embedding_is_refused() {
    let folder = Folder::text();
    let pipeline = folder.open();
    let found = problems(&pipeline, &request().tiling("prior", Tiling { tile: 8, overlap: 2 }));
    assert!(matches!(&found[..], [Problem::Setting { stage, setting: "tiling", .. }] if stage == "prior"), "{found:?}");
    let found = problems(&pipeline, &request().steps("prior", 1));
    assert!(matches!(&found[..], [Problem::Setting { reason, .. }] if reason.contains("two steps")), "{found:?}");
    let found = problems(&pipeline, &request().steps("prior", 1001));
    assert!(matches!(&found[..], [Problem::Limit { name: "steps", .. }]), "{found:?}");
    let found = problems(&pipeline, &request().steps("piror", 9));
    assert!(
        matches!(&found[..], [Problem::UnknownStage { stages, .. }] if stages == &["prior", "base", "sr-16"]),
        "{found:?}"
    );
    // To enlarge a picture, no embedding is drawn.
    let given = EditPicture::new(&RgbImage::from_pixel(8, 8, image::Rgb([200, 100, 50]))).unwrap();
    let enlarged = Request::new(PROMPT).first_stage("sr-16").edit(Edit::new(given)).steps("sr-16", 3);
    let found = problems(&pipeline, &enlarged.clone().steps("prior", 9));
    assert!(matches!(&found[..], [Problem::StageDoesNotRun { stage, .. }] if stage == "prior"), "{found:?}");
    assert_eq!(pipeline.generate(&enlarged).unwrap().stages.len(), 1);
    // The folder sees no pictures.
    let found = problems(&pipeline, &request().style(reference()));
    assert!(found.iter().any(|problem| matches!(problem, Problem::Style(_))), "{found:?}");
}

#[test]
fn variations_are_of_a_picture() {
    let folder = Folder::variations();
    let pipeline = folder.open();
    let request = || Request::unconditional().seed(3).steps("base", 4).steps("sr-16", 3);
    assert_eq!(problems(&pipeline, &request()), [Problem::NoPicture]);
    let found = problems(&pipeline, &self::request().style(reference()));
    assert!(matches!(&found[..], [Problem::UnknownStage { name, .. }] if name == "prior"), "{found:?}");
    let varied = picture(&pipeline, &request().style(reference()));
    assert_ne!(picture(&pipeline, &request().seed(4).style(reference())), varied);
    assert_ne!(picture(&pipeline, &request().style_with_strength(reference(), 0.5)), varied);
    // An embedding of it draws the same, and that of another CLIP is refused.
    let embedding = pipeline.encode_style(reference()).unwrap();
    assert_eq!(picture(&pipeline, &request().style(embedding.clone())), varied);
    let other = Folder::variations();
    other.change("text_encoder", |_, x| Some(x * 1.5));
    let found = problems(&other.open(), &request().style(embedding));
    assert!(matches!(&found[..], [Problem::StyleOfAnother { .. }]), "{found:?}");
    // Words beside it.
    let mut worded = request().style(reference());
    (worded.prompt, worded.unconditional) = (PROMPT.to_owned(), false);
    assert_ne!(picture(&pipeline, &worded), varied);
    // Embeddings without a picture are none of this model's.
    let embeddings = Folder::text().open().encode(&Request::new(PROMPT)).unwrap();
    let sampled = pipeline.sample(&embeddings, &embeddings.request());
    assert!(matches!(&sampled, Err(Error::InvalidRequest { problems }) if *problems == [Problem::NoPicture]));
}

#[test]
fn paint_acts_on_the_words() {
    let folder = Folder::text();
    let pipeline = folder.open();
    let painted = |weight| {
        let region = Region::rectangle("red apple", (8, 8), 0..4, 0..8).unwrap();
        let canvas = Canvas::new([region]).unwrap().with_strength(Strength::new(weight)).unwrap();
        picture(&pipeline, &request().canvas(canvas))
    };
    let plain = picture(&pipeline, &request());
    assert_eq!(painted(0.0), plain);
    assert_ne!(painted(1.0), plain);
}

#[test]
fn folders_are_experts_by_noise_level() {
    let (folder, other) = (Folder::text(), Folder::text());
    let above = SigmaInterval::new(1.0, f64::INFINITY).unwrap();
    let alone = picture(&folder.open(), &request());
    let pair = || folder.builder().expert(above, other.path()).open().unwrap();
    assert_eq!(picture(&pair(), &request()), alone);
    let plan = pair().plan(&request()).unwrap();
    assert_eq!(plan[1].plan.experts().collect::<Vec<_>>(), [0, 1]);
    // What each reads goes with it.
    other.change("text_proj", |_, x| Some(x * 0.5));
    assert_ne!(picture(&pair(), &request()), alone);
    other.replace("text_encoder/config.json", "quick_gelu", "gelu");
    let refused = folder.builder().expert(above, other.path()).open().unwrap_err();
    assert!(matches!(&refused, Error::Compose(reason) if reason.contains("text encoder")), "{refused}");
}

#[test]
fn a_picture_tells_what_drew_it() {
    let folder = Folder::text();
    let pipeline = folder.open();
    let generation = pipeline.generate(&request()).unwrap();
    let png = generation.images[0].to_png().unwrap();
    let again = Request::from_png_bytes(&png).unwrap();
    assert_eq!(picture(&pipeline, &again), bytes(&generation));
    assert!(generation.images[0].plan().starts_with("stage prior (embeddings of 8)"));
    let made = ediffi::Provenance::from_png_bytes(&png).unwrap();
    assert_eq!(made.differences(&pipeline.provenance(&again).unwrap()), Vec::<String>::new());
    for (part, stage) in [("prior", "prior"), ("text_proj", "base"), ("super_res_last", "sr-16")] {
        let folder = Folder::text();
        folder.change(part, |_, x| Some(x * 1.5));
        let found = made.differences(&folder.open().provenance(&again).unwrap());
        assert!(found.len() == 1 && found[0].starts_with(&format!("model, stage `{stage}`")), "{found:?}");
    }
}

/// Stops at the question of this number.
struct Stop(usize);

impl ediffi::Observer for Stop {
    fn event(&mut self, _: &Event<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn cancelled(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 == 0
    }
}

#[test]
fn an_observer_stops_the_prior() {
    let folder = Folder::text();
    let pipeline = folder.builder().recent_texts(0).open().unwrap();
    // The encoder is asked once; the prior before it is loaded, and before each of 3 evaluations.
    for question in 1..=5 {
        let stopped = pipeline.generate_with(&request(), &mut Stop(question));
        assert!(matches!(stopped, Err(Error::Cancelled)), "{question}");
    }
    assert!(pipeline.generate(&request()).is_ok());
}

/// A broken prior is named, and nothing of a new folder is loaded into an old pipeline.
#[test]
fn what_goes_wrong_in_the_prior_is_named() {
    let folder = Folder::text();
    folder.change("prior", |name, x| Some(if name == "clip_std" { x } else { x * 1e30 }));
    let said = format!("{:?}", folder.open().generate(&request()).unwrap_err());
    assert!(said.contains("NotFinite") && said.contains("prior"), "{said}");
    let folder = Folder::text();
    folder.change("prior", |name, x| Some(x).filter(|_| name != "prd_embedding"));
    let said = folder.open().generate(&request()).unwrap_err().to_string();
    assert!(said.contains("prd_embedding"), "{said}");
}
