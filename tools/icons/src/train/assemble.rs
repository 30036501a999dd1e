//! Putting the trained networks together into a model folder.

use std::ffi::OsStr;
use std::path::Path;

use ediffi_cascade::SamplerSettings;
use ediffi_core::files::{make_folder_of, read_bytes, write_json, write_with_folders};
use ediffi_core::{folders, weights};
use ediffi_train::plan::{StageTraining, Task};
use ediffi_train::run::Begin;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

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
    expect_model(out)?;
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
        keep(out, new)
    })
}

/// Refuses to replace a folder that holds something else than a model and its records, such as a folder of the user's.
fn expect_model(out: &Path) -> Result<()> {
    let known = |name: &OsStr| {
        let models = ["base", "sr256", "sr1024", "t5", "clip", RECORDS];
        models.iter().any(|known| *known == name)
    };
    // A folder that is not there holds nothing.
    let entries = std::fs::read_dir(out).into_iter().flatten().collect::<std::io::Result<Vec<_>>>()?;
    let foreign = entries.iter().find(|entry| entry.path().is_dir() && !known(&entry.file_name()));
    if let Some(foreign) = foreign {
        let (out, foreign) = (out.display(), foreign.path());
        return Err(format!("{out} is to be replaced by the model, but it holds {}", foreign.display()).into());
    }
    if !entries.is_empty() && !out.join("pipeline.json").is_file() {
        return Err(
            format!("{} is to be replaced by the model, but it is not empty and no model", out.display()).into()
        );
    }
    Ok(())
}

/// Copies files at the top of the old folder that the new one does not have.
fn keep(old: &Path, new: &Path) -> Result<()> {
    // A folder that is not there holds nothing.
    for entry in std::fs::read_dir(old).into_iter().flatten() {
        let entry = entry?;
        let to = new.join(entry.file_name());
        if entry.path().is_file() && !to.exists() {
            copy(&entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Six significant digits, so that a manifest reads well. Neighbours are rounded alike and still tile.
fn digits(sigma: f64) -> f64 {
    if sigma == 0.0 || !sigma.is_finite() {
        return sigma;
    }
    let scale = 10_f64.powi(5 - sigma.abs().log10().floor() as i32);
    (sigma * scale).round() / scale
}

/// Averaged weights in half the size, with all that the header says of them.
fn halve(from: &Path, to: &Path) -> Result<()> {
    let tensors = Tensor::read_safetensors(from)?
        .into_iter()
        .map(|(name, tensor)| Ok((name, tensor.f_to_kind(Kind::BFloat16)?)))
        .collect::<Result<Vec<_>>>()?;
    let bytes = read_bytes(from)?;
    make_folder_of(to)?;
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)?;
    Ok(weights::save(to, &tensors, header.metadata().clone().unwrap_or_default())?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    Ok(write_with_folders(to, &read_bytes(from)?)?)
}

fn pipeline_stage(stage: &StageTraining, experts: Vec<Value>) -> Result<Value> {
    let side = side(stage)?;
    let SamplerSettings { solver, steps, schedule, guidance } = sampler(stage)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readme_stays_and_an_old_model_goes() {
        let within = tempfile::tempdir().unwrap();
        let out = within.path().join("model");
        std::fs::create_dir_all(out.join("old-stage")).unwrap();
        for (file, text) in [("README.md", "read me"), ("pipeline.json", "old"), ("old-stage/a.safetensors", "old")] {
            std::fs::write(out.join(file), text).unwrap();
        }
        let write = |new: &Path| -> Result<()> {
            std::fs::write(new.join("pipeline.json"), "new")?;
            keep(&out, new)
        };
        folders::replace(&out, write).unwrap();
        let read = |file: &str| std::fs::read_to_string(out.join(file)).ok();
        assert_eq!((read("README.md").as_deref(), read("pipeline.json").as_deref()), (Some("read me"), Some("new")));
        assert!(!out.join("old-stage").exists());
    }

    #[test]
    fn only_a_model_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        expect_model(&out).unwrap();
        std::fs::create_dir(&out).unwrap();
        expect_model(&out).unwrap();
        std::fs::write(out.join("README.md"), "").unwrap();
        assert!(expect_model(&out).unwrap_err().to_string().contains("no model"));
        std::fs::write(out.join("pipeline.json"), "").unwrap();
        std::fs::create_dir(out.join("base")).unwrap();
        expect_model(&out).unwrap();
        std::fs::create_dir(out.join(".git")).unwrap();
        assert!(expect_model(&out).unwrap_err().to_string().contains(".git"));
    }

    #[test]
    fn sigmas_keep_six_digits() {
        assert_eq!(
            [0.580_312_345, 3.835_444_4, 9.609_593_2, 0.075_742_241_9].map(digits),
            [0.580_312, 3.835_44, 9.609_59, 0.075_742_2]
        );
        assert_eq!((digits(0.0), digits(f64::INFINITY)), (0.0, f64::INFINITY));
    }
}
