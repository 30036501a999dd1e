//! What has to be there before a row is measured: PyTorch, models, and how much one evaluation computes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ediffi_core::files::{read_json, write_atomic, write_json};
use serde_json::{Value, json};

use crate::alternatives::{CONFIGS, find, preset};
use crate::job::{Case, Job, Precision};
use crate::result::Result;
use crate::rows::MODELS;

/// The program of PyTorch's sides.
pub(crate) const PYTHON_SIDE: &str = "tools/bench/side.py";
const REQUIREMENTS: &str = "tools/bench/requirements.txt";
const VENV: &str = ".bench/venv";
/// Where counts of operations are kept.
const COUNTS: &str = ".bench/flops";
const ICONS: &str = "models/icons";

/// The Python of the bench's own environment, with the pinned packages. What is not whole is made anew.
pub(crate) fn python() -> Result<PathBuf> {
    let venv = Path::new(VENV);
    let (python, marker, wanted) = (venv.join("bin/python"), venv.join("installed"), fs::read(REQUIREMENTS)?);
    if fs::read(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    eprintln!("installing PyTorch, diffusers and transformers into {VENV}: a download of about three GB");
    done(Command::new("python3").args(["-m", "venv", "--clear", VENV]))?;
    let options = ["-m", "pip", "install", "--only-binary=:all:", "--disable-pip-version-check", "-r", REQUIREMENTS];
    done(Command::new(&python).args(options))?;
    write_atomic(&marker, &wanted)?;
    Ok(python)
}

/// What is compared with, by name of the package.
pub(crate) fn versions(python: &Path) -> Result<Value> {
    answer(Command::new(python).args([PYTHON_SIDE, "versions"]))
}

/// Makes the models of a case, where they are some of the bench's own and not there yet.
pub(crate) fn models(case: &Case, python: &Path) -> Result<()> {
    match case {
        Case::Published { folder, .. }
        | Case::T5 { folder, .. }
        | Case::ClipText { folder, .. }
        | Case::ClipImage { folder } => model(folder, python),
        Case::Whole { folder, refiner, .. } => {
            [folder].into_iter().chain(refiner).try_for_each(|folder| model(folder, python))
        }
        Case::Alternative { network, .. } => alternative(network, python),
        Case::Stage(stage) => model(&stage.model, python),
        _ => Ok(()),
    }
}

/// Writes the configuration of a network, where both languages find it.
fn alternative(name: &str, python: &Path) -> Result<()> {
    let folder = Path::new(CONFIGS).join(find(name)?.name);
    fs::create_dir_all(&folder)?;
    match preset(name) {
        Ok(preset) => Ok(write_json(&folder.join("config.json"), &preset)?),
        Err(_) => {
            let mut command = Command::new(python);
            done(command.args([PYTHON_SIDE, "config", name]).arg(folder).env_remove("LD_LIBRARY_PATH"))
        }
    }
}

fn model(folder: &Path, python: &Path) -> Result<()> {
    if folder.exists() || !folder.starts_with(MODELS) {
        return Ok(());
    }
    fs::create_dir_all(MODELS)?;
    let name = folder.file_name().unwrap_or_default();
    if let Some(count) = name.to_str().and_then(|name| name.strip_prefix("experts-")) {
        let unfinished = folder.with_extension("unfinished");
        experts(Path::new(ICONS), &unfinished, count.parse()?)?;
        return Ok(fs::rename(unfinished, folder)?);
    }
    let mut command = Command::new(python);
    done(command.args([PYTHON_SIDE, "make"]).arg(name).arg(folder).env_remove("LD_LIBRARY_PATH"))
}

/// MB of the largest part of a published pipeline in this precision; its files have 16 bits. None of other cases.
pub(crate) fn largest_mb(case: &Case, precision: Precision) -> Result<Option<f64>> {
    let Case::Whole { folder, refiner, .. } = case else { return Ok(None) };
    let mut largest = 0;
    for folder in [folder].into_iter().chain(refiner) {
        for part in fs::read_dir(folder)? {
            let part = part?.path();
            // Each part has its weights in one file.
            for name in ["model.safetensors", "diffusion_pytorch_model.safetensors"] {
                largest = fs::metadata(part.join(name)).map_or(largest, |data| largest.max(data.len()));
            }
        }
    }
    let times = if precision == Precision::F32 { 2.0 } else { 1.0 };
    Ok(Some(largest as f64 * times / 1e6))
}

/// The base of the shipped model with so many experts, which own equal parts of the noise levels' logarithms.
fn experts(icons: &Path, folder: &Path, count: usize) -> Result<()> {
    let mut manifest: Value = read_json(&icons.join("pipeline.json"))?;
    // They speak of all stages.
    manifest["presets"] = json!({});
    let stages = manifest.get_mut("stages").and_then(Value::as_array_mut).ok_or("the shipped model has no stages")?;
    stages.truncate(1);
    let base = stages.first_mut().ok_or("the shipped model has no base")?;
    // It has the network of its stage.
    let weights = base.pointer("/experts/0/weights").and_then(Value::as_str).ok_or("the shipped base has no expert")?;
    let weights = icons.join(weights);
    // The schedule of the base goes from 80 to 0.05.
    let bound = |index: usize| 0.05 * (80.0_f64 / 0.05).powf(index as f64 / count as f64);
    let expert = |index: usize| {
        let low = if index == 0 { 0.0 } else { bound(index) };
        let high = (index + 1 < count).then(|| bound(index + 1));
        json!({ "weights": format!("base/{index}.safetensors"), "sigma": [low, high] })
    };
    base["experts"] = (0..count).map(expert).collect();
    for (part, files) in [("t5", None), ("clip", None), ("base", Some(count))] {
        let (from, to) = (icons.join(part), folder.join(part));
        fs::create_dir_all(&to)?;
        for index in 0..files.unwrap_or(0) {
            fs::copy(&weights, to.join(format!("{index}.safetensors")))?;
        }
        for file in fs::read_dir(&from)? {
            let file = file?;
            if files.is_none() || file.file_name() == "config.json" {
                fs::copy(file.path(), to.join(file.file_name()))?;
            }
        }
    }
    Ok(write_atomic(&folder.join("pipeline.json"), serde_json::to_string_pretty(&manifest)?.as_bytes())?)
}

/// How many operations one evaluation is, as PyTorch counts them from the shapes alone; a multiply-add is two. It is counted once.
pub(crate) fn flop(name: &str, job: &Job, python: &Path) -> Result<f64> {
    let (path, text) = (Path::new(COUNTS).join(format!("{name}.json")), serde_json::to_string(job)?);
    let known: Option<Value> = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let known = known.filter(|known| known.get("job").and_then(Value::as_str) == Some(&text));
    let count = match known {
        Some(known) => known,
        None => answer(Command::new(python).args([PYTHON_SIDE, "flops", &text]))?,
    };
    let flop = count.get("flop").and_then(Value::as_f64).ok_or("PyTorch has counted nothing")?;
    fs::create_dir_all(COUNTS)?;
    write_atomic(&path, json!({ "job": text, "flop": flop }).to_string().as_bytes())?;
    Ok(flop)
}

/// Runs a program to its end; what it says goes where status lines go.
fn done(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdout(Stdio::from(std::io::stderr())).status();
    let status = status.map_err(|error| format!("cannot start {program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed ({status})").into()) }
}

/// The last line that a Python program prints, which is JSON.
fn answer(command: &mut Command) -> Result<Value> {
    let output = command.env_remove("LD_LIBRARY_PATH").stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().filter(|_| output.status.success());
    Ok(serde_json::from_str(last.ok_or_else(|| format!("{PYTHON_SIDE} failed ({})", output.status))?)?)
}

/// A program that was built together with this one.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    if program.is_file() { Ok(program) } else { Err(format!("{} is not built", program.display()).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_experts_open() {
        let icons = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(ICONS);
        for count in [1, 3] {
            let folder = tempfile::tempdir().unwrap();
            experts(&icons, folder.path(), count).unwrap();
            let pipeline = ediffi::Pipeline::open(folder.path()).unwrap();
            assert_eq!(pipeline.manifest().stages[0].experts.len(), count);
        }
    }
}
