//! The same command in several processes that `mpirun` starts.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::*;

/// Longer than any job here takes on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(240);

/// Jobs run one at a time: each has as many processes as there are cores, or more.
static TURN: Mutex<()> = Mutex::new(());

/// Two batches a step, each half as large.
const TWO: (&str, &str) = ("batch = 6", "batch = 3\naccumulate = 2");

/// Whether there is an `mpirun`; says so if not. CI has to have one.
fn mpirun_is_there() -> bool {
    let is_there = Command::new("mpirun").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        assert!(std::env::var_os("CI").is_none(), "there is no mpirun here");
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        // Not captured by the test harness.
        let line = format!("skipped: {name}: THERE IS NO mpirun HERE: install openmpi-bin\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
    is_there
}

/// A job that has ended: its exit code, standard output and standard error.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A training in `ranks` processes. Each leaves its number in `pid-RANK`.
struct Job<'r> {
    room: &'r Room,
    child: Child,
    began: Instant,
}

impl<'r> Job<'r> {
    fn begin(room: &'r Room, ranks: usize, training: &Command) -> Self {
        let mut command = Command::new("mpirun");
        command.args(["-n", &ranks.to_string()]);
        let version = Command::new("mpirun").arg("--version").output().unwrap().stdout;
        if String::from_utf8_lossy(&version).contains("Open MPI") {
            command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]);
        }
        // Containers do not let one process read the memory of another.
        command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
        let script = r#"echo $$ > "pid-${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"; exec "$0" "$@""#;
        command.args(["bash", "-c", script]).arg(training.get_program()).args(training.get_args());
        command.current_dir(room.0.path()).envs(training.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let file = |name: &str| fs::File::create(room.path(name)).unwrap();
        let child = command.stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Self { room, child, began: Instant::now() }
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.room.path(name)).unwrap_or_default()).into_owned()
    }

    /// Waits until `due`, while the job is at work.
    fn wait_until(&mut self, due: impl Fn() -> bool) {
        while !due() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && self.began.elapsed() < PATIENCE, "it never came that far: {}", self.text("err"));
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    fn end(mut self) -> Ended {
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            if self.began.elapsed() > PATIENCE {
                // Of its own accord, mpirun ends the others as well.
                Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
                self.child.wait().unwrap();
                panic!("a job does not end: {}", self.text("err"));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Ended { code, out: self.text("out"), err: self.text("err") }
    }
}

impl Room {
    /// A training in `ranks` processes, to its end.
    fn mpirun(&self, ranks: usize, plan: &str, more: &[&str]) -> Ended {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let training = self.training(plan, "pictures", "run", &[&["--transport", "mpi"], more].concat());
        Job::begin(self, ranks, &training).end()
    }
}

/// A room with the plan of two batches a step and the data.
fn room() -> Room {
    let room = Room::new();
    room.plan("two.toml", &[TWO]);
    pictures(&room.path("pictures"));
    room
}

/// An unbroken run of that plan in one process, trained once for all tests.
fn one() -> &'static Room {
    static ONE: OnceLock<Room> = OnceLock::new();
    ONE.get_or_init(|| {
        let room = room();
        room.train("two.toml", "pictures", "run", &[]);
        room
    })
}

/// The largest difference between the numbers in f32 of two runs of so many networks, which have the same files, and the same T5.
fn apart(a: &Room, b: &Room, networks: usize) -> f32 {
    let (a, b) = (weights(&a.path("run")), weights(&b.path("run")));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    assert!(a["t5/model.safetensors"] == b["t5/model.safetensors"]);
    let numbers =
        |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<f32>>();
    let of_networks = a.iter().filter(|(name, _)| name.starts_with("base.") || name.starts_with("sr."));
    let mut compared = 0;
    let largest = of_networks.fold(0.0, |largest: f32, (name, bytes)| {
        let (a, b) = (numbers(bytes), numbers(&b[name]));
        assert_eq!(a.len(), b.len(), "{name}");
        compared += 1;
        a.iter().zip(&b).fold(largest, |largest, (a, b)| largest.max((a - b).abs()))
    });
    assert_eq!(compared, 2 * networks, "a checkpoint and the averaged weights of each network");
    largest
}

#[test]
fn two_processes_make_the_model_of_one() {
    if !mpirun_is_there() {
        return;
    }
    let (room, one) = (room(), one());
    let Ended { code, out, err } = room.mpirun(2, "two.toml", &[]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, "run/model\n", "rank 0 alone says where the model is");
    for name in ["t5", "base.shared", "sr.shared"] {
        assert_eq!(err.matches(&format!("{name}: trained")).count(), 1, "{err}");
        let events = fs::read_dir(room.path("run/tensorboard").join(name)).unwrap();
        assert_eq!(events.count(), 1, "{name}: rank 0 alone writes");
    }
    let off = apart(&room, one, 2);
    eprintln!("two processes are {off:e} away from one");
    assert!(off < 1e-6, "{off:e}");
    for log in ["base.shared.validation.csv", "sr.shared.validation.csv"] {
        let lines = |room: &Room| fs::read_to_string(room.path("run").join(log)).unwrap().lines().count();
        assert_eq!(lines(&room), lines(one), "{log}");
    }
    assert_eq!(room.draw("run/model", "a.png").dimensions(), (16, 16));
    // What rank 0 finds in the folder stops all.
    let Ended { code, err, .. } = room.mpirun(2, "two.toml", &[]);
    assert!(code != Some(0) && err.contains("holds a run of the plan \"tiny\""), "{code:?} {err}");
    assert!(err.contains("rank 0 (") && err.contains("failed, and the others stop with it"), "{err}");
    let Ended { code, out, err } = room.mpirun(2, "two.toml", &["--begin", "resume"]);
    assert!(code == Some(0) && out == "run/model\n", "{code:?} {err}");
}

#[test]
fn a_killed_process_ends_the_job_and_one_process_goes_on() {
    if !mpirun_is_there() {
        return;
    }
    let (room, one) = (room(), one());
    for (victim, begin) in [(1, "new"), (0, "resume")] {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let more = ["--transport", "mpi", "--begin", begin, "--checkpoint-minutes", "0"];
        let mut job = Job::begin(&room, 2, &room.training("two.toml", "pictures", "run", &more));
        let log = if victim == 1 { "base.shared.validation.csv" } else { "sr.shared.validation.csv" };
        job.wait_until(|| fs::read_to_string(room.path("run").join(log)).is_ok_and(|text| text.lines().count() > 1));
        let process = fs::read_to_string(room.path(&format!("pid-{victim}"))).unwrap();
        assert!(Command::new("kill").args(["-9", process.trim()]).status().unwrap().success());
        let killed = job.end();
        assert_ne!(killed.code, Some(0), "{}", killed.err);
        assert!(!room.path("run/sr.shared.safetensors").exists(), "all was done before the kill");
    }
    room.train("two.toml", "pictures", "run", &["--begin", "resume"]);
    let off = apart(&room, one, 2);
    eprintln!("killed twice it is {off:e} away from one");
    assert!(off < 1e-6, "{off:e}");
}

/// A tree of four networks in the place of the base's one. The last gains a detail head.
fn tree() -> String {
    let network = |name: &str, cell: &str, more: &str| {
        format!(
            "[[stages.networks]]\nname = \"{name}\"\ncell = \"{cell}\"\n{more}\n\
             training = {{ steps = 30, learning-rate = 3e-3, warm-up = 5, ema = 0.9 }}\n\n"
        )
    };
    let head = "parent = \"low\"\ndetail = { channels = 4, blocks = 1 }";
    network("shared", "(0, 0)", "")
        + &network("high", "(1, 1)", "parent = \"shared\"")
        + &network("low", "(1, 0)", "parent = \"shared\"")
        + &network("lowest", "(1, 0)", head)
}

#[test]
fn groups_train_branches_side_by_side_and_meet_in_one_model() {
    if !mpirun_is_there() {
        return;
    }
    let (one, two, tree) = (Room::new(), room(), tree());
    pictures(&one.path("pictures"));
    for room in [&one, &two] {
        room.plan("tree.toml", &[TWO, (fine_tune::SHARED, &tree)]);
    }
    one.train("tree.toml", "pictures", "run", &[]);
    let Ended { code, out, err } = two.mpirun(2, "tree.toml", &["--groups", "2"]);
    assert!(code == Some(0) && out == "run/model\n", "{code:?} {err}");
    for name in ["t5", "base.shared", "base.high", "base.low", "base.lowest", "sr.shared"] {
        assert_eq!(err.matches(&format!("{name}: trained")).count(), 1, "{err}");
    }
    let off = apart(&two, &one, 5);
    eprintln!("two groups are {off:e} away from one process");
    assert!(off < 1e-6, "{off:e}");
    // What one process has trained in its group is added up as alone; only the last network stood alone, and was everyone's.
    let of = |room: &Room, name: &str| weights(&room.path("run")).remove(name).unwrap();
    for name in ["base.shared", "sr.shared", "base.high", "base.low"] {
        let file = format!("{name}.safetensors");
        assert!(of(&two, &file) == of(&one, &file), "{name}");
    }
    let manifest = fs::read(two.path("run/model/pipeline.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let experts = &manifest["stages"][0]["experts"];
    assert_eq!(
        (&experts[0]["network"], &experts[1]["network"]),
        (&serde_json::Value::Null, &"base/lowest.json".into())
    );
    assert_eq!(two.draw("run/model", "a.png").dimensions(), (16, 16));
    for step in ["high-000000030", "lowest-000000030"] {
        assert!(two.path(&format!("run/sheets/base.{step}.png")).is_file(), "{step}");
    }
}

#[test]
fn validation_ends_the_training_of_all_processes() {
    if !mpirun_is_there() {
        return;
    }
    let room = room();
    let changes = [
        TWO,
        ("validation = { every = 30,", "validation = { patience = 2, every = 10,"),
        ("keep = { every = 50, last = 2 }", "keep = { export = \"best\" }"),
        ("steps = 150, learning-rate = 3e-3, warm-up = 10", "steps = 1500, learning-rate = 0.3, warm-up = 0"),
    ];
    room.plan("ends.toml", &changes);
    let only = ["--only", "t5", "--only", "base.shared"];
    let Ended { code, out, err } = room.mpirun(2, "ends.toml", &only);
    assert!(code == Some(0) && out.is_empty(), "{code:?} {err}");
    let log = fs::read_to_string(room.path("run/base.shared.validation.csv")).unwrap();
    let last: u64 = log.lines().last().unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(last < 1500, "it did not end: {log}");
    let of = |file: &str| weights(&room.path("run")).remove(file).unwrap();
    assert!(of("base.shared.safetensors") == of("kept/base.shared-best.safetensors"));
    let Ended { code, err, .. } = room.mpirun(2, "ends.toml", &[&only[..], &["--begin", "resume"]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(fs::read_to_string(room.path("run/base.shared.validation.csv")).unwrap(), log, "it was trained on");
}

#[test]
fn several_processes_are_refused_by_name() {
    let room = room();
    let started = |more: &[&str]| {
        let mut training = room.training("two.toml", "pictures", "run", more);
        let training = training.env("OMPI_COMM_WORLD_RANK", "1").env("OMPI_COMM_WORLD_SIZE", "2").output().unwrap();
        (training.status.code(), String::from_utf8(training.stderr).unwrap())
    };
    let (code, error) = started(&[]);
    assert!(error.contains("started as one of 2 processes: say --transport mpi"), "{error}");
    assert_eq!(code, Some(2));
    let (code, error) = started(&["--encode-only", "--embeddings", "kept"]);
    assert!(code == Some(2) && error.contains("--encode-only is for one process"), "{error}");
    let (code, error) = room.fails("two.toml", "pictures", "run", &["--transport", "gloo"]);
    assert!(code == Some(2) && error.contains("no transport \"gloo\""), "{error}");
    assert!(!room.path("run").exists());
    if !mpirun_is_there() {
        return;
    }
    let Ended { code, err, .. } = room.mpirun(2, "tiny.toml", &[]);
    let named = "accumulate: it is 1, and has to be at least the number of processes, which is 2";
    assert!(code == Some(2) && err.contains(named), "{code:?} {err}");
    let Ended { code, err, .. } = room.mpirun(2, "two.toml", &["--groups", "3"]);
    assert!(code == Some(2) && err.contains("2 processes cannot be divided into 3 groups"), "{code:?} {err}");
    assert!(!room.path("run").exists());
}
