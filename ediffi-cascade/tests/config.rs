//! What a stage's configuration may say, and how what it may not is reported.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::error::Error as _;

use common::{CPU, Model, dimensions, network};
use ediffi_cascade::{Error, ExpertFiles, Stage, StageConfig};
use ediffi_core::guidance::{Guidance, Thresholding};
use ediffi_core::interval::SigmaInterval;
use ediffi_core::pool::Residency;
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::Solver;
use ediffi_core::unet::{Adm, Dimensions, UNetConfig};
use serde_json::{Value, json};

/// The first stage of the design's example.
fn design() -> Value {
    json!({
        "name": "base", "size": 64, "network": "base/config.json", "weaker": { "weights": "base/early.safetensors" },
        "precondition": { "edm": { "sigma_data": 0.5 } },
        "experts": [ { "weights": "base/high.safetensors", "sigma": [9.61, null] },
                     { "weights": "base/middle.safetensors", "sigma": [0.0757, 9.61],
                       "precondition": { "sample": { "sigma_data": 0.5 } } },
                     { "weights": "base/low.safetensors", "sigma": [0.0, 0.0757], "network": "base/small.json" } ],
        "sampler": { "solver": "dpmpp-2m", "steps": 25, "schedule": { "karras": { "min": 0.002, "max": 80.0, "rho": 7.0 } } },
        "guidance": { "scale": 5.0, "interval": [0.28, 2.9], "thresholding": { "dynamic": { "percentile": 0.995 } } },
    })
}

fn parse(change: impl FnOnce(&mut Value)) -> serde_json::Result<StageConfig> {
    let mut value = design();
    change(&mut value);
    serde_json::from_value(value)
}

#[test]
fn a_configuration_is_read_and_written() {
    let config = parse(|_| ()).unwrap();
    config.validate().unwrap();
    let settings = &config.settings;
    assert_eq!((settings.solver, settings.steps), (Solver::DpmPp2M, 25));
    assert_eq!(settings.schedule, Schedule::edm());
    assert_eq!(settings.guidance.interval, Some(SigmaInterval::new(0.28, 2.9).unwrap()));
    assert_eq!(settings.guidance.thresholding, Thresholding::Dynamic { percentile: 0.995, cap: None });
    assert_eq!(config.experts().unwrap().len(), 3);
    // What is written is what was read, key by key.
    assert_eq!(serde_json::to_value(&config).unwrap(), serde_json::to_value(design()).unwrap());
    // Without guidance there is none.
    let config = parse(|value| drop(value.as_object_mut().unwrap().remove("guidance"))).unwrap();
    assert_eq!(config.settings.guidance, Guidance::default());
}

#[test]
fn unknown_keys_are_named() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 5] = [
        ("sizes", |v| v["sizes"] = json!(64)),
        ("step", |v| v["sampler"]["step"] = json!(3)),
        ("weight", |v| v["experts"][1]["weight"] = json!("x")),
        ("ddpm", |v| v["precondition"] = json!({ "ddpm": {} })),
        ("sigma", |v| v["precondition"]["edm"]["sigma"] = json!(1)),
    ];
    for (key, change) in changes {
        let message = parse(change).unwrap_err().to_string();
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
    let message = parse(|v| drop(v.as_object_mut().unwrap().remove("network"))).unwrap_err().to_string();
    assert!(message.contains("`network`"), "{message}");
}

#[test]
fn what_makes_no_stage_names_stage_and_field() {
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 13] = [
        (|v| v["name"] = json!(" "), "stage ` `, name: it is empty"),
        (|v| v["size"] = json!(0), "stage `base`, size: 0 is not between 1 and 16384"),
        (|v| v["experts"] = json!([]), "stage `base`, experts: an ensemble needs at least one expert"),
        (
            |v| v["experts"][1]["sigma"] = json!([0.1, 9.61]),
            "stage `base`, experts[1] (base/middle.safetensors) and experts[2] (base/low.safetensors): \
             no expert owns the sigmas between [0, 0.0757) and [0.1, 9.61)",
        ),
        (|v| v["sampler"]["steps"] = json!(0), "stage `base`, sampler.steps: invalid schedule: 0 steps"),
        (|v| v["guidance"]["scale"] = json!(-1), "stage `base`, guidance: invalid guidance: scale -1"),
        (|v| v["network"] = json!("/etc/passwd"), "stage `base`, network: /etc/passwd leads out of the folder"),
        (
            |v| v["experts"][1]["weights"] = json!("base/../../x"),
            "stage `base`, experts[1].weights: base/../../x leads out of the folder",
        ),
        (|v| v["experts"][2]["network"] = json!(".."), "stage `base`, experts[2].network: .. leads out of the folder"),
        (
            |v| v["experts"][1]["precondition"] = json!({ "epsilon": "linear" }),
            "stage `base`, experts[1].precondition: it counts on other timesteps than the precondition of the stage",
        ),
        (
            |v| v["weaker"]["weights"] = json!("../early"),
            "stage `base`, weaker.weights: ../early leads out of the folder",
        ),
        (
            |v| {
                v.as_object_mut().unwrap().remove("weaker");
                v["guidance"]["against"] = json!("weaker");
            },
            "stage `base`, guidance: invalid guidance: the stage has no weaker network",
        ),
        (|v| v["experts"][0]["weights"] = json!(""), "stage `base`, experts[0].weights:  leads out of the folder"),
    ];
    for (change, expected) in changes {
        let error = parse(change).unwrap().validate().unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn a_setting_keeps_its_source() {
    let error = parse(|v| v["sampler"]["steps"] = json!(0)).unwrap().validate().unwrap_err();
    assert!(matches!(&error, Error::Setting { field, .. } if field == "sampler.steps"));
    assert!(error.source().unwrap().to_string().starts_with("invalid schedule"));
}

fn opening(model: &Model) -> Error {
    Stage::open(model.folder.path(), &model.config, CPU, Residency::All).unwrap_err()
}

#[test]
fn missing_files_are_named_before_anything_is_loaded() {
    let model = Model::new(&network(false), 8);
    std::fs::remove_file(model.folder.path().join("base/low.safetensors")).unwrap();
    let error = opening(&model);
    assert!(matches!(&error, Error::Setting { field, .. } if field == "experts[1].weights"), "{error}");
    assert!(error.to_string().contains("low.safetensors"), "{error}");
    std::fs::remove_file(model.folder.path().join("base/config.json")).unwrap();
    let error = opening(&model);
    assert!(matches!(&error, Error::Setting { field, .. } if field == "network"), "{error}");
}

#[test]
fn networks_that_do_not_fit_are_named() {
    let mut model = Model::new(&network(false), 8);
    model.config.size = 9;
    assert_eq!(opening(&model).to_string(), "stage `base`, size: 9 is no multiple of 2, which the network needs");
    model.config.size = 8;

    let mut other = dimensions(false);
    other.context = None;
    other.levels[1].cross_attention = false;
    std::fs::write(
        model.folder.path().join("base/other.json"),
        serde_json::to_string(&UNetConfig::from(Adm(other.clone()))).unwrap(),
    )
    .unwrap();
    model.config.experts[1].network = Some("base/other.json".into());
    let error = opening(&model).to_string();
    assert_eq!(error, "stage `base`, experts[1].network: its network takes other inputs than that of experts[0]");

    std::fs::write(model.folder.path().join("base/other.json"), r#"{"layout": "adm", "chanels": 3}"#).unwrap();
    let error = opening(&model).to_string();
    assert!(error.contains("base/other.json") && error.contains("chanels"), "{error}");

    other.levels.clear();
    std::fs::write(
        model.folder.path().join("base/other.json"),
        serde_json::to_string(&UNetConfig::from(Adm(other))).unwrap(),
    )
    .unwrap();
    assert!(opening(&model).to_string().contains("levels"));

    // Dimensions that come from no file are checked, too.
    let patchless: UNetConfig = Adm(Dimensions { patch: 0, ..dimensions(false) }).into();
    let file = |network: &UNetConfig| ExpertFiles {
        weights: "anywhere.safetensors".into(),
        original: false,
        network: network.clone(),
        part: None,
        loras: Vec::new(),
    };
    model.config.experts[1].network = Some("base/other.json".into());
    for (files, field) in
        [([&patchless, &network(false)], "network"), ([&network(false), &patchless], "experts[1].network")]
    {
        let files = files.map(file).to_vec();
        let error = Stage::with_experts(&model.config, files, CPU, Residency::All).unwrap_err();
        assert!(matches!(&error, Error::Setting { field: named, .. } if named == field), "{error}");
        assert!(error.to_string().contains("patch: 0 is not between 1 and 2^20"), "{error}");
    }
}
