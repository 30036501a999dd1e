//! Killed at any time, a training goes on as if nothing had been.

use super::*;

/// Long enough for a machine with other work; only a failing test waits it out.
const PATIENCE: Duration = Duration::from_secs(100);

/// Waits until `due`, while the training is at work.
fn wait_for(child: &mut Child, due: impl Fn() -> bool) {
    let began = Instant::now();
    while !due() {
        assert!(child.try_wait().unwrap().is_none(), "it was done before it could be killed");
        assert!(began.elapsed() < PATIENCE, "it never came that far");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Waits until `due`, while the training is at work, and kills it.
pub(super) fn kill_when(mut child: Child, due: impl Fn() -> bool) {
    wait_for(&mut child, due);
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

/// What a restart would clear is the first job's: it is refused before that.
#[test]
fn a_second_job_is_refused_while_the_first_is_at_work() {
    let room = Room::new();
    pictures(&room.path("pictures"));
    room.plan("long.toml", &[("steps = 150,", "steps = 150000,")]);
    let mut command = room.training("long.toml", "pictures", "run", &[]);
    let mut first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let kept = room.path("run/kept/base.shared-best.safetensors");
    wait_for(&mut first, || kept.is_file());
    let still = ["run.json", "plan.toml", "t5/model.safetensors", "t5/tokenizer.json", "t5.checkpoint.safetensors"];
    let read = || still.map(|file| fs::read(room.path("run").join(file)).unwrap());
    let before = read();
    for more in [&["--begin", "restart"][..], &["--begin", "restart", "--only", "t5"], &["--begin", "resume"]] {
        let (_, error) = room.fails("long.toml", "pictures", "run", more);
        assert!(error.contains("another run is at work here: it has locked run/run.lock"), "{more:?}: {error}");
    }
    let (_, error) = room.fails("long.toml", "pictures", "run", &["--encode-only", "--embeddings", "kept"]);
    assert!(error.contains("another run is at work here"), "{error}");
    assert!(before == read() && kept.is_file());
    assert!(first.try_wait().unwrap().is_none(), "the first was ended");
    first.kill().unwrap();
    first.wait().unwrap();
}

/// Killed behind its first network, a restart has nothing of the run before it: not even what it has not come to.
#[test]
fn a_restart_that_is_killed_goes_on_as_a_restart() {
    let (room, whole) = (Room::new(), whole());
    pictures(&room.path("pictures"));
    // The run before is of another seed: all its weights are others.
    room.plan("before.toml", &[("seed = 3", "seed = 4")]);
    room.train("before.toml", "pictures", "run", &[]);
    let begin = || {
        let mut command = room.training("tiny.toml", "pictures", "run", &["--begin", "restart"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let export = room.path("run/base.shared.safetensors");
    // Before anything has a checkpoint, and then behind T5.
    let is_of = |plan: &str| fs::read_to_string(room.path("run/plan.toml")).is_ok_and(|text| text.contains(plan));
    kill_when(begin(), || is_of("seed = 3"));
    assert!(!export.exists(), "it was done before the kill");
    kill_when(begin(), || room.path("run/t5/model.safetensors").is_file());
    assert!(!export.exists(), "it was done before the kill");
    room.train("tiny.toml", "pictures", "run", &["--begin", "resume"]);
    assert_eq!(differing(&room.path("run"), &whole.path("run")), [""; 0]);
}

#[test]
fn encoding_that_was_killed_goes_on_with_the_same_line() {
    let room = Room::new();
    pictures(&room.path("pictures"));
    let encoding = || room.training("tiny.toml", "pictures", "run", &["--encode-only", "--embeddings", "kept"]);
    let child = encoding().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    kill_when(child, || room.path("run/run.json").is_file());
    assert!(!room.path("kept/manifest.json").is_file(), "it was done before the kill");
    let model = room.path("run/t5/model.safetensors");
    Room::said(&encoding().output().unwrap());
    let before = fs::metadata(&model).unwrap().modified().unwrap();
    Room::said(&encoding().output().unwrap());
    assert_eq!(fs::metadata(&model).unwrap().modified().unwrap(), before, "T5 was trained again");
}
