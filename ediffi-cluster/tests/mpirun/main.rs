//! Trainings in several processes that `mpirun` starts: the same network as in one, and what happens when one of them dies, hangs,
//! fails, is slow, or meets another job.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests fail by panicking")]

mod rank;
mod start;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use ediffi_core::weights::WeightsFile;
use start::{alone, mpirun, mpirun_is_there};
use tch::Tensor;

/// What each process of the other tests does; nothing without them.
#[test]
fn rank() {
    rank::work();
}

fn tensors(path: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

/// The largest difference between the weights of two files.
fn apart(a: &Path, b: &Path) -> f64 {
    let (a, b) = (tensors(a), tensors(b));
    assert_eq!(a.len(), b.len());
    a.iter().map(|(name, tensor)| (tensor - &b[name]).abs().max().double_value(&[])).fold(0.0, f64::max)
}

/// Steps and losses of a log.
fn curve(folder: &Path) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(folder.join("net.csv")).unwrap();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields[0].parse().unwrap(), fields[2].parse().unwrap())
    };
    text.lines().skip(1).map(line).collect()
}

/// The same losses at the same steps, but for the line at `resumed`, which is a mean over fewer steps where the run was resumed on the way.
fn assert_same_curve(a: &Path, b: &Path, resumed: u64) {
    let (a, b) = (curve(a), curve(b));
    assert_eq!(a.len(), b.len(), "{a:?} {b:?}");
    for ((step, loss), (other_step, other)) in a.iter().zip(&b) {
        let allowed = if *step == resumed { 0.1 } else { 1e-4 };
        assert!(step == other_step && (loss / other - 1.0).abs() < allowed, "{a:?} {b:?}");
    }
}

/// f32: 1e-6 after 20 steps.
#[test]
fn two_and_four_processes_train_the_network_of_one() {
    if !mpirun_is_there() {
        return;
    }
    let one = tempfile::tempdir().unwrap();
    alone(one.path(), "steps=20").succeeds();
    for ranks in [2, 4] {
        let many = tempfile::tempdir().unwrap();
        mpirun(ranks, many.path(), "steps=20").succeeds();
        let off = apart(&one.path().join("net.safetensors"), &many.path().join("net.safetensors"));
        eprintln!("{ranks} processes are {off:e} away from one");
        assert!(off < 1e-6, "{ranks} processes: {off:e}");
        assert_same_curve(one.path(), many.path(), 0);
    }
}

/// Two processes, one of which is killed, and then four.
#[test]
fn a_killed_process_ends_the_job_and_another_number_of_them_goes_on() {
    if !mpirun_is_there() {
        return;
    }
    let whole = tempfile::tempdir().unwrap();
    mpirun(2, whole.path(), "steps=60").succeeds();
    for victim in [0, 1] {
        let folder = tempfile::tempdir().unwrap();
        let killed = mpirun(2, folder.path(), &format!("steps=60 every=0 kill={victim}@33"));
        killed.fails_within(Duration::from_secs(60));
        // These are the words of OpenMPI's mpirun.
        assert!(killed.words.contains(&format!("process rank {victim} with PID")), "{}", killed.words);
        let checkpoint = folder.path().join("net.checkpoint.safetensors");
        let file = WeightsFile::open(&checkpoint, |name| Some(name.to_owned())).unwrap();
        let step: u64 = file.text("step").unwrap().parse().unwrap();
        assert!((29..=33).contains(&step), "killed in step 34, with a checkpoint of step {step}");
        mpirun(4, folder.path(), "steps=60").succeeds();
        assert_same_curve(whole.path(), folder.path(), 40);
        let off = apart(&whole.path().join("net.safetensors"), &folder.path().join("net.safetensors"));
        assert!(off < 1e-5, "{off:e}");
    }
}

#[test]
fn a_process_that_hangs_is_named_and_ends_the_job() {
    if !mpirun_is_there() {
        return;
    }
    for victim in [0, 2] {
        let folder = tempfile::tempdir().unwrap();
        let hung = mpirun(3, folder.path(), &format!("steps=60 every=0 hang={victim}@7 timeout=3"));
        hung.fails_within(Duration::from_secs(30));
        let named = hung.words.lines().filter(|line| line.contains("did not come to a sum within 3 s"));
        let named: Vec<&str> = named.collect();
        assert!(!named.is_empty(), "{}", hung.words);
        for line in named {
            let (_, blamed) = line.split_once("): ").unwrap();
            assert!(blamed.starts_with(&format!("rank {victim} (")), "{line}");
            assert_eq!(blamed.matches("rank").count(), 1, "{line}");
        }
    }
}

#[test]
fn a_process_that_fails_fails_all_with_its_name() {
    if !mpirun_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let failed = mpirun(3, folder.path(), "steps=60 fail=1@7");
    failed.fails_within(Duration::from_secs(30));
    assert!(
        failed.words.contains("rank 1 (") && failed.words.contains("failed, and the others stop"),
        "{}",
        failed.words
    );
    assert!(failed.words.contains("the thread that makes batches stopped"), "{}", failed.words);
    // A panic is an end, too, and so is an error outside of a training, where the others know nothing of it.
    for how in ["panic=1@7", "leave=1"] {
        let folder = tempfile::tempdir().unwrap();
        let failed = mpirun(2, folder.path(), &format!("steps=60 {how}"));
        failed.fails_within(Duration::from_secs(30));
    }
}

#[test]
fn one_that_stops_stops_all_and_a_slow_one_is_named() {
    if !mpirun_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let slow = mpirun(3, folder.path(), "steps=60 slow=2 nap=1000 stop=1@20 twice");
    slow.succeeds();
    assert_eq!(curve(folder.path()).iter().map(|(step, _)| *step).collect::<Vec<_>>(), [20]);
    let lines: Vec<&str> = slow.words.lines().filter(|line| line.contains("is slow")).collect();
    assert!(lines.len() == 1 && lines[0].contains("rank 2 ("), "{}", slow.words);
}

#[test]
fn two_jobs_in_one_folder_are_refused() {
    if !mpirun_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let first = start::begin(2, folder.path(), "steps=60 slow=1");
    first.wait_for(&folder.path().join("net.csv"));
    let second = mpirun(2, folder.path(), "steps=60");
    second.fails_within(Duration::from_secs(60));
    assert!(second.words.contains("another run is at work here"), "{}", second.words);
    assert!(
        second.words.contains("rank 0 (") && second.words.contains("failed, and the others stop"),
        "{}",
        second.words
    );
    first.end().succeeds();
}

/// A tree of three networks: all train the first, and each group one of the others.
#[test]
fn groups_train_the_branches_of_a_tree_side_by_side() {
    if !mpirun_is_there() {
        return;
    }
    let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    alone(one.path(), "steps=10 tree").succeeds();
    let words = mpirun(4, many.path(), "steps=10 tree groups=2");
    words.succeeds();
    for network in ["e0-0", "e1-0", "e1-1"] {
        let file = format!("{network}.safetensors");
        let off = apart(&one.path().join(&file), &many.path().join(&file));
        assert!(off < 1e-6, "{network}: {off:e}");
    }
    for (network, ranks) in [("e0-0", &[0, 1, 2, 3][..]), ("e1-0", &[0, 1]), ("e1-1", &[2, 3])] {
        for rank in 0..4 {
            let said = words.words.contains(&format!("{network} by rank {rank}\n"));
            assert_eq!(said, ranks.contains(&rank), "{network}, rank {rank}: {}", words.words);
        }
    }
    mpirun(2, many.path(), "steps=10 groups=3").fails_within(Duration::from_secs(30));
}

/// NCCL's id is that of rank 0 in all processes. Its sums have no GPU here: they go over MPI.
#[cfg(feature = "nccl")]
#[test]
fn nccl_finds_its_processes_over_mpi() {
    if !mpirun_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (library, log) = (folder.path().join("libnccl.so.2"), folder.path().join("calls"));
    let mut compiler = std::process::Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake_nccl.c"));
    assert!(compiler.arg(format!("-DLOG=\"{}\"", log.display())).status().unwrap().success());
    mpirun(2, folder.path(), &format!("steps=2 nccl={}", library.display())).succeeds();
    let log = std::fs::read_to_string(log).unwrap();
    let count = |call: &str| log.lines().filter(|line| *line == call).count();
    let calls = ["ncclGetUniqueId", "ncclCommInitRank 0 of 2", "ncclCommInitRank 1 of 2", "ncclCommDestroy"];
    assert_eq!(calls.map(count), [1, 1, 1, 2], "{log}");
}
