//! Pictures that tell what made them.

use ediffi::{DeviceChoice, Pipeline, Precision, Provenance, Request};

use crate::model::{Model, apple};

/// What is different where the picture would be drawn again.
fn differences(png: &[u8], pipeline: &Pipeline) -> Vec<String> {
    let request = Request::from_png_bytes(png).unwrap();
    Provenance::from_png_bytes(png).unwrap().differences(&pipeline.provenance(&request).unwrap())
}

#[test]
fn a_picture_tells_whether_another_model_draws_it_again() {
    let model = Model::new();
    let pipeline = model.open();
    let request = apple().steps("sr", 3).guidance("base", 4.5);
    let image = pipeline.generate(&request).unwrap().images.remove(0);
    let png = image.to_png().unwrap();
    let made = Provenance::from_png_bytes(&png).unwrap();
    assert_eq!(&made, image.provenance());
    let settings = |stage: &str| &made.stages[stage].settings;
    assert_eq!((settings("sr").steps, settings("base").steps, settings("base").guidance.scale), (3, 4, 4.5));
    assert_eq!((made.precision.as_str(), &made.enlarger), ("f32", &None));
    assert_eq!(differences(&png, &pipeline), Vec::<String>::new());
    let other = Model::new();
    assert_eq!(differences(&png, &other.open()), Vec::<String>::new(), "the same weights in another folder");

    let half = Pipeline::builder(model.path()).device(DeviceChoice::Cpu).precision(Precision::Bf16).open().unwrap();
    assert_eq!(differences(&png, &half), ["precision: f32, here bf16"]);

    // One other expert, an encoder, and a setting that the request leaves to the model.
    let other = Model::new();
    std::fs::copy(other.path().join("base/low.safetensors"), other.path().join("base/high.safetensors")).unwrap();
    let found = differences(&png, &other.open());
    assert!(found.len() == 1 && found[0].starts_with("model, stage `base`: "), "{found:?}");
    let other = Model::new();
    other.edit(|manifest| manifest["stages"][0]["sampler"]["steps"] = 5.into());
    let found = differences(&png, &other.open());
    assert!(found.len() == 1 && found[0].starts_with("settings of stage `base`: "), "{found:?}");
    let other = Model::new();
    let weights = other.path().join("t5/model.safetensors");
    let named = ediffi::Tensor::read_safetensors(&weights).unwrap();
    let changed: Vec<_> = named.into_iter().map(|(name, x)| (name, x * 1.5)).collect();
    ediffi::Tensor::write_safetensors(&changed, &weights).unwrap();
    let found = differences(&png, &other.open());
    assert!(found.len() == 1 && found[0].starts_with("encoders: "), "{found:?}");
}

#[test]
fn only_what_ran_is_told() {
    let model = Model::new();
    let pipeline = model.open();
    let image = pipeline.generate(&apple().last_stage("base")).unwrap().images.remove(0);
    assert_eq!(image.provenance().stages.keys().collect::<Vec<_>>(), ["base"]);
}
