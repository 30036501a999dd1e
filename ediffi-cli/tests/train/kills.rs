//! Killed at any time, a training goes on as if nothing had been.

use super::*;

/// Long enough for a machine with other work; only a failing test waits it out.
const PATIENCE: Duration = Duration::from_secs(100);

/// Waits until `due`, while the training is at work, and kills it.
fn kill_when(mut child: Child, due: impl Fn() -> bool) {
    let began = Instant::now();
    while !due() {
        assert!(child.try_wait().unwrap().is_none(), "it was done before it could be killed");
        assert!(began.elapsed() < PATIENCE, "it never came that far");
        std::thread::sleep(Duration::from_millis(3));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_twice_it_has_the_weights_of_the_unbroken_run() {
    let (room, whole) = (Room::new(), whole());
    pictures(&room.path("pictures"));
    let begin = |begin: &str| {
        let more = ["--begin", begin, "--checkpoint-minutes", "0"];
        let mut command = room.training("tiny.toml", "pictures", "run", &more);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let validated = |name: &str, lines: usize| {
        let text = fs::read_to_string(room.path("run").join(name)).unwrap_or_default();
        text.lines().count() > lines
    };
    // In the middle of the base, and in that of super-resolution.
    kill_when(begin("new"), || validated("base.shared.validation.csv", 2));
    assert!(!room.path("run/base.shared.safetensors").exists(), "the base was done before the kill");
    kill_when(begin("resume"), || validated("sr.shared.validation.csv", 1));
    assert!(!room.path("run/sr.shared.safetensors").exists(), "all was done before the kill");
    room.train("tiny.toml", "pictures", "run", &["--begin", "resume"]);
    let ours = differing(&room.path("run"), &whole.path("run"));
    assert_eq!(ours, [""; 0]);
    for log in ["base.shared.validation.csv", "sr.shared.validation.csv"] {
        let read = |room: &Room| fs::read_to_string(room.path("run").join(log)).unwrap();
        assert_eq!(read(&room), read(whole), "{log}");
    }
}

#[test]
fn with_batches_of_several_shapes_it_goes_on_as_well() {
    let rooms = [Room::new(), Room::new()];
    for room in &rooms {
        pictures(&room.path("pictures"));
        for number in (0..60).step_by(3) {
            let path = room.path(&format!("pictures/{number:03}.png"));
            let whole = image::open(&path).unwrap();
            whole.crop_imm(0, 0, 24, 12).save(&path).unwrap();
        }
        room.plan("shapes.toml", &[("flip = true", "flip = true, buckets = { multiple = 2 }")]);
    }
    let [killed, whole] = rooms;
    let only = ["--only", "t5", "--only", "base.shared"];
    whole.train("shapes.toml", "pictures", "run", &only);
    let more = [&only[..], &["--checkpoint-minutes", "0"]].concat();
    let mut command = killed.training("shapes.toml", "pictures", "run", &more);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log = killed.path("run/base.shared.validation.csv");
    kill_when(child, || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 2));
    assert!(!killed.path("run/base.shared.safetensors").exists(), "it was done before the kill");
    killed.train("shapes.toml", "pictures", "run", &[&only[..], &["--begin", "resume"]].concat());
    assert_eq!(differing(&killed.path("run"), &whole.path("run")), [""; 0]);
}
