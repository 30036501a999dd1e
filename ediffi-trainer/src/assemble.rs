//! Putting the trained networks together into a model folder.

use std::fs;
use std::path::{Path, PathBuf};

use ediffi::{EncoderFolders, MANIFEST_FORMAT, Manifest};
use ediffi_cascade::ExpertConfig;
use ediffi_core::files::{make_folder_of, write_json, write_with_folders};
use ediffi_core::folders;
use ediffi_core::interval::SigmaInterval;
use ediffi_train::plan::StageTraining;

use crate::Result;
use crate::error::{file_error, wrong};
use crate::model_folder::{copy, digits, expect_model, halve, keep, merge};
use crate::plan::StagePlan;
use crate::run_folder::PLAN;
use crate::start::{Ancestor, model_folder};
use crate::workshop::Workshop;

/// Where the plan and the logs of the training lie in the model folder.
const RECORDS: &str = "training";
/// Where the notices of other models lie that this one is made of.
const NOTICES: &str = "notices";
/// Where the LoRAs lie that are merged into the networks.
const LORAS: &str = "loras";
/// How the names of an encoder's files end: no weights in formats that this library does not read.
const OF_ENCODERS: [&str; 4] = ["json", "safetensors", "model", "txt"];

/// The first expert whose weights are not there.
pub(crate) fn missing(workshop: &Workshop<'_>) -> Option<String> {
    let leaves = workshop.training.stages.iter().flat_map(|stage| experts(stage).map(move |name| (stage, name)));
    let mut names = leaves.map(|(stage, network)| format!("{}.{network}", stage.name));
    names.find(|name| !workshop.weights(name).is_file())
}

/// The names of the networks that no other starts from.
fn experts(stage: &StageTraining) -> impl Iterator<Item = &str> {
    let networks = stage.networks.iter().map(|network| network.name.as_str());
    networks.filter(|name| !stage.networks.iter().any(|other| other.parent.as_deref() == Some(*name)))
}

/// Writes the model of a trained plan to `out`: the encoders, the experts' weights in bf16, `pipeline.json`, the plan and the logs, and
/// what it was made of. All is checked before anything is written: a network that was trained beside another encoder or parent is refused. A
/// model that is there is replaced as a whole, but for files at its top that are the user's.
pub(crate) fn assemble(workshop: &Workshop<'_>, out: &Path) -> Result<()> {
    let plan = workshop.plan;
    let (mut stages, mut networks, mut dimensions) = (Vec::new(), Vec::new(), Vec::new());
    for (stage, training) in plan.stages.iter().zip(&workshop.training.stages) {
        let mut configs = Vec::new();
        for expert in training.experts()?.iter().rev() {
            let (_, network) = workshop.planned(&stage.name, &expert.network.name)?;
            let name = format!("{}.{}", stage.name, network.name);
            if !workshop.is_finished(stage, network)? {
                return wrong(name, "it has too few steps for the plan: resume it");
            }
            let weights = PathBuf::from(format!("{}/{}.safetensors", stage.name, network.name));
            let base = if network.lora.is_some() { workshop.parent(stage, network)? } else { None };
            networks.push((name.clone(), weights.clone(), base));
            let own = network.detail.map(|_| PathBuf::from(format!("{}/{}.json", stage.name, network.name)));
            if let Some(path) = &own {
                dimensions.push((path.clone(), stage.dimensions_of(network)?));
            }
            let (low, high) = (digits(expert.interval.low()), digits(expert.interval.high()));
            let sigma = SigmaInterval::new(low, high)?;
            configs.push(ExpertConfig { network: own, ..ExpertConfig::new(weights, sigma) });
        }
        dimensions.push((PathBuf::from(format!("{}/config.json", stage.name)), stage.network.dimensions()?));
        stages.push(stage.config(configs));
    }
    let folder = |name: &str, path: &Option<PathBuf>| path.as_ref().map(|_| PathBuf::from(name));
    let (t5, clip) = (folder("t5", &workshop.encoders.t5), folder("clip", &workshop.encoders.clip));
    let encoders = EncoderFolders { t5, clip };
    let manifest = Manifest { format: MANIFEST_FORMAT.to_owned(), encoders, stages, presets: Default::default() };
    let mut known = vec!["t5", "clip", RECORDS, NOTICES, LORAS];
    known.extend(plan.stages.iter().map(|stage| stage.name.as_str()));
    expect_model(out, &known)?;
    folders::replace(out, |new| {
        for (name, path) in [("t5", &workshop.encoders.t5), ("clip", &workshop.encoders.clip)] {
            path.as_ref().map_or(Ok(()), |path| encoder(path, &new.join(name)))?;
        }
        for (path, dimensions) in &dimensions {
            write_json(&new.join(path), dimensions)?;
        }
        for (name, to, base) in &networks {
            let (from, to) = (workshop.weights(name), new.join(to));
            let Some(Ancestor { weights, dimensions }) = base else {
                halve(&from, &to)?;
                continue;
            };
            merge((weights, dimensions), &from, &to)?;
            copy(&from, &new.join(LORAS).join(format!("{name}.safetensors")))?;
        }
        records(workshop, new)?;
        let sources = notices(workshop, new)?;
        write_with_folders(&new.join("NOTICE.md"), notice(workshop, &sources).as_bytes())?;
        manifest.write(new)?;
        if !out.join("README.md").is_file() {
            write_with_folders(&new.join("README.md"), readme(workshop).as_bytes())?;
        }
        keep(out, new)
    })
}

/// The files of an encoder. They are large and never written to: another name for the same file is enough where there can be one.
fn encoder(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(file_error(from))? {
        let path = entry.map_err(file_error(from))?.path();
        let wanted = path.extension().is_some_and(|extension| OF_ENCODERS.iter().any(|known| *known == extension));
        let Some(name) = path.file_name().filter(|_| wanted && path.is_file()) else { continue };
        let (source, target) = (fs::canonicalize(&path).map_err(file_error(&path))?, to.join(name));
        make_folder_of(&target)?;
        if fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target).map_err(file_error(&target))?;
        }
    }
    Ok(())
}

/// The plan and the logs.
fn records(workshop: &Workshop<'_>, new: &Path) -> Result<()> {
    for task in workshop.training.tasks() {
        for log in [format!("{}.csv", task.name()), format!("{}.validation.csv", task.name())] {
            let from = workshop.options.folder.join(&log);
            if from.is_file() {
                copy(&from, &new.join(RECORDS).join(&log))?;
            }
        }
    }
    Ok(write_with_folders(&new.join(RECORDS).join(PLAN), workshop.plan.to_toml()?.as_bytes())?)
}

/// Copies the notices and licences of the model folders that networks start from or whose encoders are used. Returns what the plan calls these.
fn notices(workshop: &Workshop<'_>, new: &Path) -> Result<Vec<String>> {
    let networks = workshop.plan.stages.iter().flat_map(|stage: &StagePlan| &stage.networks);
    let mut names: Vec<String> = networks.filter_map(|network| network.start.clone()).collect();
    names.extend(workshop.plan.encoders.model.clone());
    names.sort_unstable();
    names.dedup();
    for (number, name) in names.iter().enumerate() {
        let folder = model_folder(name)?;
        for entry in fs::read_dir(&folder).map_err(file_error(&folder))? {
            let entry = entry.map_err(file_error(&folder))?;
            let file = entry.file_name();
            let text = file.to_string_lossy();
            if entry.path().is_file() && (text.starts_with("NOTICE") || text.starts_with("LICENSE")) {
                copy(&entry.path(), &new.join(NOTICES).join((number + 1).to_string()).join(&file))?;
            }
        }
    }
    Ok(names)
}

fn notice(workshop: &Workshop<'_>, sources: &[String]) -> String {
    let mut text = format!(
        "# Notice\n\nThe weights were trained on {} captioned pictures (fingerprint `{}`) by the plan `{}`, which is in \
         `{RECORDS}/{PLAN}`. Their licence follows from that of the pictures, which ediffi does not know.\n",
        workshop.dataset.len(),
        workshop.data,
        workshop.plan.name,
    );
    for (number, source) in sources.iter().enumerate() {
        let number = number + 1;
        text.push_str(&format!("\nParts come from the model `{source}`; its notices are in `{NOTICES}/{number}`.\n"));
    }
    for (name, path) in [("T5", &workshop.plan.encoders.t5), ("CLIP", &workshop.plan.encoders.clip)] {
        if let Some(path) = path {
            text.push_str(&format!(
                "\nThe {name} is a copy of `{}`, under the licence that it came with.\n",
                path.display()
            ));
        }
    }
    text
}

fn readme(workshop: &Workshop<'_>) -> String {
    let stage = |stage: &StagePlan| {
        let training = workshop.training.stages.iter().find(|found| found.name == stage.name);
        let count = training.map_or(0, |training| experts(training).count());
        format!("| {} | {} | {count} |\n", stage.name, stage.side)
    };
    let stages: String = workshop.plan.stages.iter().map(stage).collect();
    format!(
        "# {}\n\nA model of [ediffi](https://docs.rs/ediffi), trained on {} captioned pictures. `NOTICE.md` says of what it was made, and \
         `{RECORDS}/` how.\n\n```text\nediffi draw --model . \"what it shall show\"\n```\n\n| stage | side | experts |\n|---|---|---|\n{stages}",
        workshop.plan.name,
        workshop.dataset.len(),
    )
}
