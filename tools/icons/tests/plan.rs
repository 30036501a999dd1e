//! The program itself, on a plan of a few steps: killed, resumed, out of room, given what is not its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ediffi_core::weights::WeightsFile;
use ediffi_train::lineage::fingerprint;
use ediffi_train::lock::Lock;
use train_icons::concepts;

/// A CLIP, a T5, a shared base with two experts, and a super-resolution network, for a handful of steps each.
const PLAN: &str = r#"
name = "tiny"
seed = 3
batch = 2
accumulate = 2

[[encoders]]
name = "clip"
training = { steps = 2, learning-rate = 1e-3, ema = 0.5 }

[[encoders]]
name = "t5"
training = { steps = 2, learning-rate = 1e-3, ema = 0.5 }

[[stages]]
name = "base"
sampling = { steps = 2, schedule = { karras = { min = 0.05, max = 80.0, rho = 7.0 } } }
[[stages.networks]]
name = "shared"
cell = "(0, 0)"
training = { steps = 8, learning-rate = 1e-3, cosine = true, ema = 0.5 }
[[stages.networks]]
name = "high"
cell = "(1, 1)"
parent = "shared"
training = { steps = 2, learning-rate = 1e-3, ema = 0.5 }
[[stages.networks]]
name = "low"
cell = "all but (1, 1)"
parent = "shared"
training = { steps = 8, learning-rate = 1e-3, ema = 0.5 }

[[stages]]
name = "sr256"
sampling = { steps = 2, schedule = { karras = { min = 0.05, max = 6.0, rho = 7.0 } } }
[[stages.networks]]
name = "shared"
cell = "(0, 0)"
training = { steps = 2, learning-rate = 1e-3, ema = 0.5 }
[[stages.networks]]
name = "mended"
cell = "(0, 0)"
parent = "shared"
redrawn = { pictures = 3, sigma = [0.5, 2.0], share = 0.5 }
training = { steps = 2, learning-rate = 1e-3, ema = 0.5 }
"#;

/// A folder with the plan and a pack.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        common::pack_of(&concepts::SMALL).save(place.path("pack.json")).unwrap();
        place.plan(PLAN);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn plan(&self, text: &str) {
        std::fs::write(self.path("plan.toml"), text).unwrap();
    }

    /// The program with a checkpoint after every step and no sheets on the way.
    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_train-icons"));
        command.args(self.arguments(more)).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let mut all = vec!["--plan".to_owned(), path("plan.toml"), "--pack".to_owned(), path("pack.json")];
        all.extend(["--folder".to_owned(), path("run")]);
        all.extend(["--checkpoint-minutes", "0", "--sheet-steps", "0"].map(str::to_owned));
        all.extend(more.iter().map(|&argument| argument.to_owned()));
        all
    }

    fn train(&self, more: &[&str]) -> String {
        let output = self.command(more).output().unwrap();
        assert!(output.status.success(), "{}", error(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, more: &[&str]) -> String {
        let output = self.command(more).output().unwrap();
        assert!(!output.status.success());
        error(&output)
    }

    /// Starts the program and kills it as soon as `name` has a checkpoint of step `step` or later, before it is trained.
    fn kill(&self, name: &str, step: u64) {
        self.kill_with(name, step, &[]);
    }

    fn kill_with(&self, name: &str, step: u64, more: &[&str]) {
        let mut child = self.command(more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let checkpoint = self.path("run").join(format!("{name}.checkpoint.safetensors"));
        let began = Instant::now();
        // Until it has begun, a checkpoint is another training's.
        let before = std::fs::metadata(&checkpoint).and_then(|file| file.modified()).ok();
        let changed = || std::fs::metadata(&checkpoint).and_then(|file| file.modified()).ok() != before;
        while !changed() || steps(&checkpoint).is_none_or(|done| done < step) {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            assert!(began.elapsed() < Duration::from_secs(300), "no checkpoint of {name}");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!self.path("run").join(format!("{name}.safetensors")).exists(), "{name} was trained before the kill");
    }

    fn trained(&self, name: &str) -> String {
        fingerprint(&self.path("run").join(name)).unwrap()
    }
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the header of a checkpoint says under `key`, if there is one.
fn header(checkpoint: &Path, key: &str) -> Option<String> {
    Some(WeightsFile::open(checkpoint, |name| Some(name.to_owned())).ok()?.text(key)?.to_owned())
}

/// The steps of a checkpoint, if there is one.
fn steps(checkpoint: &Path) -> Option<u64> {
    header(checkpoint, "step")?.parse().ok()
}

/// Whatever is exported.
const EXPORTS: [&str; 7] = [
    "clip/model.safetensors",
    "t5/model.safetensors",
    "base.shared.safetensors",
    "base.high.safetensors",
    "base.low.safetensors",
    "sr256.shared.safetensors",
    "sr256.mended.safetensors",
];

#[test]
fn a_run_that_is_killed_twice_ends_in_the_very_weights_of_an_unbroken_one() {
    let (whole, broken) = (Place::new(), Place::new());
    let said = whole.train(&[]);
    assert!(said.contains("all but (1, 1)") && said.contains("the model is in"), "{said}");
    // Tokenizers are not trained alike twice; both begin with the same.
    for file in ["clip/tokenizer.json", "t5/tokenizer.json"] {
        let kept = broken.path("run").join(file);
        std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
        std::fs::copy(whole.path("run").join(file), kept).unwrap();
    }
    broken.kill("t5", 1);
    broken.kill("base.shared", 2);
    broken.kill("base.low", 1);
    let said = broken.train(&[]);
    for name in ["clip", "t5", "base.shared", "base.high"] {
        assert!(said.contains(&format!("{name}: trained")), "{said}");
    }
    for name in EXPORTS {
        assert_eq!(broken.trained(name), whole.trained(name), "{name}");
    }
    // What is put together is a model, with the record of its training.
    let model = whole.path("run").join("model");
    let pipeline: serde_json::Value =
        serde_json::from_slice(&std::fs::read(model.join("pipeline.json")).unwrap()).unwrap();
    let experts = pipeline["stages"][0]["experts"].as_array().unwrap();
    assert_eq!(experts.len(), 2);
    assert_eq!(experts[0]["weights"], "base/high.safetensors");
    assert_eq!(experts[0]["sigma"][0], experts[1]["sigma"][1]);
    assert!(experts[0]["sigma"][1].is_null());
    for file in [
        "base/low.safetensors",
        "sr256/config.json",
        "sr256/mended.safetensors",
        "t5/tokenizer.json",
        "training/plan.toml",
    ] {
        assert!(model.join(file).is_file(), "{file}");
    }
}

#[test]
fn what_is_not_of_this_plan_is_refused_by_name_and_trained_anew_when_asked() {
    let place = Place::new();
    let error = place.refused(&["--only", "base.shared"]);
    assert!(error.contains("clip/model.safetensors"), "CLIP comes first: {error}");
    place.train(&["--only", "clip"]);
    let error = place.refused(&["--only", "base.shared"]);
    assert!(error.contains("t5/model.safetensors"), "then T5: {error}");
    place.train(&["--only", "t5"]);
    let error = place.refused(&["--only", "base.high"]);
    assert!(error.contains("high starts from shared, which is not trained yet"), "{error}");
    place.train(&["--only", "base.shared"]);
    let error = place.refused(&["--only", "base.medium"]);
    assert!(error.contains("base.medium") && error.contains("base.high"), "{error}");
    let error = place.refused(&["--only", "sr256.mended"]);
    assert!(error.contains("base.low is to redraw pictures and is not trained yet"), "{error}");
    // Longer: it goes on. With another batch: it is another run.
    place.plan(&PLAN.replacen("steps = 8", "steps = 9", 1));
    place.train(&["--only", "base.shared"]);
    let checkpoint = place.path("run").join("base.shared.checkpoint.safetensors");
    assert_eq!(steps(&checkpoint), Some(9));
    place.plan(&PLAN.replace("batch = 2", "batch = 1"));
    let error = place.refused(&["--only", "base.shared"]);
    assert!(error.contains("batch 2, not 1") && error.contains("--restart base.shared"), "{error}");
    // Of other scenes, and of none that it names.
    let whole = std::fs::read(&checkpoint).unwrap();
    let data = header(&checkpoint, "data").unwrap();
    let with = |from: &str, to: &str| {
        let place = whole.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = whole.clone();
        bytes[place..place + from.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&checkpoint, bytes).unwrap();
    };
    place.plan(&PLAN.replacen("steps = 8", "steps = 10", 1));
    with(&data, &data.chars().rev().collect::<String>());
    let error = place.refused(&["--only", "base.shared"]);
    assert!(error.contains("was trained with data ") && error.contains(&format!("not {data}")), "{error}");
    with("\"data\"", "\"date\"");
    let error = place.refused(&["--only", "base.shared"]);
    assert!(error.contains("does not say with which data"), "{error}");
    // Cut short.
    std::fs::write(&checkpoint, &whole[..whole.len() / 2]).unwrap();
    let error = place.refused(&["--only", "base.shared"]);
    assert!(error.contains("base.shared.checkpoint.safetensors"), "{error}");
    // Killed while it starts over: what was trained before is gone, and the next run goes on from there.
    place.kill_with("base.shared", 1, &["--only", "base.shared", "--restart", "base.shared"]);
    place.train(&["--only", "base.shared"]);
    assert_eq!(steps(&checkpoint), Some(10));
    let error = place.refused(&["--only", "clip", "--restart", "base.shared"]);
    assert!(error.contains("--restart base.shared"), "{error}");
    // Nothing is removed under a program that trains it.
    let weights = place.path("run").join("base.shared.safetensors");
    let lock = Lock::take(place.path("run").join("base.shared.lock")).unwrap();
    let error = place.refused(&["--only", "base.shared", "--restart", "base.shared"]);
    assert!(error.contains("base.shared.lock") && weights.is_file(), "{error}");
    drop(lock);
    // A model of a plan that is not trained to its end is not put together.
    let error = place.refused(&["--only", "clip", "--out", "model"]);
    assert!(error.contains("base.high is not trained"), "{error}");
}

/// A limit on the size of files stands for a full disk: writing beyond it fails.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing_that_is_written() {
    let place = Place::new();
    place.train(&["--only", "clip", "--only", "t5"]);
    place.kill("base.shared", 1);
    let checkpoint = place.path("run").join("base.shared.checkpoint.safetensors");
    let (step, before) = (steps(&checkpoint).unwrap(), std::fs::read(&checkpoint).unwrap());
    // The limit is in blocks of 512 bytes: half of the next checkpoint fits.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", before.len() / 1024);
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_train-icons")])
        .args(place.arguments(&["--only", "base.shared"]))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(error(&output).contains("base.shared.checkpoint.safetensors"), "{}", error(&output));
    assert_eq!(std::fs::read(&checkpoint).unwrap(), before, "the checkpoint of step {step} is untouched");
    place.train(&["--only", "base.shared"]);
    assert_eq!(steps(&checkpoint), Some(8));
}
