//! Published folders of DeepFloyd IF: whole pipelines beside diffusers', ensembles of folders, and what is wrong with a
//! folder. The models are tiny and random; see `ediffi-core/tests/fixtures/deepfloyd`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod by_hand;
mod edit;
mod folders;
mod keys;
mod replaced;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use ediffi::{
    DeviceChoice, Enlarger, Error, Generation, Kind, Mix, NoiseSource, Pipeline, PipelineBuilder, Precision, Preset,
    Problem, Request, Runtime, Schedule, SigmaInterval, Solver, Tensor, Variance,
};
use folders::{change_weights, copy};

type Tensors = BTreeMap<String, Tensor>;

const PROMPT: &str = "a red apple left of a cat";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ediffi-core/tests/fixtures/deepfloyd").join(name)
}

fn recorded() -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipeline.safetensors");
    let packed = std::fs::File::open(fixture("pipeline.safetensors.gz")).unwrap();
    let mut file = std::fs::File::create(&path).unwrap();
    std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut file).unwrap();
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn builder(folder: &Path) -> PipelineBuilder {
    Pipeline::builder(folder).device(DeviceChoice::Cpu).precision(Precision::F32).keep_floats(true)
}

fn base() -> PipelineBuilder {
    builder(&fixture("stage-1"))
}

fn cascade() -> Pipeline {
    base().stage(fixture("stage-2")).open().unwrap()
}

/// Noise that was recorded, in the order in which it was drawn.
struct Recorded(VecDeque<Tensor>);

impl NoiseSource for Recorded {
    fn normal(&mut self, shape: &[i64]) -> ediffi_core::Result<Tensor> {
        let noise = self.0.pop_front().unwrap();
        assert_eq!(noise.size(), shape);
        Ok(noise)
    }
}

fn noise(io: &Tensors, stage: &str) -> Box<dyn NoiseSource> {
    let part = if stage == "base" { "stage_1" } else { "stage_2" };
    let noises = (0..).map_while(|i| io.get(&format!("{part}.noise_{i}")).map(Tensor::shallow_clone));
    Box::new(Recorded(noises.collect()))
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max()).unwrap()
}

fn bytes(generation: &Generation) -> Vec<u8> {
    generation.images[0].rgb().as_raw().clone()
}

/// Pixels of 0 to 255 against a picture in [-1, 1].
fn worst_pixel(generation: &Generation, expected: &Tensor) -> f64 {
    let expected = ((expected + 1.0) * 127.5).clamp(0.0, 255.0).squeeze_dim(0).permute([1, 2, 0]);
    let pixels = Tensor::from_slice(&bytes(generation)).to_kind(Kind::Float).reshape(expected.size());
    difference(&pixels, &expected)
}

#[test]
fn the_whole_pipeline_is_that_of_diffusers() {
    let io = recorded();
    let pipeline = cascade();
    let request = Request::new(PROMPT).negative_prompt("photos").size(48, 32).steps("base", 5).steps("sr-32", 4);
    let embeddings = pipeline.encode(&request).unwrap();
    assert!(difference(&embeddings.conditioning().t5.unwrap(), &io["prompt"]) < 1e-5);
    assert!(difference(&embeddings.unconditional().t5.unwrap(), &io["negative"]) < 1e-5);
    let run = |request: &Request| {
        pipeline.sample_from(&embeddings, request, &mut |stage, _| noise(&io, stage), &mut ()).unwrap()
    };
    // Half a step of rounding to pixels, and what f32 adds up to in the loops.
    let small = run(&embeddings.request().size(24, 16).steps("base", 5).last_stage("base"));
    assert!(worst_pixel(&small, &io["stage_1.picture"]) <= 1.0);
    let large = run(&request);
    assert_eq!(large.images[0].rgb().dimensions(), (48, 32));
    assert!(worst_pixel(&large, &io["stage_2.picture"]) <= 1.0);
    for (generation, name) in [(&small, "stage_1.picture"), (&large, "stage_2.picture")] {
        let found = difference(&generation.images[0].tensor().unwrap(), &io[name].squeeze_dim(0));
        assert!(found < 1e-3, "{name} is off by {found:.1e}");
    }
}

/// Without a negative prompt guidance leans away from the empty text, whose embedding is not zeros.
#[test]
fn nothing_is_the_empty_text() {
    let io = recorded();
    let pipeline = base().open().unwrap();
    let request = Request::new(PROMPT).size(24, 16).steps("base", 5);
    let embeddings = pipeline.encode(&request).unwrap();
    assert!(difference(&embeddings.unconditional().t5.unwrap(), &io["unconditional"]) < 1e-5);
    let drawn = pipeline.sample_from(&embeddings, &request, &mut |stage, _| noise(&io, stage), &mut ()).unwrap();
    assert!(worst_pixel(&drawn, &io["stage_1.picture_unconditional"]) <= 1.0);
    let nothing = pipeline.encode(&Request::unconditional()).unwrap();
    assert!(difference(&nothing.conditioning().t5.unwrap(), &io["unconditional"]) < 1e-5);
}

#[test]
fn captions_are_cleaned_unless_told_otherwise() {
    let dirty = Request::new("A Red <b>Apple</b>, cat.jpg").steps("base", 2);
    let t5 = |pipeline: Pipeline, request: &Request| pipeline.encode(request).unwrap().conditioning().t5.unwrap();
    let clean = t5(base().open().unwrap(), &Request::new("a red apple"));
    assert!(difference(&t5(base().open().unwrap(), &dirty), &clean) < 1e-6);
    assert!(difference(&t5(base().clean_captions(false).open().unwrap(), &dirty), &clean) > 1e-2);
    // The letters are small either way.
    let upper = Request::new("  A RED Apple");
    assert!(difference(&t5(base().clean_captions(false).open().unwrap(), &upper), &clean) < 1e-6);
}

/// Each of these made the picture of nothing in particular, and nothing was said.
#[test]
fn a_prompt_of_which_cleaning_leaves_nothing_is_empty() {
    let pipeline = base().open().unwrap();
    for prompt in ["一只猫", "IMG_1234.JPG", "@cat", "...", " "] {
        let error = pipeline.validate(&Request::new(prompt)).unwrap_err();
        let Error::InvalidRequest { problems } = error else { panic!("{error}") };
        assert_eq!(problems, [Problem::EmptyPrompt], "{prompt}");
    }
    // Nor may a prompt be that is mixed in, or that of a stage; a blank one of a stage is meant to be none.
    let own = || Request::new("a red apple");
    for (request, culprit) in [
        (own().mix(Mix::new("@cat").share(0.5)), "mix: of a prompt nothing is left"),
        (own().stage_prompt("base", "@cat"), "stage `base` has a prompt of its own, but nothing is left of it"),
        (
            own().stage_negative_prompt("base", "@cat"),
            "stage `base` has a prompt of its own, but nothing is left of it",
        ),
    ] {
        let error = pipeline.validate(&request).unwrap_err().to_string();
        assert!(error.contains(culprit), "{error}");
    }
    pipeline.validate(&own().stage_prompt("base", " ")).unwrap();
    base().clean_captions(false).open().unwrap().validate(&Request::new("@cat").truncate(true)).unwrap();
    pipeline.validate(&Request::unconditional()).unwrap();
}

#[test]
fn folders_are_experts_by_noise_level() {
    let above = SigmaInterval::new(1.0, f64::INFINITY).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let twin = folder.path().join("twin");
    copy(&fixture("stage-1"), &twin);
    let request = Request::new(PROMPT).seed(3).steps("base", 6);
    let alone = base().open().unwrap().generate(&request).unwrap();
    let pipeline = base().expert(above, &twin).open().unwrap();
    let plan = pipeline.plan(&request).unwrap()[0].plan.clone();
    let experts: Vec<usize> = plan.steps().iter().map(|step| step.expert).collect();
    // Timesteps 830, 664 and 498 are above sigma 1 but for the last, which has 1.007.
    assert_eq!(experts, [0, 0, 0, 1, 1, 1], "{plan}");
    assert_eq!(bytes(&pipeline.generate(&request).unwrap()), bytes(&alone));
    // Another network above: another picture, from the same noise.
    change_weights(&twin.join("unet/diffusion_pytorch_model.fp16.safetensors"), |name, x| match name {
        "conv_out.weight" => x * 0.5,
        _ => x.shallow_clone(),
    });
    let other = base().expert(above, &twin).open().unwrap().generate(&request).unwrap();
    assert_ne!(bytes(&other), bytes(&alone));
    // The same experts the other way round: which folder a pipeline is made for does not matter.
    let below = SigmaInterval::new(0.0, 1.0).unwrap();
    let swapped = builder(&twin).expert(below, fixture("stage-1")).open().unwrap();
    assert_eq!(bytes(&swapped.generate(&request).unwrap()), bytes(&other));
    // Overlaps are refused, and experts of another kind.
    let twice = base().expert(above, &twin).expert(SigmaInterval::new(2.0, 3.0).unwrap(), &twin).open().unwrap_err();
    assert!(twice.to_string().contains("overlap"), "{twice}");
    let wrong = base().expert(above, fixture("stage-2")).open().unwrap_err();
    assert!(wrong.to_string().contains("a stage of super-resolution"), "{wrong}");
}

#[test]
fn presets_and_other_solvers_draw() {
    let pipeline = base().open().unwrap();
    let preset = Request::new(PROMPT).schedule("base", Schedule::Preset(Preset::Fast27));
    assert_eq!(pipeline.plan(&preset).unwrap()[0].plan.steps().len(), 27);
    let karras = Schedule::Karras { min: 0.0064, max: 80.0, rho: 7.0 };
    let (small, embeddings) = ("ddpm-fixed-small".parse().unwrap(), pipeline.encode(&preset).unwrap());
    for (solver, schedule, steps) in [
        (Solver::Ddpm(Variance::Learned), Schedule::Preset(Preset::Fast27), 27),
        (Solver::DpmPp2M, karras, 8),
        (small, Schedule::Leading, 6),
        (Solver::Euler, Schedule::Leading, 6),
    ] {
        let request = Request::new(PROMPT).solver("base", solver).schedule("base", schedule.clone());
        let drawn = pipeline.generate(&request.steps("base", steps).seed(5)).unwrap().images[0].tensor().unwrap();
        let sigmas = schedule.sigmas(steps).unwrap();
        let expected = by_hand::draw(&pipeline, 0, &embeddings, (solver, &sigmas), 5, None);
        assert!(difference(&drawn, &expected) < 1e-5, "{solver}: {}", difference(&drawn, &expected));
    }
}

#[test]
fn sizes_go_from_one_to_three_either_way() {
    let pipeline = cascade();
    let quick = || Request::new(PROMPT).steps("base", 1).steps("sr-32", 1);
    for (width, height) in [(24, 72), (72, 24), (32, 32), (40, 24)] {
        let generation = pipeline.generate(&quick().size(width, height)).unwrap();
        assert_eq!(generation.images[0].rgb().dimensions(), (width, height));
    }
    let Error::InvalidRequest { problems } = pipeline.generate(&quick().size(42, 32)).unwrap_err() else { panic!() };
    assert!(matches!(problems[..], [Problem::Size { value: 42, unit: 4, .. }]), "{problems:?}");
    assert!(problems[0].to_string().contains("the nearest are 40 and 44"), "{}", problems[0]);
}

/// The same seed gives the same picture, alone or in a batch.
#[test]
fn pictures_do_not_depend_on_their_batch() {
    let pipeline = cascade();
    let request = || Request::new(PROMPT).steps("base", 3).steps("sr-32", 2);
    let batch = pipeline.generate(&request().seed(8).images(3)).unwrap();
    let alone = pipeline.generate(&request().seed(9)).unwrap();
    let [a, b] = [batch.images[1].rgb().as_raw(), alone.images[0].rgb().as_raw()];
    let worst = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 1, "{worst}");
}

#[test]
fn the_noise_in_the_smaller_picture_can_be_set() {
    let request = Request::new(PROMPT).steps("base", 1).steps("sr-32", 2);
    let open = |level: Option<usize>| {
        let builder = base().stage(fixture("stage-2"));
        level.map_or(builder.clone(), |level| builder.noise_level(level)).open()
    };
    let sigmas = Schedule::Leading.sigmas(2).unwrap();
    for (given, level) in [(None, 250), (Some(250), 250), (Some(100), 100)] {
        let pipeline = open(given).unwrap();
        assert_eq!(pipeline.manifest().stages[1].low_res.noise_level, Some(level));
        let picture = |request: &Request| pipeline.generate(request).unwrap().images[0].tensor().unwrap();
        let small = picture(&Request::new(PROMPT).steps("base", 1).last_stage("base")).unsqueeze(0);
        let embeddings = pipeline.encode(&request).unwrap();
        let rule = (Solver::Ddpm(Variance::Learned), &sigmas[..]);
        let expected = by_hand::draw(&pipeline, 1, &embeddings, rule, 0, Some((&small, level)));
        let off = difference(&picture(&request), &expected);
        assert!(off < 1e-5, "{given:?}: {off}");
    }
    let error = open(Some(1000)).unwrap_err().to_string();
    assert!(error.contains("noise_level 1000 is no timestep"), "{error}");
}

/// A plain network makes the finished picture larger, and only that.
#[test]
fn an_enlarger_comes_last() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("ediffi-cascade/tests/fixtures/enlarger/compact.safetensors");
    let request = Request::new(PROMPT).steps("base", 1).steps("sr-32", 1).size(48, 32);
    let picture = |pipeline: Pipeline| pipeline.generate(&request).unwrap().images[0].tensor().unwrap().unsqueeze(0);
    let small = picture(cascade());
    let large = picture(base().stage(fixture("stage-2")).enlarger(&file).open().unwrap());
    assert_eq!((small.size(), large.size()), (vec![1, 3, 32, 48], vec![1, 3, 128, 192]));
    let runtime = Runtime::new(DeviceChoice::Cpu, Precision::F32).unwrap();
    assert_eq!(difference(&large, &Enlarger::open(&file, runtime).unwrap().enlarge(&small).unwrap()), 0.0);
    let none = base().enlarger(fixture("ddpm.safetensors")).open().unwrap_err();
    assert!(none.to_string().contains("neither an SRVGGNetCompact nor an RRDBNet"), "{none}");
}

/// Whoever sets an option expects something of it.
#[test]
fn options_that_do_nothing_are_refused() {
    let idle = |builder: PipelineBuilder| match builder.open() {
        Err(Error::IdleOption { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    let own = || builder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/icons"));
    assert!(own().open().is_ok(), "defaults were not set by anybody");
    assert_eq!(idle(own().noise_level(250)), "noise_level");
    assert_eq!(idle(own().clean_captions(true)), "clean_captions");
    assert_eq!(idle(base().lora(ediffi::Lora::new("style.safetensors"))), "lora");
    // Stage I alone enlarges nothing.
    assert_eq!(idle(base().noise_level(250)), "noise_level");
    assert_eq!(idle(base().expert_devices([ediffi::DeviceChoice::Cpu])), "expert_devices");
    assert!(base().stage(fixture("stage-2")).noise_level(250).clean_captions(false).open().is_ok());
    let message = own().noise_level(250).open().unwrap_err().to_string();
    assert_eq!(message, "`noise_level` would do nothing: no published stage enlarges pictures");
}
