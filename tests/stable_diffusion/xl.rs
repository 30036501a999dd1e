//! SDXL, and its refiner as the expert for the lowest noise.

use ediffi::{Error, MicroConditioning, NoiseTable, Pipeline, Problem, Request, SigmaInterval, Tensor};

use super::folders::Folder;
use super::{PROMPT, difference, draw, off, recorded};

fn drawn(pipeline: &Pipeline, request: &Request, name: &str) -> f64 {
    let io = recorded();
    let embeddings = pipeline.encode(request).unwrap();
    off(&draw(pipeline, &embeddings, request, &io, name), &io[name])
}

fn plain(steps: usize) -> Request {
    Request::new(PROMPT).size(24, 16).steps("base", steps)
}

#[test]
fn two_encoders_and_sizes_draw_the_picture_of_diffusers() {
    let folder = Folder::base();
    let pipeline = folder.open();
    let micro = MicroConditioning {
        original_size: Some((32, 40)),
        crop: (4, 2),
        target_size: Some((28, 20)),
        ..MicroConditioning::default()
    };
    let told = drawn(&pipeline, &plain(6).negative_prompt("blur").micro(micro), "xl.base");
    // Without a negative prompt there are zeros in its place.
    let plain = drawn(&pipeline, &plain(6), "xl.base-plain");
    assert!(told < 0.25 && plain < 0.25, "{told} {plain}");
}

#[test]
fn base_and_refiner_draw_one_trajectory_as_in_diffusers() {
    let (base, refiner) = (Folder::base(), Folder::refiner());
    let interval = NoiseTable::ScaledLinear.after(0.6).unwrap();
    let pipeline = base.builder().expert(interval, refiner.path()).open().unwrap();
    let plan = pipeline.plan(&plain(10)).unwrap();
    let experts: Vec<usize> = plan[0].plan.steps().iter().map(|step| step.expert).collect();
    assert_eq!(experts, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
    let scores =
        MicroConditioning { aesthetic_score: 7.0, negative_aesthetic_score: 1.5, ..MicroConditioning::default() };
    let scored = drawn(&pipeline, &plain(10).negative_prompt("blur").micro(scores), "xl.pair");
    // The base leans away from zeros, the refiner from the empty text, each as its folder says.
    let plain = drawn(&pipeline, &plain(10), "xl.pair-plain");
    assert!(scored < 0.25 && plain < 0.25, "{scored} {plain}");
}

#[test]
fn embeddings_of_a_pair_are_kept_in_a_file() {
    let (base, refiner) = (Folder::base(), Folder::refiner());
    let interval = NoiseTable::ScaledLinear.after(0.6).unwrap();
    let pipeline = base.builder().expert(interval, refiner.path()).open().unwrap();
    let embeddings = pipeline.encode(&plain(3)).unwrap();
    let file = base.path().join("apple.safetensors");
    embeddings.save(&file).unwrap();
    let read = ediffi::Embeddings::load(&file).unwrap();
    for (found, expected) in
        [(read.conditioning(), embeddings.conditioning()), (read.unconditional(), embeddings.unconditional())]
    {
        let pair =
            |x: &ediffi::Conditioning| [&x.clip_text, &x.clip_text_pooled].map(|x| x.as_ref().unwrap().shallow_clone());
        for (found, expected) in pair(&found).iter().zip(&pair(&expected)) {
            assert_eq!(difference(found, expected), 0.0);
        }
    }
    let picture =
        |embeddings| -> Tensor { pipeline.sample(embeddings, &plain(3)).unwrap().images[0].tensor().unwrap() };
    assert_eq!(difference(&picture(&read), &picture(&embeddings)), 0.0);
}

#[test]
fn what_is_no_base_is_refused() {
    let (base, refiner, first) = (Folder::base(), Folder::refiner(), Folder::first());
    let message = refiner.refused();
    assert!(message.contains("SDXL's refiner") && message.contains("`PipelineBuilder::expert`"), "{message}");
    let interval = NoiseTable::ScaledLinear.after(0.8).unwrap();
    for (folder, expert) in [(&first, &refiner), (&first, &base), (&base, &first)] {
        let error = folder.builder().expert(interval, expert.path()).open().unwrap_err();
        assert!(matches!(&error, Error::Compose(reason) if reason.contains("another model of the family")), "{error}");
    }
    let problems = |pipeline: Pipeline, micro| match pipeline.validate(&plain(3).micro(micro)) {
        Err(Error::InvalidRequest { problems }) => problems,
        other => panic!("{other:?}"),
    };
    let found = problems(first.open(), MicroConditioning::default());
    assert!(matches!(found[..], [Problem::Micro(reason)] if reason.contains("no network")), "{found:?}");
    let scores = MicroConditioning { aesthetic_score: f64::NAN, ..MicroConditioning::default() };
    assert!(matches!(problems(base.open(), scores)[..], [Problem::Micro(_)]));
    // It is finite as f64 alone.
    let scores = MicroConditioning { aesthetic_score: 1e300, ..MicroConditioning::default() };
    let pair = base.builder().expert(interval, refiner.path()).open().unwrap();
    let found = problems(pair, scores);
    assert!(matches!(found[..], [Problem::Micro(reason)] if reason.contains("from -100 to 100")), "{found:?}");
    let scores = MicroConditioning { negative_aesthetic_score: 1.0, ..MicroConditioning::default() };
    let found = problems(base.open(), scores);
    assert!(matches!(found[..], [Problem::Micro(reason)] if reason.contains("refiner")), "{found:?}");
    base.open().validate(&plain(3).micro(MicroConditioning::default())).unwrap();
    // A base whose second encoder is missing.
    std::fs::remove_dir_all(base.path().join("text_encoder_2")).unwrap();
    assert!(base.refused().contains("text_encoder_2/config.json"), "{}", base.refused());
}

/// Both signs are one token of the first encoder, and two of the second, which pads with them.
#[test]
fn a_prompt_is_too_long_if_it_is_for_one_encoder() {
    let base = Folder::base();
    base.replace("tokenizer/tokenizer.json", "\"z</w>\": 52", "\"!!</w>\": 52");
    base.replace("tokenizer/tokenizer.json", "\"merges\": [", "\"merges\": [[\"!\", \"!</w>\"],");
    let pipeline = base.open();
    pipeline.validate(&Request::new("!! ".repeat(30))).unwrap();
    match pipeline.validate(&Request::new("!! ".repeat(50))) {
        Err(Error::InvalidRequest { problems }) => {
            assert!(matches!(&problems[..], [Problem::TooLong { encoder: "CLIP", .. }]), "{problems:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn refiners_share_what_no_prompt_means() {
    let (base, first, second) = (Folder::base(), Folder::refiner(), Folder::refiner());
    let low = NoiseTable::ScaledLinear.below(200).unwrap();
    let lower = NoiseTable::ScaledLinear.below(100).unwrap();
    let middle = SigmaInterval::new(lower.high(), low.high()).unwrap();
    let open = || base.builder().expert(middle, first.path()).expert(lower, second.path()).open();
    open().unwrap();
    let zeros = "\"force_zeros_for_empty_prompt\": ";
    second.replace("model_index.json", &format!("{zeros}false"), &format!("{zeros}true"));
    match open() {
        Err(Error::Compose(reason)) => assert!(reason.contains("force_zeros_for_empty_prompt"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
