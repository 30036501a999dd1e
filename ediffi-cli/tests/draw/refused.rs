//! What commands refuse, warn of, and leave alone.

use std::path::Path;
use std::process::Stdio;

use super::{Room, copy, with_fast};

#[test]
fn several_prompts_take_over_and_are_replaced() {
    let room = Room::new();
    room.said(&with_fast(&["draw", "a red apple", "--then", "a cat=5", "--then", "a dog=0.5", "--out", "a.png"]));
    let mixed = |name: &str| ediffi::Request::from_png(room.path(name)).unwrap().mix.len();
    assert_eq!(mixed("a.png"), 2);
    room.said(&with_fast(&["again", "a.png", "--mix", "a cat=0.75", "--out", "b.png"]));
    assert_eq!(mixed("b.png"), 1);
    let (code, error) = room.refused(&with_fast(&["draw", "a", "--mix", "b=0.5", "--then", "c=1"]));
    assert!(code == Some(2) && error.contains("--mix") && error.contains("--then"), "{error}");
}

#[test]
fn nothing_that_was_read_is_written_over() {
    let room = Room::new();
    let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 99]));
    for name in ["given.png", "out.png", "out-2.png"] {
        picture.save(room.path(name)).unwrap();
    }
    std::fs::create_dir(room.path("drawn")).unwrap();
    std::fs::write(room.path("drawn/index.jsonl"), "{\"prompt\": \"a cat\"}\n").unwrap();
    let (code, error) = room.refused(&["batch", "drawn/index.jsonl", "--out", "drawn"]);
    assert!(code == Some(2) && error.contains("drawn/index.jsonl would be written over"), "{error}");
    for arguments in [
        &["edit", "given.png", "a cat", "--mask", "out.png"][..],
        &["edit", "given.png", "a cat", "--mask", "out-2.png", "--images", "2"],
        &["draw", "a cat", "--style", "out-2.png", "--images", "3"],
        &["vary", "out-2.png", "--images", "2"],
        &["vary", "out-2.png", "--out", "./out-2.png"],
    ] {
        let (code, error) = room.refused(&with_fast(arguments));
        assert!(code == Some(2) && error.contains("would be written over"), "{arguments:?}: {error}");
    }
    assert!(room.picture("out-2.png") == picture && room.picture("out.png") == picture);
    assert!(!room.path("out-1.png").exists());
}

#[test]
fn a_variation_keeps_the_size_and_refuses_another_style() {
    let room = Room::new();
    image::RgbImage::from_fn(96, 64, |x, y| image::Rgb([x as u8, y as u8, 99])).save(room.path("wide.png")).unwrap();
    room.said(&with_fast(&["vary", "wide.png", "--strength", "1", "--out", "free.png"]));
    assert_eq!(room.picture("free.png").dimensions(), (96, 64));
    assert!(ediffi::Request::from_png(room.path("free.png")).unwrap().edit.is_none());
    let (code, error) = room.refused(&with_fast(&["vary", "wide.png", "--style", "wide.png"]));
    assert!(code == Some(2) && error.contains("--style"), "{error}");
    // A picture that holds no prompt is nothing to warn of; one whose prompt cannot be read is.
    let warned = |picture: &str| {
        let output = room.run(&with_fast(&["vary", picture, "--dry-run"]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{picture}: {said}");
        said
    };
    assert_eq!(warned("wide.png"), "");
    let attacks = std::fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../attacks/files.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(attacks)).unpack(room.path("attacks")).unwrap();
    let said = warned("attacks/pngs/request-of-the-future.png");
    assert!(said.contains("its prompt is not taken") && said.contains("lens"), "{said}");
}

/// Nothing is drawn first.
#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let room = Room::new();
    let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 99]));
    picture.save(room.path("given.png")).unwrap();
    std::fs::create_dir(room.path("folder")).unwrap();
    std::fs::create_dir(room.path("a-2.png")).unwrap();
    std::fs::write(room.path("requests.jsonl"), "{\"prompt\": \"a cat\"}\n").unwrap();
    std::fs::write(room.path("wrong.json"), "{\"prompt\": 1}").unwrap();
    let red = r#"{"prompt": "a cat", "palette": {"entries": [{"colour": [255, 0, 0], "phrase": "cat"}]}}"#;
    std::fs::write(room.path("red.json"), red).unwrap();
    image::GrayImage::from_pixel(64, 64, image::Luma([255])).save(room.path("mask.png")).unwrap();
    std::fs::write(room.path("damaged.png"), &room.read("given.png")[..60]).unwrap();
    let edit = |more: &[&'static str]| [&["edit", "given.png", "a cat"], more].concat();
    for (arguments, culprits) in [
        (vec!["draw", "a cat", "--out", "folder"], ["--out folder", "it is a folder"]),
        (vec!["draw", "a cat", "--out", "new/"], ["--out new/", "it is a folder"]),
        (vec!["draw", "a cat", "--out", "new/a.png"], ["--out new/a.png", "there is no folder new"]),
        (vec!["draw", "a cat", "--out", "a.png", "--images", "2"], ["--out a.png", "a-2.png is a folder"]),
        (vec!["batch", "requests.jsonl", "--out", "given.png"], ["--out given.png", "it is a file"]),
        (vec!["encode", "a cat", "--out", "folder"], ["--out folder", "it is a folder"]),
        (vec!["encode", "a cat", "--style", "given.png", "--out", "given.png"], ["given.png", "written over"]),
        (vec!["draw", "a cat", "--guidance", "base=1", "--guidance", "base=2"], ["--guidance", "`base` twice"]),
        (
            vec!["draw", "a cat", "--expert-steps", "base.1=1", "--expert-steps", "base.1=2"],
            ["--expert-steps", "`base.1` twice"],
        ),
        (vec!["draw", "a", "--stage-prompt", "base=b", "--stage-prompt", "base=c"], ["--stage-prompt", "`base` twice"]),
        (
            vec!["encode", "a", "--expert-negative", "base.1=b", "--expert-negative", "base.1=c"],
            ["--expert-negative", "`base.1` twice"],
        ),
        (vec!["draw", "a", "--then", "b=5", "--then", "c=5"], ["--then", "`5` twice"]),
        (vec!["draw", "a cat", "--lora", "style@higher"], ["--lora style", "`higher`"]),
        (vec!["plan", "wrong.json"], ["wrong.json", "expected a string"]),
        (vec!["paint", "given.png", "red.json"], ["given.png by red.json", "phrase `cat` is nowhere"]),
        (vec!["draw", "a cat", "--limit", "pixels=4095"], ["the limit is 4095", "pixels"]),
        (vec!["draw", "a cat", "--limit", "pixel=4095"], ["`pixel`", "edit_pixels"]),
        (edit(&["--extend", "left=64,left=32"]), ["--extend", "`left` twice"]),
        (edit(&["--extend", "left=4000000"]), ["--extend", "64x64"]),
        (edit(&["--paint", "cat"]), ["--paint", "--mask or --extend"]),
        (edit(&["--mask", "mask.png", "--paint", ""]), ["--paint", "empty phrase"]),
        (edit(&["--mask", "mask.png", "--paint", "cat", "--layout", "nan"]), ["--layout", "NaN"]),
        (vec!["enlarge", "given.png", "--last-stage", "base"], ["no stage of super-resolution", "up to `base`"]),
    ] {
        let (code, error) = room.refused(&arguments);
        let found = culprits.iter().all(|culprit| error.contains(culprit));
        assert!(code == Some(2) && found, "{arguments:?}: {code:?} {error}");
    }
    let output = room.command(&["batch", "requests.jsonl"]).env("RANK", "x").env("WORLD_SIZE", "2").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && error.contains("RANK is `x`"), "{error}");
    // A picture in which nothing is held, that is cut, or that is not there, failed; it is named, once, and so is the cause.
    for (arguments, culprits) in [
        (vec!["again", "given.png"], ["given.png: ", "holds no request"]),
        (vec!["again", "none.png"], ["cannot read none.png", "because: "]),
        (edit(&["--mask", "damaged.png", "--paint", "cat"]), ["damaged.png: ", "end of file"]),
    ] {
        let (code, error) = room.refused(&arguments);
        let found = culprits.iter().all(|culprit| error.contains(culprit));
        assert!(code == Some(1) && found && error.matches(".png").count() == 1, "{arguments:?}: {code:?} {error}");
    }
}

/// Words painted where it is drawn anew, also with the layout pulled: both replay.
#[test]
fn what_is_painted_into_a_mask_replays() {
    let room = Room::new();
    let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 99]));
    picture.save(room.path("given.png")).unwrap();
    let edit = ["edit", "given.png", "a cat", "--extend", "right=16", "--paint", "cat"];
    let mut drawn = Vec::new();
    for more in [&[][..], &["--layout", "50"]] {
        room.said(&with_fast(&[&edit[..], more, &["--out", "painted.png"]].concat()));
        room.said(&["again", "painted.png", "--out", "again.png", "--device", "cpu", "--precision", "f32"]);
        assert!(room.read("again.png") == room.read("painted.png"));
        // The margin is widened to what the base draws.
        assert_eq!(room.picture("painted.png").dimensions(), (80, 64));
        drawn.push(room.picture("painted.png"));
    }
    assert!(drawn[0] != drawn[1]);
}

/// Where nobody listens to what went wrong, or is said beside the picture, the exit code still says how it went. A pipe that nobody reads fails
/// each line; a descriptor that is closed would be opened anew, and lead nowhere.
#[test]
fn a_standard_error_that_nobody_reads_is_no_panic() {
    let room = Room::new();
    let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 99]));
    picture.save(room.path("given.png")).unwrap();
    for (arguments, expected) in [
        (vec!["again", "none.png"], 1),
        (vec!["draw", "a", "--out", "none/a.png"], 2),
        (vec!["draw", "a", "--steps", "base=0"], 2),
        (vec!["draw", "a", "--no-such-option"], 2),
        (vec!["setup", "--write"], 2),
        (vec!["man", "nowhere"], 2),
        // It says that the margins are widened.
        (with_fast(&["edit", "given.png", "a cat", "--extend", "right=1"]), 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let code = room.command(&arguments).stderr(writer).status().unwrap().code();
        assert_eq!(code, Some(expected), "{arguments:?}");
    }
    assert!(room.path("out.png").is_file());
}

/// `sample` needs no encoder, and neither does saying what it would do.
#[test]
fn a_dry_run_of_embeddings_needs_no_encoder() {
    let room = Room::new();
    room.said(&["encode", "a red apple", "--out", "a.safetensors", "--device", "cpu", "--precision", "f32"]);
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/icons"), &room.path("mute"));
    let manifest = room.path("mute").join("pipeline.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    assert!(json.as_object_mut().unwrap().remove("encoders").is_some());
    std::fs::write(&manifest, json.to_string()).unwrap();
    let said = room.said(&with_fast(&["sample", "a.safetensors", "--model", "mute", "--dry-run"]));
    assert!(said.starts_with("stage base (64x64), expert 0: step 1 of 2, sigma 80"), "{said}");
    let (code, error) = room.refused(&with_fast(&["draw", "a red apple", "--model", "mute", "--dry-run"]));
    assert!(code == Some(2) && error.contains("prompt"), "{error}");
}

/// A device that is not there is not the model's fault.
#[test]
fn a_doctor_tells_the_device_from_the_model() {
    let room = Room::new();
    let output = room.run(&["doctor", "--json", "--device", "cuda:99"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let grade = |what: &str| {
        let lines = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.into_iter().find(|line| line["what"] == what).unwrap()["grade"].clone()
    };
    assert_eq!((grade("device"), grade("model")), ("broken".into(), "ok".into()), "{said}");
    let said = room.said(&["doctor", "--device", "cpu", "--precision", "f32"]);
    assert!(said.contains("the processor in f32: as --precision says"), "{said}");
}

/// A reader that has gone away is an error, not a panic.
#[test]
fn a_closed_pipe_is_no_panic() {
    let room = Room::new();
    for command in [&["completions", "bash"][..], &["models"]] {
        let mut child = room.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains("standard output"), "{command:?}: {error}");
    }
}
