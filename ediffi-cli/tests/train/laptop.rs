//! The walk of docs/own-data.md with the plan `laptop`, shortened: 200 pictures, as a folder and as shards, killed twice.

use super::*;
use crate::kills::kill_when;

/// The steps of the plan, and those that are taken here: a run takes under a minute on two cores.
const SHORTER: [(&str, &str); 3] =
    [("steps = 2000", "steps = 160"), ("steps = 600", "steps = 120"), ("every = 500", "every = 40")];

/// The training of a newcomer, with two threads.
fn training(room: &Room, data: &str, begin: &str) -> Command {
    let mut command = room.command(&["train", "--plan", "short.toml", "--data", data, "--out", "run"]);
    command.args(["--begin", begin, "--device", "cpu", "--precision", "f32", "--threads", "2"]);
    command.args(["--checkpoint-minutes", "0"]);
    command
}

#[test]
fn two_hundred_pictures_in_shards_and_killed_twice_give_the_weights_of_the_folder() {
    let (whole, killed) = (Room::new(), Room::new());
    for room in [&whole, &killed] {
        let plan = Room::said(&room.command(&["train", "--plan", "laptop", "--toml"]).output().unwrap());
        let shorter = SHORTER.iter().fold(plan, |plan, (from, to)| {
            assert_eq!(plan.matches(from).count(), 1, "{from} in {plan}");
            plan.replace(from, to)
        });
        fs::write(room.path("short.toml"), shorter).unwrap();
    }
    folder_of(samples(200), &whole.path("pictures"));
    shards_of(samples(200), &killed.path("shards"));
    assert_eq!(Room::said(&training(&whole, "pictures", "new").output().unwrap()), "run/model\n");
    let begin =
        |begin: &str| training(&killed, "shards", begin).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let measured = |lines: usize| {
        let log = fs::read_to_string(killed.path("run/base.shared.validation.csv")).unwrap_or_default();
        log.lines().count() > lines
    };
    // In the middle of T5, and in that of the base.
    kill_when(begin("new"), || killed.path("run/t5.checkpoint.safetensors").is_file());
    assert!(!killed.path("run/t5/model.safetensors").exists(), "T5 was done before the kill");
    kill_when(begin("resume"), || measured(2));
    assert!(!killed.path("run/base.shared.safetensors").exists(), "the base was done before the kill");
    assert_eq!(Room::said(&training(&killed, "shards", "resume").output().unwrap()), "run/model\n");
    assert_eq!(differing(&killed.path("run"), &whole.path("run")), [""; 0]);
    assert_eq!(killed.draw("run/model", "a.png").dimensions(), (32, 32));
}
