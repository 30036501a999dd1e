//! Everything that can be wrong with a model folder or a request, as a typed error that names the culprit.

use std::fs;

use ediffi::{DeviceChoice, Error, Pipeline, Problem, Request};
use serde_json::{Value, json};

use crate::model::{Model, apple, config, context, network, style};

/// The error of opening the model after a change of its manifest.
fn opening(edit: impl FnOnce(&mut Value)) -> Error {
    let model = Model::new();
    model.edit(edit);
    model.builder().open().unwrap_err()
}

/// The error of a generation after a change of the model's files.
fn generating(change: impl FnOnce(&Model)) -> Error {
    let model = Model::new();
    change(&model);
    model.open().generate(&apple()).unwrap_err()
}

fn problems(request: &Request) -> Vec<Problem> {
    let model = Model::new();
    match model.open().generate(request) {
        Err(Error::InvalidRequest { problems }) => problems,
        other => panic!("{other:?}"),
    }
}

/// The message with those of its causes.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[test]
fn folders_and_manifests() {
    assert!(matches!(Pipeline::open("no/such/model"), Err(Error::NoFolder { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Pipeline::open(empty.path()), Err(Error::NoManifest { .. })));
    let error = opening(|manifest| manifest["colour"] = json!(1));
    assert!(matches!(error, Error::Json { .. }) && error.to_string().contains("colour"), "{error}");
    let error = opening(|manifest| manifest["format"] = json!("ediffi-pipeline/9"));
    assert!(matches!(error, Error::Format { .. }), "{error}");
    let error = opening(|manifest| manifest["encoders"]["t5"] = json!("../t5"));
    assert!(matches!(error, Error::PathOutside { .. }), "{error}");
    let error = opening(|manifest| manifest["stages"][0]["experts"][1]["weights"] = json!("/base/low.safetensors"));
    assert!(matches!(error, Error::Cascade(_)) && whole(&error).contains("experts[1].weights"), "{error}");
}

#[test]
fn stages_that_make_no_cascade() {
    let error = opening(|manifest| manifest["stages"][1]["name"] = json!("base"));
    assert!(matches!(&error, Error::Manifest { key, .. } if key == "stages"), "{error}");
    assert!(error.to_string().contains("base"), "{error}");
    let error = opening(|manifest| drop(manifest["stages"].as_array_mut().unwrap().remove(0)));
    assert!(matches!(&error, Error::Manifest { key, .. } if key == "stages[0].network"), "{error}");
    let error = opening(|manifest| manifest["stages"][0]["experts"][0]["sigma"] = json!([3, null]));
    assert!(matches!(error, Error::Cascade(_)) && error.to_string().contains("no expert owns"), "{error}");
    let error = opening(|manifest| manifest["stages"][0]["size"] = json!(7));
    assert!(matches!(error, Error::Cascade(_)) && error.to_string().contains('7'), "{error}");
}

#[test]
fn networks_that_do_not_fit_together() {
    let model = Model::new();
    let longer = context().map(|mut context| {
        context.t5 = Some(ediffi_core::unet::Tokens { tokens: 5, width: 8 });
        context
    });
    network(&model.path().join("sr"), &config(longer, true), &["all"]);
    let error = model.builder().open().unwrap_err();
    assert!(
        matches!(&error, Error::Manifest { key, reason, .. } if key == "stages[1].network" && reason.contains("T5"))
    );
    for (encoder, key, value) in
        [("t5", "/d_model", 9), ("clip", "/text_config/hidden_size", 10), ("clip", "/projection_dim", 7)]
    {
        let model = Model::new();
        let path = model.path().join(encoder).join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        *config.pointer_mut(key).unwrap() = json!(value);
        fs::write(path, config.to_string()).unwrap();
        let error = model.builder().open().unwrap_err();
        let expected = format!("encoders.{encoder}");
        assert!(matches!(&error, Error::Manifest { key, .. } if *key == expected), "{error}");
    }
}

#[test]
fn files_that_are_missing() {
    for (file, part) in [("base/config.json", "network"), ("base/low.safetensors", "experts[1].weights")] {
        let model = Model::new();
        fs::remove_file(model.path().join(file)).unwrap();
        let error = model.builder().open().unwrap_err();
        assert!(matches!(error, Error::Cascade(_)) && whole(&error).contains(part), "{}", whole(&error));
        assert!(whole(&error).contains(file), "{}", whole(&error));
    }
    let model = Model::new();
    fs::remove_file(model.path().join("clip/config.json")).unwrap();
    let error = model.builder().open().unwrap_err();
    assert!(matches!(error, Error::ReadFile { .. }) && error.to_string().contains("clip/config.json"), "{error}");
    for (file, encoder) in [("t5/model.safetensors", "t5"), ("clip/tokenizer.json", "clip")] {
        let error = generating(|model| fs::remove_file(model.path().join(file)).unwrap());
        assert!(matches!(error, Error::Encoders(_)) && whole(&error).contains(encoder), "{}", whole(&error));
    }
}

#[test]
fn weights_that_are_cut_short_or_of_another_network() {
    for file in ["t5/model.safetensors", "base/high.safetensors", "sr/all.safetensors"] {
        let error = generating(|model| {
            let path = model.path().join(file);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        });
        assert!(matches!(error, Error::Cascade(_) | Error::Encoders(_)), "{error}");
        assert!(whole(&error).contains(file), "{}", whole(&error));
    }
    let error = generating(|model| {
        fs::copy(model.path().join("sr/all.safetensors"), model.path().join("base/low.safetensors")).unwrap();
    });
    let text = whole(&error);
    assert!(text.contains("base/low.safetensors") && text.contains("missing") && text.contains("context."), "{text}");
}

#[test]
fn numbers_that_overflow_name_stage_and_expert() {
    let error = generating(|model| {
        let network = config(context(), false);
        let infinite = |scope: ediffi_core::weights::Scope<'_>| {
            ediffi_core::unet::UNet::new(scope, &network, tch::Kind::Float).map(drop)
        };
        let mut fresh = ediffi_core::weights::Fresh::new(0, tch::Device::Cpu);
        infinite(ediffi_core::weights::Scope::root(&mut fresh)).unwrap();
        let tensors: Vec<_> = fresh.into_named().into_iter().map(|(name, x)| (name, x + f64::INFINITY)).collect();
        let path = model.path().join("base/low.safetensors");
        ediffi_core::weights::save(&path, &tensors, Default::default()).unwrap();
    });
    let text = error.to_string();
    assert!(text.contains("stage `base`") && text.contains("base/low.safetensors"), "{text}");
}

#[test]
fn pictures_that_are_not_rgb_are_refused_at_the_door() {
    let model = Model::new();
    let path = model.path().join("base/config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen('{', r#"{"picture_channels": 4, "#, 1)).unwrap();
    let error = model.builder().open().unwrap_err();
    let named = matches!(&error, Error::Manifest { key, .. } if key == "stages[0].network");
    assert!(named && error.to_string().contains("4 channels"), "{error}");
}

#[test]
fn devices_that_are_not_there() {
    let model = Model::new();
    let error = Pipeline::builder(model.path()).device(DeviceChoice::Cuda(99)).open().unwrap_err();
    assert!(matches!(error, Error::Core(_)) && error.to_string().contains("cuda:99"), "{error}");
}

#[test]
fn prompts() {
    assert_eq!(problems(&Request::new("  ")), [Problem::EmptyPrompt]);
    let long = "a red apple left of a cat on a blue dog and a green cat";
    let found = problems(&Request::new(long).negative_prompt(long));
    assert_eq!(found.len(), 4, "two prompts, two encoders: {found:?}");
    assert!(
        matches!(&found[0], Problem::TooLong { which: "prompt", encoder: "T5", lost } if lost == "blue dog and a green cat"),
        "{found:?}"
    );
    assert!(
        matches!(&found[1], Problem::TooLong { encoder: "CLIP", lost, .. } if lost == "dog and a green cat"),
        "{found:?}"
    );
}

#[test]
fn sizes_steps_and_stages() {
    let found = problems(&apple().size(18, 16).steps("base", 0).last_stage("bse"));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(matches!(&found[0], Problem::UnknownStage { stages, .. } if stages[..] == ["base", "sr"]));
    assert!(matches!(&found[1], Problem::Size { side: "width", value: 18, stage, unit: 4, .. } if stage == "base"));
    assert!(matches!(&found[2], Problem::Setting { setting: "steps", .. }));
}

#[test]
fn a_style_for_a_model_without_one() {
    let model = Model::new();
    let blind = context().map(|context| ediffi_core::unet::ContextConfig { clip_image: None, ..context });
    network(&model.path().join("base"), &config(blind, false), &["high", "low"]);
    let pipeline = model.open();
    pipeline.generate(&apple()).unwrap();
    let error = pipeline.generate(&apple().style(style(1))).unwrap_err();
    assert!(matches!(&error, Error::InvalidRequest { problems } if matches!(problems[..], [Problem::Style { .. }])));
}
