//! Putting the trained networks together into a model folder.

use std::path::Path;

use ediffi_cascade::SamplerSettings;
use ediffi_core::files::{write_json, write_with_folders};
use ediffi_core::folders;
use ediffi_train::plan::{StageTraining, Task};
use ediffi_train::run::Begin;
use ediffi_trainer::model_folder::{copy, digits, expect_model, halve, keep};
use serde_json::{Value, json};

use super::Result;
use super::stages::{dimensions, dimensions_of, precondition, presets, sampler, side};
use super::workshop::Workshop;

/// The encoders' files.
const ENCODERS: [&str; 7] = [
    "t5/config.json",
    "t5/tokenizer.json",
    "t5/model.safetensors",
    "clip/config.json",
    "clip/tokenizer.json",
    "clip/preprocessor_config.json",
    "clip/model.safetensors",
];

/// Where the plan and the logs of the training lie in the model folder.
const RECORDS: &str = "training";

/// Writes the model of a trained plan to `out`: the encoders, the experts' weights in bf16, `pipeline.json`, and the plan with
/// the logs. Everything is checked before anything is written: a network that was trained beside another CLIP, T5 or parent is refused.
/// A model that is there is replaced as a whole; of its folder, what is no part of a model stays: files at the top, such as a README.
pub fn assemble(workshop: &Workshop, out: &Path) -> Result<()> {
    let mut stages = Vec::new();
    let mut networks = Vec::new();
    let mut configs = Vec::new();
    for stage in &workshop.plan.stages {
        let mut experts = Vec::new();
        for expert in stage.experts()?.iter().rev() {
            let task = Task::Network(stage, expert.network);
            let name = task.name();
            let (path, lineage) = (workshop.weights(&name), workshop.lineage(stage, expert.network)?);
            if !workshop.run(&name, &task, Begin::Resume, lineage).is_trained(&path)? {
                return Err(format!("{name} is not trained: {} is missing or has too few steps", path.display()).into());
            }
            let weights = format!("{}/{}.safetensors", stage.name, expert.network.name);
            let mut keys = json!({ "weights": weights });
            if expert.network.dimensions.is_some() || expert.network.detail.is_some() {
                let config = format!("{}/{}.json", stage.name, expert.network.name);
                keys["network"] = json!(config);
                configs.push((config, dimensions_of(expert.network, side(stage)?)?));
            }
            if let Some(precondition) = &expert.network.precondition {
                keys["precondition"] = json!(precondition);
            }
            let (low, high) = (digits(expert.interval.low()), digits(expert.interval.high()));
            keys["sigma"] = json!([low, high.is_finite().then_some(high)]);
            experts.push(keys);
            networks.push((path, weights));
        }
        stages.push(pipeline_stage(stage, experts)?);
    }
    for stage in &workshop.plan.stages {
        configs.push((format!("{}/config.json", stage.name), dimensions(side(stage)?).into()));
    }
    let pipeline = json!({
        "format": "ediffi-pipeline/1",
        "encoders": { "t5": "t5", "clip": "clip" },
        "stages": stages,
        "presets": presets(),
    });
    expect_model(out, &["base", "sr256", "sr1024", "t5", "clip", RECORDS])?;
    folders::replace(out, |new| {
        for file in ENCODERS {
            copy(&workshop.folder.join(file), &new.join(file))?;
        }
        for (path, dimensions) in &configs {
            write_json(&new.join(path), dimensions)?;
        }
        for (from, to) in &networks {
            halve(from, &new.join(to))?;
        }
        for task in workshop.plan.tasks() {
            let log = format!("{}.csv", task.name());
            if workshop.folder.join(&log).is_file() {
                copy(&workshop.folder.join(&log), &new.join(RECORDS).join(&log))?;
            }
        }
        write_with_folders(&new.join(RECORDS).join("plan.toml"), workshop.plan.to_toml()?.as_bytes())?;
        write_json(&new.join("pipeline.json"), &pipeline)?;
        Ok(keep(out, new)?)
    })
}

fn pipeline_stage(stage: &StageTraining, experts: Vec<Value>) -> Result<Value> {
    let side = side(stage)?;
    let SamplerSettings { solver, steps, schedule, guidance, .. } = sampler(stage)?;
    Ok(json!({
        "name": stage.name,
        "size": side,
        "network": format!("{}/config.json", stage.name),
        "precondition": precondition(),
        "experts": experts,
        "sampler": { "solver": solver, "steps": steps, "schedule": schedule },
        "guidance": guidance,
    }))
}
