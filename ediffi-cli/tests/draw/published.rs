//! Published folders at the command line.

use std::path::{Path, PathBuf};

use super::Room;

/// A folder of Stable Diffusion, of the tiny networks that the library is tested with.
fn published(room: &Room, name: &str) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ediffi-core/tests/fixtures/stable-diffusion");
    let copy = |from: PathBuf, to: &str| {
        let to = room.path(name).join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    copy(fixtures.join("sd-1/model_index.json"), "model_index.json");
    for part in ["scheduler", "text_encoder", "tokenizer"] {
        for file in std::fs::read_dir(fixtures.join("sd-1").join(part)).unwrap().flatten() {
            copy(file.path(), &format!("{part}/{}", file.file_name().to_str().unwrap()));
        }
    }
    for (part, of) in [("unet", "unet-1"), ("vae", "vae")] {
        copy(fixtures.join(of).join("config.json"), &format!("{part}/config.json"));
        copy(fixtures.join(of).join("weights.safetensors"), &format!("{part}/diffusion_pytorch_model.safetensors"));
    }
}

#[test]
fn published_folders_are_experts_by_steps() {
    let room = Room::new();
    published(&room, "one");
    published(&room, "two");
    let with = |more: &[&'static str]| {
        let plain =
            ["draw", "a cat", "--model", "one", "--expert", "steps:-2..=two", "--steps", "base=6", "--device", "cpu"];
        [&plain[..], &["--precision", "f32", "--solver", "base=euler"], more].concat()
    };
    let said = room.said(&with(&["--dry-run", "--expert-guidance", "base.1=3", "--expert-steps", "base.0=3"]));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("expert 0: steps 1-3 of 5, ") && lines[0].ends_with(", steps of its own"), "{said}");
    assert!(lines[1].contains("expert 1: steps 4-5 of 5, ") && lines[1].ends_with(", guidance 3"), "{said}");
    let said = room.said(&with(&["--dry-run", "--json", "--expert-solver", "base.1=heun"]));
    let plan: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!((&plan["experts"][1]["solver"], plan["experts"][0]["guidance"].as_f64()), (&"heun".into(), Some(7.5)));
    assert_eq!(plan["experts"][1]["weights"], "two/unet/diffusion_pytorch_model.safetensors");
    room.said(&with(&["--out", "a.png", "--expert-negative", "base.1=blur"]));
    room.said(&with(&["--out", "b.png"]));
    assert!(room.picture("a.png") != room.picture("b.png"));
    let (code, error) = room.refused(&with(&["--expert", "fraction:0.99..=two"]));
    assert!(code == Some(1) && error.contains("both are the expert"), "{error}");
    let (code, error) = room.refused(&with(&["--expert-guidance", "base=3"]));
    assert!(code == Some(2) && error.contains("STAGE.NUMBER=VALUE"), "{error}");
    let (code, error) = room.refused(&with(&["--expert-guidance", "base.2=3"]));
    assert!(code == Some(2) && error.contains("there is no expert 2"), "{error}");
}
