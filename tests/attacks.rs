//! Every file of `attacks/files.tar.gz` is refused, with the error that the table there says. A folder has one reader; a folder in
//! `models/` is what differs from a sound model folder.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ediffi::{DeviceChoice, Embeddings, Picture, Pipeline, Precision, Request, StyleEmbedding};
use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{Init, Lora, LoraFile, LoraPart, Scope, WeightsFile, shards};
use ediffi_encoders::TextTokenizer;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::plan::TrainingPlan;
use ediffi_train::state::TrainState;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// The longest error, with its causes. Who writes an input must not decide how much goes into a log.
const LONGEST: usize = 5_000;

type Outcome = Result<(), Box<dyn Error>>;

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_attack_gets_the_error_of_the_table() {
    let table = table();
    let readers = Readers::new();
    let (mut seen, mut wrong) = (0, Vec::new());
    for folder in sorted(readers.attacks.path()) {
        for attack in sorted(&folder) {
            let name = format!("{}/{}", last(&folder), last(&attack));
            let read = || readers.read(&last(&folder), &attack);
            let got = match catch_unwind(AssertUnwindSafe(read)) {
                Ok(Ok(())) => "it was taken".to_owned(),
                Ok(Err(error)) => readers.said(error.as_ref()),
                Err(_) => "a panic".to_owned(),
            };
            if got.len() > LONGEST {
                wrong.push(format!("{name}: an error of {} bytes", got.len()));
            }
            if table.get(&name) != Some(&got) {
                wrong.push(format!("| `{name}` | | {} |", quoted(&got)));
            }
            seen += 1;
        }
    }
    assert!(wrong.is_empty(), "attacks/README.md is not so:\n{}", wrong.join("\n"));
    assert_eq!(seen, table.len(), "attacks/README.md has lines of files that are not there");
}

fn last(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The lines of the table: the file and its error.
fn table() -> BTreeMap<String, String> {
    let text = fs::read_to_string(checkout("attacks/README.md")).unwrap();
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let error = rest.rsplit_once(" | ")?.1.strip_suffix(" |")?;
        Some((name.to_owned(), error.trim_matches('`').trim().replace("\\|", "|")))
    };
    text.lines().filter_map(line).collect()
}

/// An error as a cell of the table.
fn quoted(error: &str) -> String {
    format!("`` {} ``", error.replace('|', "\\|"))
}

/// What reads the attacks.
struct Readers {
    icons: Pipeline,
    /// The attacks, unpacked.
    attacks: TempDir,
    room: TempDir,
}

impl Readers {
    fn new() -> Self {
        let icons = Pipeline::builder(checkout("models/icons")).device(DeviceChoice::Cpu).open().unwrap();
        let attacks = tempfile::tempdir().unwrap();
        let packed = fs::File::open(checkout("attacks/files.tar.gz")).unwrap();
        tar::Archive::new(flate2::read::GzDecoder::new(packed)).unpack(attacks.path()).unwrap();
        Self { icons, attacks, room: tempfile::tempdir().unwrap() }
    }

    /// An error with its causes, without what depends on the machine.
    fn said(&self, error: &dyn Error) -> String {
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            // Some errors tell their cause themselves.
            if !said.contains(&error.to_string()) {
                said.push_str(&format!(": {error}"));
            }
            cause = error.source();
        }
        let said = said.replace(self.room.path().to_str().unwrap(), "FOLDER");
        let said = said.replace(self.attacks.path().to_str().unwrap(), "attacks");
        // libtorch says where in its sources it was.
        said.lines().next().unwrap_or_default().trim().to_owned()
    }

    fn read(&self, folder: &str, path: &Path) -> Outcome {
        let bytes = || fs::read(path);
        match folder {
            "requests" => self.icons.validate(&Request::from_json(&bytes()?)?)?,
            "pngs" => drop(Request::from_png_bytes(&bytes()?)?),
            "pictures" => drop(Picture::from_bytes(&bytes()?)?),
            "models" => self.model(path)?,
            "weights" => weights(path)?,
            "loras" => {
                let network = "ediffi-core/tests/fixtures/stable-diffusion/unet-1/weights.safetensors";
                let mut network = WeightsFile::open(&checkout(network), |name| Some(name.to_owned()))?;
                network.change(&LoraFile::open(&Lora::new(path))?, LoraPart::Network)?;
            }
            "shards" => drop(
                shards(path, |name| Some(name.to_owned()))
                    .map(|_| WeightsFile::open(path, |name| Some(name.to_owned())))??,
            ),
            "checkpoints" => checkpoint(path)?,
            "embeddings" => drop(Embeddings::load(path)?),
            "styles" => drop(StyleEmbedding::load(path)?),
            "spieces" => drop(TextTokenizer::t5(path, 1, 0, 8)?.encode(&["a cat"], 8)?),
            "tokenizers" => drop(TextTokenizer::clip(path, 16, 8)?.encode(&["a cat"], 8)?),
            "plans" => drop(TrainingPlan::open(path)?),
            other => panic!("no reader for {other}"),
        }
        Ok(())
    }

    /// Opens and draws with a sound model in which the files of `path` stand in the place of its own.
    fn model(&self, path: &Path) -> Outcome {
        let folder = self.room.path().join(last(path));
        for (from, to) in [
            ("ediffi-core/tests/fixtures/ediffi/adm-patch", "base"),
            ("ediffi-encoders/tests/fixtures/t5", "t5"),
            ("ediffi-encoders/tests/fixtures/clip", "clip"),
        ] {
            copy(&checkout(from), &folder.join(to));
        }
        copy(path, &folder);
        let pipeline = Pipeline::builder(folder).device(DeviceChoice::Cpu).precision(Precision::F32).open()?;
        // Encoders are read for a prompt alone.
        let words = pipeline.manifest().encoders.t5.is_some();
        pipeline.generate(&if words { Request::new("a cat").truncate(true) } else { Request::unconditional() })?;
        Ok(())
    }
}

/// Copies the files of a folder and of the folders in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in sorted(from) {
        let to = to.join(last(&path));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

/// Reads a file of weights as a network that has just its tensors.
fn weights(path: &Path) -> Outcome {
    let file = WeightsFile::open(path, |name| Some(name.to_owned()))?;
    let shape = |shape: &[usize]| shape.iter().map(|&side| side as i64).collect::<Vec<i64>>();
    let tensors: Vec<(String, Vec<i64>)> = file.shapes().map(|(name, sides)| (name.to_owned(), shape(sides))).collect();
    file.build(Device::Cpu, Kind::Float, |mut scope: Scope<'_>| {
        tensors.iter().try_for_each(|(name, shape)| scope.weight(name, shape, Init::Zeros).map(drop))
    })?;
    let runtime = Runtime::new(DeviceChoice::Cpu, Precision::F32)?;
    ediffi::Enlarger::open(path, runtime)?;
    Ok(())
}

/// Goes on with a training of one parameter.
fn checkpoint(path: &Path) -> Outcome {
    let parameters = vec![("a".to_owned(), Tensor::zeros([2], (Kind::Float, Device::Cpu)))];
    Ok(TrainState::new(parameters, AdamWSettings::default(), 0.9)?.resume(path)?)
}
