//! A process that ends while a worker computes. Each case is a process of its own: this test, started again.
#![allow(clippy::disallowed_methods, reason = "the end of a process is what is tested")]

use std::env;
use std::ops::ControlFlow;
use std::process::{Child, Command, ExitStatus, Stdio, exit};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ediffi::{Event, Pipeline, Worker};

use crate::model::{Model, apple};

/// Holds the model's folder in a process that is to end.
const MODEL: &str = "EDIFFI_TEST_EXIT_MODEL";
/// How many milliseconds after its first event.
const AFTER: &str = "EDIFFI_TEST_EXIT_AFTER";
/// Whether the observer never comes back.
const STUCK: &str = "EDIFFI_TEST_EXIT_STUCK";
/// How many processes are tried; more find a rarer crash.
const RUNS: &str = "EDIFFI_TEST_EXIT_RUNS";

/// What the process ends with unless it crashes.
const CODE: i32 = 7;

/// Ends the process while the worker computes. Nobody joins the worker, or drops it.
fn end() {
    let Some(folder) = env::var_os(MODEL) else { return };
    let worker = Worker::new(Pipeline::open(folder).unwrap()).unwrap();
    let (say, hear) = mpsc::channel();
    let stuck = env::var_os(STUCK).is_some();
    let observer = move |event: &Event<'_>| {
        let step = matches!(event, Event::Step { .. });
        if step || !stuck {
            let _ = say.send(());
        }
        if step && stuck {
            loop {
                std::thread::park();
            }
        }
        ControlFlow::Continue(())
    };
    let job = worker.submit_with(apple().images(32).steps("base", 500), observer).unwrap();
    std::mem::forget((worker, job));
    hear.recv().unwrap();
    let after = env::var(AFTER).unwrap().parse().unwrap();
    std::thread::sleep(Duration::from_millis(after));
    exit(CODE)
}

/// Waits for the end of a process; one that does not end is killed, and shows in its status.
fn ended(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > Duration::from_secs(300) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the test of this name in `runs` processes, which end at different times.
fn run(name: &str, runs: u64, variables: &[(&str, &str)]) {
    let model = Model::new();
    let runs = env::var(RUNS).map_or(runs, |runs| runs.parse().unwrap());
    for run in 0..runs {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args([&format!("exit::{name}"), "--exact", "--nocapture"]).envs(variables.iter().copied());
        // With one thread, a test runs on the main one.
        child.args(["--test-threads", if run % 2 == 0 { "1" } else { "2" }]);
        let after = (run * 37 % 211).to_string();
        let child = child.env(MODEL, model.path()).env(AFTER, &after).stdout(Stdio::null());
        let status = ended(&mut child.spawn().unwrap());
        assert_eq!(status.code(), Some(CODE), "after {after} ms: {status}");
    }
}

#[test]
fn a_process_may_end_while_a_worker_computes() {
    end();
    run("a_process_may_end_while_a_worker_computes", 12, &[]);
}

#[test]
fn the_end_of_a_process_does_not_wait_for_an_observer() {
    end();
    run("the_end_of_a_process_does_not_wait_for_an_observer", 2, &[(STUCK, "1")]);
}
