//! The walk of a newcomer: from a folder of captioned pictures, or shards, to a model that draws; killed on the way, refused, and gone on from.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

mod broken;
mod fine_tune;
mod kills;
mod laptop;
mod refused;
#[cfg(feature = "mpi")]
mod together;

/// Two stages, a T5 of their own, and everything that can be switched on, in seconds.
const PLAN: &str = include_str!("tiny.toml");

/// A folder with the plan and the data, and what is trained in it.
struct Room(TempDir);

impl Room {
    fn new() -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        fs::write(room.path("tiny.toml"), PLAN).unwrap();
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The plan, changed.
    fn plan(&self, name: &str, change: &[(&str, &str)]) {
        let changed = change.iter().fold(PLAN.to_owned(), |plan, (from, to)| {
            assert!(plan.contains(from), "{from}");
            plan.replace(from, to)
        });
        fs::write(self.path(name), changed).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ediffi"));
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/icons");
        command.args(arguments).current_dir(self.0.path()).env("EDIFFI_MODEL", model);
        command
    }

    /// A training in the folder `out`, as small as can be.
    fn training(&self, plan: &str, data: &str, out: &str, more: &[&str]) -> Command {
        let mut command = self.command(&["train", "--plan", plan, "--data", data, "--out", out]);
        command.args(["--device", "cpu", "--precision", "f32", "--threads", "1", "--sheet-steps", "30"]).args(more);
        command
    }

    fn said(output: &Output) -> String {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout.clone()).unwrap()
    }

    fn train(&self, plan: &str, data: &str, out: &str, more: &[&str]) -> String {
        Self::said(&self.training(plan, data, out, more).output().unwrap())
    }

    /// Exit code and standard error of a training that fails.
    fn fails(&self, plan: &str, data: &str, out: &str, more: &[&str]) -> (Option<i32>, String) {
        let output = self.training(plan, data, out, more).output().unwrap();
        assert!(!output.status.success(), "{plan} {data} {out} {more:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn draw(&self, model: &str, out: &str) -> image::RgbImage {
        let arguments = ["draw", "a red square", "--model", model, "--seed", "7", "--out", out, "--device", "cpu"];
        Self::said(&self.command(&arguments).args(["--precision", "f32"]).output().unwrap());
        image::open(self.path(out)).unwrap().into_rgb8()
    }
}

/// A picture with its name and its caption.
type Captioned = (String, String, image::RgbImage);

/// 60 pictures of a square or a bar, as a folder of PNGs with captions beside them.
fn pictures(folder: &Path) {
    folder_of(samples(60), folder);
}

/// Pictures as a folder of PNGs with captions beside them.
fn folder_of(samples: impl Iterator<Item = Captioned>, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (name, caption, picture) in samples {
        picture.save(folder.join(format!("{name}.png"))).unwrap();
        fs::write(folder.join(format!("{name}.txt")), caption).unwrap();
    }
}

/// The same pictures in tar shards of 32.
fn shards_of(samples: impl Iterator<Item = Captioned>, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let samples: Vec<_> = samples.collect();
    for (number, part) in samples.chunks(32).enumerate() {
        let mut tar = tar::Builder::new(fs::File::create(folder.join(format!("{number:04}.tar"))).unwrap());
        let mut add = |name: String, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        for (name, caption, picture) in part {
            let mut png = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
            add(format!("{name}.png"), png.get_ref());
            add(format!("{name}.txt"), caption.as_bytes());
        }
        tar.finish().unwrap();
    }
}

/// So many pictures of a square or a bar.
fn samples(count: u32) -> impl Iterator<Item = Captioned> {
    let colours = [("red", [220, 30, 30]), ("green", [30, 200, 40]), ("blue", [30, 40, 230])];
    (0..count).map(move |number| {
        let (colour, rgb) = colours[number as usize % 3];
        let (shape, wide) = if number % 2 == 0 { ("square", 8) } else { ("bar", 14) };
        let (left, top) = (number % 5, number % 7);
        let picture = image::RgbImage::from_fn(24, 20 + number % 3, |x, y| {
            let inside = (left..left + wide).contains(&x) && (top..top + 8).contains(&y);
            image::Rgb(if inside { rgb } else { [240, 240, 240] })
        });
        (format!("{number:03}"), format!("a {colour} {shape}"), picture)
    })
}

/// Everything trained that a folder holds, by name: the numbers, without the headers, which say things in any order.
fn weights(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "safetensors") {
                let bytes = fs::read(&path).unwrap();
                let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, bytes[8 + header..].to_vec());
            }
        }
    }
    found
}

/// Files that differ, or that only one has.
fn differing(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = (weights(a), weights(b));
    let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
    names.filter(|name| a.get(*name) != b.get(*name)).cloned().collect()
}

/// An unbroken run from a folder of pictures, trained once for all tests: the room, its data `pictures`, and its run `run`.
fn whole() -> &'static Room {
    static WHOLE: OnceLock<Room> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let room = Room::new();
        pictures(&room.path("pictures"));
        let said = room.train("tiny.toml", "pictures", "run", &[]);
        assert_eq!(said, "run/model\n");
        room
    })
}

#[test]
fn a_newcomer_s_pictures_become_a_model_that_draws() {
    let room = whole();
    let run = room.path("run");
    assert_eq!(room.draw("run/model", "a.png").dimensions(), (16, 16));
    let text = |name: &str| fs::read_to_string(run.join(name)).unwrap();
    // Steps 30, 60, …: the mean and two ranges of noise levels.
    let validation = text("base.shared.validation.csv");
    let lines: Vec<&str> = validation.lines().collect();
    assert!(lines.len() == 6 && lines[1].starts_with("30,") && lines[1].split(',').count() == 4, "{validation}");
    let mean = |line: &str| line.split(',').nth(1).unwrap().parse::<f64>().unwrap();
    assert!(mean(lines[5]) < 0.8 * mean(lines[1]), "it learns: {validation}");
    for sheet in ["base.shared-000000150.png", "sr.shared-000000030.png"] {
        assert!(image::open(run.join("sheets").join(sheet)).unwrap().width() > 16, "{sheet}");
    }
    let kept: Vec<_> = weights(&run.join("kept")).into_keys().filter(|name| name.starts_with("base")).collect();
    assert_eq!(
        kept,
        ["base.shared-000000100.safetensors", "base.shared-000000150.safetensors", "base.shared-best.safetensors"]
    );
    let events = fs::read_dir(run.join("tensorboard/base.shared")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::metadata(events).unwrap().len() > 1000);
    let notice = text("model/NOTICE.md");
    assert!(notice.contains("60 captioned pictures") && notice.contains("plan `tiny`"), "{notice}");
    for file in ["README.md", "training/plan.toml", "training/base.shared.csv", "t5/tokenizer.json", "sr/config.json"] {
        assert!(run.join("model").join(file).is_file(), "{file}");
    }
}

#[test]
fn shards_give_the_weights_of_the_folder() {
    let (room, whole) = (Room::new(), whole());
    shards_of(samples(60), &room.path("shards"));
    room.train("tiny.toml", "shards", "run", &[]);
    assert_eq!(differing(&room.path("run"), &whole.path("run")), [""; 0]);
}

#[test]
fn embeddings_that_were_kept_give_the_weights_of_the_encoders() {
    let (room, whole) = (Room::new(), whole());
    pictures(&room.path("pictures"));
    room.train("tiny.toml", "pictures", "run", &["--encode-only", "--embeddings", "kept"]);
    assert!(room.path("run/t5/model.safetensors").is_file() && !room.path("run/base.shared.safetensors").exists());
    let before = fs::metadata(room.path("run/t5/model.safetensors")).unwrap().modified().unwrap();
    room.train("tiny.toml", "pictures", "run", &["--begin", "resume", "--embeddings", "kept"]);
    assert_eq!(fs::metadata(room.path("run/t5/model.safetensors")).unwrap().modified().unwrap(), before);
    assert_eq!(differing(&room.path("run"), &whole.path("run")), [""; 0]);
}

/// At a rate that spoils the network, validation ends the training, and the weights before are the model's.
#[test]
fn validation_ends_a_training_that_gets_worse() {
    let room = Room::new();
    pictures(&room.path("pictures"));
    let changes = [
        ("validation = { every = 30,", "validation = { patience = 2, every = 10,"),
        ("keep = { every = 50, last = 2 }", "keep = { export = \"best\" }"),
        ("steps = 150, learning-rate = 3e-3, warm-up = 10", "steps = 1500, learning-rate = 0.3, warm-up = 0"),
    ];
    room.plan("ends.toml", &changes);
    room.train("ends.toml", "pictures", "run", &["--only", "t5", "--only", "base.shared"]);
    let run = room.path("run");
    let rows = fs::read_to_string(run.join("base.shared.validation.csv")).unwrap();
    let rows: Vec<Vec<f64>> =
        rows.lines().skip(1).map(|line| line.split(',').map(|field| field.parse().unwrap()).collect()).collect();
    let (last, means): (f64, Vec<f64>) = (rows.last().unwrap()[0], rows.iter().map(|row| row[1]).collect());
    assert!(last < 1500.0, "it did not end: {means:?}");
    let best = means.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(means.iter().position(|mean| *mean == best) == Some(means.len() - 3), "{means:?}");
    let of = |file: &str| weights(&run).remove(file).unwrap();
    assert!(of("base.shared.safetensors") == of("kept/base.shared-best.safetensors"));
    assert!(!run.join("model").exists(), "super-resolution is not trained");
    let trained = || fs::metadata(run.join("base.shared.safetensors")).unwrap().modified().unwrap();
    let before = trained();
    room.train("ends.toml", "pictures", "run", &["--only", "base.shared", "--begin", "resume"]);
    assert_eq!(trained(), before, "it was trained on");
}

#[test]
fn a_plan_is_shown_and_written() {
    let room = Room::new();
    let shown = Room::said(&room.command(&["train", "--plan", "paper-d", "--print"]).output().unwrap());
    assert!(shown.contains("e9-511") && shown.contains("stage sr1024"), "{shown}");
    let toml = Room::said(&room.command(&["train", "--plan", "laptop", "--toml"]).output().unwrap());
    fs::write(room.path("own.toml"), &toml).unwrap();
    assert_eq!(Room::said(&room.command(&["train", "--plan", "own.toml", "--toml"]).output().unwrap()), toml);
}
