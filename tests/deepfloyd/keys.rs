//! Each key of a published folder's `scheduler_config.json` and `model_index.json`: followed, without effect, or named.

use std::fs;

use ediffi::{Error, Thresholding};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{builder, copy, fixture};

const SCHEDULER: &str = "scheduler/scheduler_config.json";
const INDEX: &str = "model_index.json";

/// Stage I with other values of some keys of a file.
fn changed(file: &str, keys: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture("stage-1"), folder.path());
    let path = folder.path().join(file);
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    keys.iter().for_each(|(key, value)| json[*key] = value.clone());
    fs::write(path, json.to_string()).unwrap();
    folder
}

/// The key that opening names.
fn named(folder: &TempDir) -> String {
    match builder(folder.path()).open().unwrap_err() {
        Error::Manifest { key, .. } => key,
        other => panic!("{other}"),
    }
}

#[test]
fn what_the_sampler_does_not_do_is_named() {
    for (key, value) in [
        ("_class_name", json!("DDIMScheduler")),
        ("num_train_timesteps", json!(500)),
        ("beta_schedule", json!("linear")),
        ("prediction_type", json!("sample")),
        ("variance_type", json!("fixed_large")),
        ("rescale_betas_zero_snr", json!(true)),
        ("trained_betas", json!([0.1, 0.2])),
        ("timestep_spacing", json!("trailing")),
        ("steps_offset", json!(1)),
        ("zeal", json!(1)),
    ] {
        assert_eq!(named(&changed(SCHEDULER, &[(key, value)])), key);
    }
    let range = [("thresholding", json!(false)), ("clip_sample_range", json!(2))];
    assert_eq!(named(&changed(SCHEDULER, &range)), "clip_sample_range");
    // Where nothing is clipped to it, it says nothing.
    let unclipped = [("thresholding", json!(false)), ("clip_sample", json!(false)), ("clip_sample_range", json!(2))];
    builder(changed(SCHEDULER, &unclipped).path()).open().unwrap();
}

#[test]
fn what_the_sampler_does_is_followed() {
    let thresholding = |keys: &[(&str, Value)]| {
        let pipeline = builder(changed(SCHEDULER, keys).path()).open().unwrap();
        pipeline.manifest().stages[0].settings.guidance.thresholding
    };
    let dynamic =
        [("thresholding", json!(true)), ("dynamic_thresholding_ratio", json!(0.9)), ("sample_max_value", json!(2.5))];
    assert_eq!(thresholding(&dynamic), Thresholding::Dynamic { percentile: 0.9, cap: Some(2.5) });
    assert_eq!(thresholding(&[("thresholding", json!(false)), ("clip_sample", json!(true))]), Thresholding::Static);
    assert_eq!(thresholding(&[("thresholding", json!(false)), ("clip_sample", json!(false))]), Thresholding::None);
}

#[test]
fn parts_of_another_class_are_named() {
    for part in ["unet", "scheduler", "image_noising_scheduler", "text_encoder", "tokenizer"] {
        assert_eq!(named(&changed(INDEX, &[(part, json!(["diffusers", "AnotherClass"]))])), part);
    }
    assert_eq!(named(&changed(INDEX, &[("zeal", json!(["diffusers", "Zeal"]))])), "zeal");
    // Nulls stand for a part that there is not.
    let none = [("zeal", json!([null, null])), ("image_noising_scheduler", json!([null, null]))];
    builder(changed(INDEX, &none).path()).open().unwrap();
}

#[test]
fn keys_without_effect_may_have_any_value() {
    let any = |keys: &str| keys.split(' ').map(|key| (key.to_owned(), json!([7]))).collect::<Vec<_>>();
    for (file, keys) in [
        (SCHEDULER, "_diffusers_version _name_or_path beta_end beta_start lambda_min_clipped"),
        (
            INDEX,
            "_diffusers_version _name_or_path feature_extractor requires_safety_checker safety_checker watermarker",
        ),
    ] {
        let keys = any(keys);
        let keys: Vec<(&str, Value)> = keys.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        builder(changed(file, &keys).path()).open().unwrap();
    }
}
