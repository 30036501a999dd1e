//! The commands that draw, run as programs on the shipped model's base.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

mod published;
mod refused;

/// A folder to work in, which is the program's.
struct Room(TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.clean(Command::new(env!("CARGO_BIN_EXE_ediffi")));
        command.args(arguments);
        command
    }

    /// A command in this room that no launcher has started.
    fn clean(&self, mut command: Command) -> Command {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/icons");
        command.current_dir(self.0.path()).env("EDIFFI_MODEL", model);
        for launcher in ["SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "RANK"] {
            command.env_remove(launcher);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that succeeds writes to standard output.
    fn said(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code and standard error.
    fn refused(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn picture(&self, name: &str) -> image::RgbImage {
        image::open(self.path(name)).unwrap().into_rgb8()
    }
}

/// As fast as a picture can be.
const FAST: [&str; 8] = ["--last-stage", "base", "--steps", "base=2", "--device", "cpu", "--precision", "f32"];

fn with_fast<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &FAST].concat()
}

#[test]
fn a_picture_is_drawn_and_drawn_again() {
    let room = Room::new();
    let said = room.said(&with_fast(&["draw", "a red apple", "--seed", "7", "--out", "a.png"]));
    assert_eq!(said, "a.png\n");
    assert_eq!(room.picture("a.png").dimensions(), (64, 64));
    assert_eq!(room.said(&["again", "a.png", "--out", "b.png", "--device", "cpu", "--precision", "f32"]), "b.png\n");
    assert!(room.read("a.png") == room.read("b.png"));
    let said = room.said(&with_fast(&["draw", "a red apple", "--images", "2", "--json"]));
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["file"], &lines[1]["seed"]), (2, &"out-2.png".into(), &1.into()));
    assert!(room.path("out-1.png").is_file() && room.path("out-2.png").is_file());
}

#[test]
fn prompts_are_mixed_and_seeds_varied() {
    let room = Room::new();
    let draw = |arguments: &[&str], out| {
        let seed: &[&str] = if arguments.contains(&"--seed") { &[] } else { &["--seed", "7"] };
        room.said(&with_fast(&[&["draw", "a red apple", "--out", out], seed, arguments].concat()));
        room.picture(out)
    };
    let plain = draw(&[], "plain.png");
    assert!(draw(&["--mix", "a cat=0"], "same.png") == plain);
    let cat = draw(&["--mix", "a cat=1"], "cat.png");
    assert!(draw(&["--stage-prompt", "base=a cat"], "told.png") == cat && cat != plain);
    let later = draw(&["--then", "a cat=1"], "later.png");
    assert!(later != plain && later != cat);
    let near = draw(&["--near", "8=0"], "near.png");
    assert!(near == draw(&["--seed", "8"], "eight.png") && near != plain);
    assert_eq!(
        room.said(&["again", "later.png", "--out", "b.png", "--device", "cpu", "--precision", "f32"]),
        "b.png\n"
    );
    assert!(room.read("later.png") == room.read("b.png"));
    let (code, error) = room.refused(&with_fast(&["draw", "a", "--mix", "a cat=0.9", "--mix", "a dog=0.9"]));
    assert!(code == Some(2) && error.contains("add up to 1.8"), "{error}");
}

#[test]
fn a_dry_run_and_a_plan_draw_nothing() {
    let room = Room::new();
    let said = room.said(&with_fast(&["draw", "a cat", "--dry-run"]));
    assert!(said.starts_with("stage base (64x64), expert 0: step 1 of 2, sigma 80"), "{said}");
    let weights = said.lines().last().unwrap();
    assert!(weights.starts_with("weights: ") && weights.contains("base (2 experts) "), "{said}");
    assert!(weights.ends_with(" the largest"), "{said}");
    std::fs::write(room.path("request.json"), r#"{"prompt": "a cat", "last_stage": "sr256"}"#).unwrap();
    let said = room.said(&["plan", "request.json", "--json"]);
    let stages: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((stages.len(), &stages[1]["width"], stages[0]["steps"].as_array().unwrap().len()), (2, &256.into(), 20));
    assert!(stages[0]["experts"].as_array().unwrap().iter().all(|expert| expert["bytes"].as_u64() > Some(7_000_000)));
    assert_eq!(std::fs::read_dir(room.0.path()).unwrap().count(), 1);
}

#[test]
fn pictures_are_edited_and_enlarged() {
    let room = Room::new();
    let given = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 99]));
    given.save(room.path("given.png")).unwrap();
    let mask = image::GrayImage::from_fn(64, 64, |x, _| image::Luma([if x < 32 { 255 } else { 0 }]));
    mask.save(room.path("mask.png")).unwrap();
    room.said(&with_fast(&["edit", "given.png", "a cat", "--mask", "mask.png", "--out", "edited.png"]));
    let edited = room.picture("edited.png");
    assert!((32..64).all(|x| (0..64).all(|y| edited.get_pixel(x, y) == given.get_pixel(x, y))));
    assert!(edited != given);
    room.said(&with_fast(&["edit", "given.png", "a cat", "--strength", "0", "--out", "same.png"]));
    assert!(room.picture("same.png") == given);
    let wide: &[&str] = &["edit", "given.png", "a cat", "--extend", "left=16,right=16", "--jumps", "1x1"];
    room.said(&with_fast(&[wide, &["--out", "wide.png"]].concat()));
    let wide = room.picture("wide.png");
    assert_eq!(wide.dimensions(), (96, 64));
    // Two pixels at each side are the seam.
    assert!((2..62).all(|x| (0..64).all(|y| wide.get_pixel(x + 16, y) == given.get_pixel(x, y))));
    let (code, error) = room.refused(&with_fast(&["edit", "given.png", "a cat", "--extend", "up=16"]));
    assert!(code == Some(2) && error.contains("`up` is not left"), "{error}");
    let vary = |arguments: &[&str], out| {
        room.said(&with_fast(&[&["vary", "given.png", "--out", out], arguments].concat()));
        room.picture(out)
    };
    let (one, other) = (vary(&["--seed", "1"], "one.png"), vary(&["--seed", "2"], "other.png"));
    assert!(one != other && one != vary(&["--seed", "1", "--seen", "0"], "unseen.png"));
    assert!(one != vary(&["--seed", "1", "--strength", "1"], "free.png"));
    assert!(vary(&["--strength", "0"], "unvaried.png") == given);
    // The picture that ediffi drew says what it shows.
    room.said(&with_fast(&["vary", "edited.png", "--out", "held.png"]));
    let held = ediffi::Request::from_png(room.path("held.png")).unwrap();
    assert!(held.prompt == "a cat" && held.style.is_some());
    room.said(&with_fast(&["vary", "edited.png", "", "--out", "silent.png"]));
    assert!(ediffi::Request::from_png(room.path("silent.png")).unwrap().unconditional);
    room.said(&["enlarge", "given.png", "--last-stage", "sr256", "--steps", "sr256=1", "--out", "large.png"]);
    assert_eq!(room.picture("large.png").dimensions(), (256, 256));
    let (code, error) = room.refused(&with_fast(&["edit", "mask-of-nothing.png", "a cat"]));
    assert!(code == Some(1) && error.contains("mask-of-nothing.png"), "{error}");
}

fn batch(room: &Room) {
    let line = |line: usize| {
        let images = if line == 3 { 2 } else { 1 };
        format!(
            r#"{{"prompt": "a cat", "seed": {line}, "images": {images}, "last_stage": "base", "stages": {{"base": {{"steps": 4}}}}}}"#
        )
    };
    let lines: Vec<String> = (1..=6).map(|number| if number == 4 { String::new() } else { line(number) }).collect();
    std::fs::write(room.path("requests.jsonl"), lines.join("\n")).unwrap();
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

/// Waits until there are so many pictures, and kills the program.
fn kill_at(mut child: Child, folder: &Path, pictures: usize) {
    let began = Instant::now();
    let count = || {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.filter(|file| file.path().extension().is_some_and(|ending| ending == "png")).count()
    };
    while count() < pictures && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was killed at work");
}

const CPU: [&str; 4] = ["--device", "cpu", "--precision", "f32"];

#[test]
fn a_batch_killed_twice_ends_with_the_same_bytes() {
    let room = Room::new();
    batch(&room);
    let arguments =
        |out: &'static str| [&["batch", "requests.jsonl", "--together", "2", "--out", out][..], &CPU].concat();
    room.said(&arguments("whole"));
    let whole = contents(&room.path("whole"));
    let names: Vec<&str> = whole.keys().map(String::as_str).collect();
    let files = ["000001.png", "000002.png", "000003-1.png", "000003-2.png", "000005.png", "000006.png", "index.jsonl"];
    assert_eq!(names, files);
    for pictures in [1, 3] {
        let mut command = room.command(&arguments("killed"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        kill_at(child, &room.path("killed"), pictures);
    }
    room.said(&arguments("killed"));
    assert!(contents(&room.path("killed")) == whole);
    // Another request in the place of one that is drawn.
    let text = std::fs::read_to_string(room.path("requests.jsonl")).unwrap();
    std::fs::write(room.path("requests.jsonl"), text.replacen("a cat", "a dog", 1)).unwrap();
    let (code, error) = room.refused(&arguments("killed"));
    assert!(code == Some(1) && error.contains("000001.png was made otherwise (another request)"), "{error}");
}

#[test]
fn processes_share_a_batch() {
    let room = Room::new();
    batch(&room);
    for rank in ["0", "1"] {
        let mut command =
            room.command(&[&["batch", "requests.jsonl", "--together", "2", "--out", "shared"][..], &CPU].concat());
        let output = command.env("RANK", rank).env("WORLD_SIZE", "2").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let shared = contents(&room.path("shared"));
    assert_eq!(shared.len(), 8, "six pictures, and an index of each");
    // The same pictures as of one process.
    room.said(&[&["batch", "requests.jsonl", "--together", "2", "--out", "alone"][..], &CPU].concat());
    let alone = contents(&room.path("alone"));
    assert!(shared.iter().filter(|(name, _)| name.ends_with("png")).all(|(name, bytes)| alone[name] == *bytes));
    let lines = |name: &str| String::from_utf8(shared[name].clone()).unwrap().lines().count();
    assert_eq!((lines("index-1-of-2.jsonl"), lines("index-2-of-2.jsonl")), (3, 2));
}

#[test]
fn what_is_wrong_is_told_before_anything_is_drawn() {
    let room = Room::new();
    let (code, error) = room.refused(&["draw", "a cat", "--steps", "base=0", "--size", "100x64"]);
    assert!(code == Some(2) && error.contains("steps") && error.contains("width 100"), "{error}");
    let (code, error) = room.refused(&["draw", "a cat", "--stepps", "base=1"]);
    assert!(code == Some(2) && error.contains("--stepps"), "{error}");
    std::fs::write(room.path("wrong.jsonl"), "{\"prompt\": \"a cat\"}\n{\"promt\": 1}\n{\"prompt\": \"\"}\n").unwrap();
    let (code, error) = room.refused(&["batch", "wrong.jsonl"]);
    assert!(
        code == Some(2) && error.contains("line 2") && error.contains("line 3") && !error.contains("line 1:"),
        "{error}"
    );
    assert!(!room.path("batch").exists());
    let (code, error) = room.refused(&["models", "--model", "nowhere"]);
    assert!(code == Some(1) && error.contains("nowhere"), "{error}");
}

#[test]
fn models_completions_and_manuals_are_there() {
    let room = Room::new();
    let said = room.said(&["models"]);
    assert!(said.contains("stage sr1024: 1024x1024") && said.contains("preset fast"), "{said}");
    assert!(room.said(&["models", "--json"]).contains("ediffi-pipeline/1"));
    assert!(room.said(&["completions", "bash"]).contains("enlarge"));
    let output = room.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "without a command it shows its help");
    room.said(&["man", "."]);
    assert!(String::from_utf8(room.read("ediffi-draw.1")).unwrap().contains("prompt"));
    let (code, error) = room.refused(&["man", "nowhere"]);
    assert!(code == Some(2) && error.contains("nowhere: there is no such folder"), "{error}");
    // What is left out there stands here.
    let (short, long) = (room.said(&["edit", "-h"]), room.said(&["edit", "--help"]));
    assert!(short.contains("see more with '--help'") && !short.contains("--expert-steps"), "{short}");
    assert!(long.contains("--expert-steps") && long.contains("edit_pixels"), "{long}");
}

#[test]
fn what_is_painted_is_drawn() {
    let room = Room::new();
    let paint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/paint");
    let [canvas, regions] = ["canvas.png", "regions.json"].map(|file| paint.join(file).display().to_string());
    let output = room.run(&with_fast(&["paint", &canvas, &regions, "--tokens", "--seed", "3", "--out", "painted.png"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("red apple: t5 [") && said.contains("cat: clip ["), "{said}");
    let prompt = "a red apple and a cat on a white background, noto style";
    room.said(&with_fast(&["draw", prompt, "--seed", "3", "--out", "plain.png"]));
    assert!(room.picture("painted.png") != room.picture("plain.png"));
    std::fs::write(room.path("wrong.json"), r#"{"prompt": "a", "pallette": 1}"#).unwrap();
    let (code, error) = room.refused(&with_fast(&["paint", &canvas, "wrong.json"]));
    assert!(code == Some(2) && error.contains("wrong.json") && error.contains("pallette"), "{error}");
}

#[test]
fn embeddings_are_kept_and_drawn() {
    let room = Room::new();
    let model = ["--device", "cpu", "--precision", "f32"];
    let said =
        room.said(&[&["encode", "a red apple", "--negative", "a cat", "--out", "a.safetensors"], &model[..]].concat());
    assert_eq!(said, "a.safetensors\n");
    room.said(&with_fast(&["sample", "a.safetensors", "--seed", "7", "--out", "kept.png"]));
    room.said(&with_fast(&["draw", "a red apple", "--negative", "a cat", "--seed", "7", "--out", "drawn.png"]));
    assert!(room.read("kept.png") == room.read("drawn.png"));
    // Other prompts have to be in the file.
    let mixed = ["--mix", "a cat=0.5"];
    room.said(&[&["encode", "a red apple", "--out", "b.safetensors"], &mixed[..], &model].concat());
    room.said(&with_fast(&[&["sample", "b.safetensors", "--out", "both.png"], &mixed[..]].concat()));
    room.said(&with_fast(&[&["draw", "a red apple", "--out", "plain.png"], &mixed[..]].concat()));
    assert!(room.read("both.png") == room.read("plain.png"));
    let (code, error) = room.refused(&with_fast(&["sample", "a.safetensors", "--negative", "a dog"]));
    assert!(code == Some(2) && error.contains("the negative prompt"), "{error}");
}

#[test]
fn pictures_are_shown_in_a_terminal() {
    let room = Room::new();
    let shown = |protocol: &str| {
        let output = room.run(&with_fast(&["draw", "a cat", "--preview-in", protocol]));
        assert!(output.status.success(), "{protocol}");
        assert_eq!(output.stdout, b"out.png\n");
        String::from_utf8(output.stderr).unwrap()
    };
    // What the stage has drawn, and the picture.
    assert_eq!(shown("kitty").matches("\x1b_Ga=T").count(), 2);
    assert_eq!(shown("sixel").matches("\x1bPq\"1;1;64;64").count(), 2);
    let mut unknown = room.command(&with_fast(&["draw", "a cat", "--preview-in", "auto", "--out", "none.png"]));
    // A terminal that shows pictures, but standard error is a pipe.
    let output = unknown.env("TERM", "foot").output().unwrap();
    assert!(output.status.success() && room.path("none.png").exists());
    assert!(!output.stderr.contains(&0x1b), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_doctor_says_what_is_wrong() {
    let room = Room::new();
    let said = room.said(&["doctor"]);
    for what in ["ediffi", "libtorch", "processor", "threads", "CUDA", "device", "model", "memory"] {
        assert!(said.lines().any(|line| line.split_whitespace().nth(1) == Some(what)), "{what}:\n{said}");
    }
    assert!(said.contains("base 64x64"), "{said}");
    let output = room.run(&["doctor", "--json", "--model", "nowhere"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let model = lines.iter().find(|line| line["what"] == "model").unwrap();
    assert!(output.status.code() == Some(1) && model["grade"] == "broken", "{said}");
    assert!(model["advice"].as_str().unwrap().contains("--model"), "{said}");
    // A file of weights that is no longer whole.
    let icons = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/icons");
    copy(&icons, &room.path("broken"));
    let weights = room.path("broken").join("base");
    let file = std::fs::read_dir(weights).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "safetensors")).unwrap();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let (code, error) = room.refused(&["doctor", "--model", "broken"]);
    assert!(code == Some(1) && error.contains("broken: model"), "{error}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => assert!(std::fs::copy(entry.path(), to).unwrap() > 0),
        }
    }
}
