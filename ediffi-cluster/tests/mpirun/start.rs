//! Starts this test program once more, in several processes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer than any job here takes on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(240);

/// What the processes are told, and where.
pub(crate) const CASE: &str = "EDIFFI_CLUSTER_TEST";
pub(crate) const FOLDER: &str = "EDIFFI_CLUSTER_TEST_FOLDER";

/// Jobs run one at a time: each has as many processes as there are cores, or more.
static TURN: Mutex<()> = Mutex::new(());

/// Whether there is an `mpirun`; says so if not.
pub(crate) fn mpirun_is_there() -> bool {
    let is_there = Command::new("mpirun").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        // Not captured by the test harness.
        let line = format!("skipped: {name}: THERE IS NO mpirun HERE: install openmpi-bin\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
    is_there
}

/// A job that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    took: Duration,
    /// Everything that its processes, and `mpirun`, said.
    pub(crate) words: String,
}

impl Ended {
    pub(crate) fn succeeds(&self) {
        assert!(self.status.success(), "{}: {}", self.status, self.words);
    }

    pub(crate) fn fails_within(&self, limit: Duration) {
        assert!(!self.status.success(), "{}", self.words);
        assert!(self.took < limit, "it took {:?}: {}", self.took, self.words);
    }
}

/// A job at work.
#[derive(Debug)]
pub(crate) struct Job {
    child: Child,
    began: Instant,
    words: PathBuf,
}

impl Job {
    /// Waits until there is a file.
    pub(crate) fn wait_for(&self, file: &Path) {
        while !file.exists() {
            assert!(self.began.elapsed() < PATIENCE, "{}", std::fs::read_to_string(&self.words).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn end(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.began.elapsed() > PATIENCE {
                // Of its own accord, mpirun ends the others as well.
                Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
                self.child.wait().unwrap();
                panic!("a job does not end: {}", std::fs::read_to_string(&self.words).unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Ended { status, took: self.began.elapsed(), words: std::fs::read_to_string(&self.words).unwrap() }
    }
}

fn job(mut command: Command, folder: &Path, case: &str) -> Job {
    let words = tempfile::Builder::new().prefix("words").tempfile_in(folder).unwrap().into_temp_path().keep().unwrap();
    let file = File::create(&words).unwrap();
    command.env(CASE, case).env(FOLDER, folder).stdout(file.try_clone().unwrap()).stderr(file);
    Job { child: command.spawn().unwrap(), began: Instant::now(), words }
}

const ARGUMENTS: [&str; 4] = ["rank", "--exact", "--nocapture", "--test-threads=1"];

/// Begins a job of `ranks` processes.
pub(crate) fn begin(ranks: usize, folder: &Path, case: &str) -> Job {
    let mut command = Command::new("mpirun");
    command.args(["-n", &ranks.to_string()]);
    let version = Command::new("mpirun").arg("--version").output().unwrap().stdout;
    if String::from_utf8_lossy(&version).contains("Open MPI") {
        command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]);
    }
    // Containers do not let one process read the memory of another.
    command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    command.arg(std::env::current_exe().unwrap()).args(ARGUMENTS);
    job(command, folder, case)
}

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job of `ranks` processes, to its end.
pub(crate) fn mpirun(ranks: usize, folder: &Path, case: &str) -> Ended {
    let _turn = turn();
    begin(ranks, folder, case).end()
}

/// One process without MPI.
pub(crate) fn alone(folder: &Path, case: &str) -> Ended {
    let _turn = turn();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(ARGUMENTS);
    job(command, folder, &format!("{case} alone")).end()
}
