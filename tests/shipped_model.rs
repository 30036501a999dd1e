//! The model in `models/icons`, as a user meets it.
#![allow(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::path::{Path, PathBuf};

use ediffi::{DeviceChoice, Kind, Pipeline, Precision, Request, T5Weights};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/icons")
}

fn pipeline() -> Pipeline {
    Pipeline::builder(folder()).device(DeviceChoice::Cpu).precision(Precision::F32).open().unwrap()
}

/// One step a stage, so that the whole path runs in a test.
fn quick(prompt: &str) -> Request {
    Request::new(prompt).seed(3).steps("base", 4).steps("sr256", 1).steps("sr1024", 1)
}

#[test]
fn a_prompt_becomes_a_picture_of_1024_pixels_that_its_png_reproduces() {
    let generation = pipeline().generate(&quick("a red apple, flat style")).unwrap();
    let [image] = generation.images.as_slice() else { panic!("one image") };
    assert_eq!(image.rgb().dimensions(), (1024, 1024));
    assert_eq!(generation.stages.len(), 3);
    let again = pipeline().generate(&Request::from_png_bytes(&image.to_png().unwrap()).unwrap()).unwrap();
    assert!(again.images[0].rgb() == image.rgb());
}

/// With the model's own settings all three experts of the base have work.
#[test]
fn every_expert_of_the_base_is_visited() {
    let plan = pipeline().plan(&Request::new("a cat")).unwrap();
    assert_eq!(plan[0].stage, "base");
    assert_eq!(plan[0].plan.segments().len(), 3, "{}", plan[0]);
}

/// The words and the seed both matter, and the mean colour follows the word for it.
#[test]
fn words_and_seeds_change_the_picture() {
    let pipeline = pipeline();
    let picture = |prompt: &str, seed: u64| {
        let request = Request::new(prompt).seed(seed).last_stage("base");
        pipeline.generate(&request).unwrap().images.remove(0).rgb().clone()
    };
    let red = picture("a red apple, flat style", 1);
    assert!(red == picture("a red apple, flat style", 1));
    assert!(red != picture("a red apple, flat style", 2));
    let blue = picture("a star on a blue background, flat style", 1);
    // What a corner shows is background: bluer than it is red.
    let corner = |p: &image::RgbImage| p.get_pixel(3, 3).0.map(i32::from);
    assert!(corner(&blue)[2] > corner(&blue)[0] + 40, "{:?}", corner(&blue));
}

/// Sizes on disk are part of the promise that the repository stays small.
#[test]
fn the_model_is_no_larger_than_32_mb() {
    fn bytes(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        entries.map(|e| if e.path().is_dir() { bytes(&e.path()) } else { e.metadata().unwrap().len() }).sum()
    }
    let size = bytes(&folder());
    assert!((1 << 20..32 << 20).contains(&size), "{size}");
}

/// T5 with weights of eight bits moves an embedding by a hundredth of its length, whatever precision is asked for: it computes in
/// bf16.
#[test]
fn t5_in_eight_bits_is_near_t5() {
    let embed = |weights, precision| {
        let builder = Pipeline::builder(folder()).device(DeviceChoice::Cpu).precision(precision);
        let pipeline = builder.t5_weights(weights).open().unwrap();
        let embeddings = pipeline.encode(&Request::new("a red apple left of a blue cat, flat style")).unwrap();
        embeddings.conditioning().t5.as_ref().unwrap().to_kind(Kind::Float)
    };
    let expected = embed(T5Weights::Full, Precision::F32);
    let int8 = embed(T5Weights::Int8, Precision::F32);
    let off = f64::try_from((&int8 - &expected).norm() / expected.norm()).unwrap();
    println!("off by {off:.4}");
    assert!(off > 1e-3 && off < 3e-2, "{off:.1e}");
    assert!(int8.equal(&embed(T5Weights::Int8, Precision::Bf16)));
}

/// Experts may compute on devices of their own. That is the same device here, which is what can be compared everywhere.
#[test]
fn experts_on_devices_of_their_own_draw_the_same() {
    let draw = |devices: &[DeviceChoice]| {
        let builder = Pipeline::builder(folder()).device(DeviceChoice::Cpu).precision(Precision::F32);
        let pipeline = builder.expert_devices(devices.iter().copied()).open().unwrap();
        pipeline.generate(&Request::new("a cat").seed(1).last_stage("base")).unwrap().images.remove(0).rgb().clone()
    };
    assert!(draw(&[]) == draw(&[DeviceChoice::Cpu, DeviceChoice::Cpu]));
    let error = Pipeline::builder(folder()).expert_devices([DeviceChoice::Cuda(99)]).open().unwrap_err().to_string();
    assert!(error.contains("cuda:99"), "{error}");
}
