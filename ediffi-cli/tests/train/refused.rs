//! What is refused, by name, before anything is trained.

use super::*;

#[test]
fn a_plan_that_makes_no_sense_is_refused_by_name() {
    let room = Room::new();
    pictures(&room.path("pictures"));
    for (from, to, named) in [
        ("batch = 6", "batch = 6\nbach = 3", "unknown field `bach`"),
        ("channels = 16", "channels = 16\ncanals = 3", "unknown field `canals`"),
        ("held-out = 0.2", "held-out = 0.9", "data.held-out: 0.9"),
        ("side = 16", "side = 15", "sr.side: 15"),
        ("crop = 8", "crop = 20", "sr.crop: 20"),
        ("low_res = true\n", "", "sr.network: `low_res` is not set"),
        ("width = 8, layers = 1", "width = 12, layers = 1", "encoders: the width of T5 is 12, the networks take 8"),
        ("cell = \"(0, 0)\"", "cell = \"(1, 0)\"", "no ensemble"),
    ] {
        room.plan("wrong.toml", &[(from, to)]);
        let (code, error) = room.fails("wrong.toml", "pictures", "run", &[]);
        assert!(error.contains(named), "{to}: {error}");
        assert_eq!(code, Some(2), "{to}");
        assert!(!room.path("run").exists(), "{to}");
    }
    let (code, error) = room.fails("absent", "pictures", "run", &[]);
    assert!(code == Some(2) && error.contains("\"absent\"") && error.contains("laptop"), "{error}");
    let (_, error) = room.fails("tiny.toml", "pictures", "run", &["--only", "base.low"]);
    assert!(error.contains("base.low") && error.contains("base.shared"), "{error}");
}

#[test]
fn times_that_are_none_are_refused_by_name() {
    let room = Room::new();
    pictures(&room.path("pictures"));
    for (option, value) in [("--timeout-minutes", "0"), ("--timeout-minutes", "nan"), ("--checkpoint-minutes", "inf")] {
        let (code, error) = room.fails("tiny.toml", "pictures", "run", &["--transport", "alone", option, value]);
        assert!(code == Some(2) && error.contains(&format!("{option}: ")), "{value}: {code:?} {error}");
        assert!(!room.path("run").exists());
    }
}

#[test]
fn data_that_are_none_are_refused_by_name() {
    let room = Room::new();
    let (_, error) = room.fails("tiny.toml", "nowhere", "run", &[]);
    assert!(error.contains("nowhere"), "{error}");
    pictures(&room.path("pictures"));
    fs::remove_file(room.path("pictures/007.txt")).unwrap();
    let (_, error) = room.fails("tiny.toml", "pictures", "run", &[]);
    assert!(error.contains("007.png"), "{error}");
    assert!(!room.path("run").exists());
}

#[test]
fn a_folder_of_another_run_is_refused_by_name() {
    let whole = whole();
    let run = whole.path("run");
    let run = run.to_str().unwrap();
    let (code, error) = whole.fails("tiny.toml", "pictures", run, &[]);
    assert!(code == Some(2) && error.contains("holds a run of the plan \"tiny\""), "{error}");
    let room = Room::new();
    pictures(&room.path("pictures"));
    room.plan("other.toml", &[("name = \"tiny\"", "name = \"other\"")]);
    let (_, error) = room.fails("other.toml", "pictures", run, &["--begin", "resume"]);
    assert!(error.contains("its plan is tiny, not other"), "{error}");
    fs::write(room.path("pictures/007.txt"), "something else").unwrap();
    let (_, error) = room.fails("tiny.toml", "pictures", run, &["--begin", "resume"]);
    assert!(error.contains("its data is"), "{error}");
    // The same name and data, and another seed: what was trained says so.
    pictures(&room.path("pictures"));
    room.plan("seed.toml", &[("seed = 3", "seed = 4")]);
    let (_, error) = room.fails("seed.toml", "pictures", run, &["--begin", "resume"]);
    assert!(error.contains("was trained with seed 3, not 4"), "{error}");
    let (_, error) = room.fails("tiny.toml", "pictures", room.path(".").to_str().unwrap(), &[]);
    assert!(error.contains("is not empty, and holds no run"), "{error}");
}
