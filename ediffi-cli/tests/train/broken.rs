//! Pictures that cannot be read: named, counted, and trained without.

use super::*;

#[test]
fn broken_pictures_are_named_once_and_counted() {
    let room = Room::new();
    pictures(&room.path("pictures"));
    // One of them, at least, is not held out.
    for name in ["007.png", "008.png"] {
        let path = room.path("pictures").join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let only = ["--only", "t5", "--only", "base.shared", "--sheet-steps", "0"];
    let mut command = room.command(&["train", "--plan", "tiny.toml", "--data", "pictures", "--out", "run"]);
    let output = command.args(["--device", "cpu", "--precision", "f32", "--threads", "1"]).args(only).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    for name in ["007.png", "008.png"] {
        let lines = said.lines().filter(|line| line.contains(name) && line.contains("a broken picture is skipped"));
        assert_eq!(lines.count(), 1, "{name}: {said}");
    }
    let count = said.lines().find_map(|line| line.strip_prefix("base.shared: skipped pictures that cannot be read: "));
    // 900 places among 48 pictures: each comes some eighteen times.
    assert!(count.unwrap().parse::<u64>().unwrap() > 10, "{said}");
}

/// A folder in the place of a picture is what a disk that fails is: nothing is trained without it.
#[test]
fn a_disk_that_fails_ends_the_training() {
    let room = Room::new();
    pictures(&room.path("pictures"));
    room.train("tiny.toml", "pictures", "run", &["--only", "t5"]);
    let mut command = room.training("tiny.toml", "pictures", "run", &["--begin", "resume"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    // The data were opened by then.
    while !room.path("run/base.shared.csv").exists() {
        assert!(began.elapsed() < Duration::from_secs(100), "it never came that far");
        std::thread::sleep(Duration::from_millis(3));
    }
    for name in ["007.png", "008.png"] {
        let path = room.path("pictures").join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(path).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("cannot be read") && said.contains("pictures/00"), "{said}");
}
