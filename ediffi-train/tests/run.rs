//! The training loop: numbers of batches, resume, workers, log, and what stops it.
//! Long because its tests share the helpers of a tiny training.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use ediffi_core::weights::{Init, Scope};
use ediffi_train::Error;
use ediffi_train::data_parallel::Worker;
use ediffi_train::lineage::Lineage;
use ediffi_train::log::Entry;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::run::{Begin, Run};
use ediffi_train::state::TrainState;
use tch::{Device, Kind, Tensor};

fn run(folder: &Path, steps: u64, accumulate: u64, begin: Begin) -> Run<'_> {
    let lineage = Lineage::default().with("batch", 2);
    let checkpoint_every = Duration::from_secs(3600);
    Run { name: "net", folder, begin, steps, batch: 2, accumulate, first_batch: 0, checkpoint_every, lineage }
}

fn begin() -> (Tensor, TrainState) {
    let weight = Tensor::ones([1, 1], (Kind::Float, Device::Cpu));
    let settings = AdamWSettings { learning_rate: 0.1, warm_up: 1, ..AdamWSettings::default() };
    let state = TrainState::new(vec![("w".to_owned(), weight.shallow_clone())], settings, 0.9).unwrap();
    (weight, state)
}

/// A worker with a loss of w times the batch's number plus one.
fn worker(state: &TrainState) -> Worker<'static, u64, Error> {
    let replica = state.replica().unwrap();
    let weight = Scope::root(&mut replica.source()).weight("w", &[1, 1], Init::Ones).unwrap();
    let loss = move |number, batch: u64| {
        assert_eq!(number, batch);
        Ok((&weight * (number as f64 + 1.0)).mean(Kind::Float))
    };
    Worker { replica, loss: Box::new(loss) }
}

/// Trains; returns the numbers of the batches, the weight and the log.
fn train(run: &Run<'_>, workers: usize) -> (Vec<u64>, f64, String) {
    train_until(run, workers, u64::MAX)
}

/// The same, stopped by the observer after `stop` steps.
fn train_until(run: &Run<'_>, workers: usize, stop: u64) -> (Vec<u64>, f64, String) {
    let (weight, mut state) = begin();
    run.begin(&mut state).unwrap();
    let mut numbers = Vec::new();
    let mut next = run.next_batch(&state)..;
    let mut workers: Vec<_> = (0..workers).map(|_| worker(&state)).collect();
    let made = || {
        let number = next.next().unwrap();
        numbers.push(number);
        Ok(number)
    };
    let observe = |state: &TrainState, entry: Option<&Entry>| {
        assert_eq!(entry.map(|entry| entry.step), state.step().is_multiple_of(20).then_some(state.step()));
        Ok(if state.step() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    run.train(&mut state, made, &mut workers, observe).unwrap();
    (numbers, weight.double_value(&[0, 0]), std::fs::read_to_string(run.folder.join("net.csv")).unwrap())
}

#[test]
fn a_resumed_run_goes_on_with_the_next_batch_and_ends_where_an_unbroken_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let (numbers, whole, _) = train(&run(folder.path(), 4, 3, Begin::New), 1);
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (numbers, ..) = train_until(&run(path, 4, 3, Begin::New), 1, 1);
    assert_eq!(numbers, [0, 1, 2]);
    let (numbers, ..) = train_until(&run(path, 4, 3, Begin::Resume), 1, 2);
    assert_eq!(numbers, [3, 4, 5]);
    let (numbers, resumed, _) = train(&run(path, 4, 3, Begin::Resume), 1);
    assert_eq!((numbers, resumed), (vec![6, 7, 8, 9, 10, 11], whole));
    // A run that is done trains no further.
    assert_eq!(train(&run(path, 4, 3, Begin::Resume), 1).0, [] as [u64; 0]);
    // With Restart it starts over; with neither it is not even begun.
    assert_eq!(train(&run(path, 1, 1, Begin::Restart), 1).0, [0]);
    let error = run(path, 1, 1, Begin::New).begin(&mut begin().1).unwrap_err();
    assert!(matches!(&error, Error::Exists { path } if path.ends_with("net.checkpoint.safetensors")), "{error}");
}

/// The position is that of the pictures that were counted, whatever made a step.
#[test]
fn a_run_that_is_resumed_with_other_steps_neither_skips_nor_repeats_batches() {
    for (before, after, numbers) in [(4, 1, vec![12, 13, 14]), (1, 4, (3..11).collect())] {
        let folder = tempfile::tempdir().unwrap();
        train(&run(folder.path(), 3, before, Begin::New), 1);
        let steps = 3 + numbers.len() as u64 / after;
        assert_eq!(train(&run(folder.path(), steps, after, Begin::Resume), 1).0, numbers);
    }
    // Six pictures are no whole number of batches of four.
    let folder = tempfile::tempdir().unwrap();
    train(&run(folder.path(), 3, 1, Begin::New), 1);
    let other = Run { batch: 4, ..run(folder.path(), 4, 1, Begin::Resume) };
    let error = other.begin(&mut begin().1).unwrap_err();
    assert!(matches!(&error, Error::Checkpoint { .. }) && error.to_string().contains("6 pictures"), "{error}");
}

#[test]
fn one_run_of_a_name_is_at_work_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut state) = begin();
    let own = run(folder.path(), 1, 1, Begin::New);
    own.begin(&mut state).unwrap();
    let error = own.begin(&mut begin().1).unwrap_err();
    assert!(matches!(&error, Error::Locked { path } if path.ends_with("net.lock")), "{error}");
    Run { name: "other", ..own.clone() }.begin(&mut begin().1).unwrap();
    drop(state);
    own.begin(&mut begin().1).unwrap();
}

/// As a kill in the middle of a write leaves them.
#[test]
fn what_killed_runs_have_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("net.checkpoint.safetensors.a1B2c3.tmp");
    let others = folder.path().join("other.checkpoint.safetensors.a1B2c3.tmp");
    let export = folder.path().join("weights.safetensors");
    let half_an_export = folder.path().join("weights.safetensors.zzzzzz.tmp");
    for file in [&left, &others, &export, &half_an_export] {
        std::fs::write(file, "half").unwrap();
    }
    train(&run(folder.path(), 1, 1, Begin::New), 1);
    Begin::Resume.discard(&export).unwrap();
    assert_eq!([&left, &half_an_export, &others, &export].map(|file| file.exists()), [false, false, true, true]);
}

/// A checkpoint that is to be replaced is there until the new one is whole, and is not gone on from.
#[test]
fn a_run_that_starts_over_loses_nothing_before_it_has_something() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (checkpoint, replaced) =
        (path.join("net.checkpoint.safetensors"), path.join("net.checkpoint.replaced.safetensors"));
    train(&run(path, 2, 1, Begin::New), 1);
    let old = std::fs::read(&checkpoint).unwrap();
    // Killed before its first checkpoint, once and again.
    for _ in 0..2 {
        run(path, 1, 1, Begin::Restart).begin(&mut begin().1).unwrap();
        assert!(!checkpoint.exists());
        assert_eq!(std::fs::read(&replaced).unwrap(), old);
    }
    let error = run(path, 1, 1, Begin::New).begin(&mut begin().1).unwrap_err();
    assert!(matches!(&error, Error::Exists { path } if *path == replaced), "{error}");
    let error = run(path, 1, 1, Begin::Resume).begin(&mut begin().1).unwrap_err();
    let (text, names) = (error.to_string(), [&replaced, &checkpoint].map(|path| path.display().to_string()));
    assert!(matches!(error, Error::RestartKilled { .. }), "{text}");
    assert!(text.contains("restart again") && names.iter().all(|name| text.contains(name)), "{text}");
    // Both ways: to begin anew, and to go on from the old one.
    std::fs::copy(&replaced, &checkpoint).unwrap();
    assert_eq!(train(&run(path, 3, 1, Begin::Resume), 1).0, [2]);
    std::fs::rename(&checkpoint, &replaced).unwrap();
    assert_eq!(train(&run(path, 1, 1, Begin::Restart), 1).0, [0]);
    assert!(checkpoint.exists() && !replaced.exists());
}

#[test]
fn a_checkpoint_of_another_lineage_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    train(&run(folder.path(), 1, 1, Begin::New), 1);
    let other = Run { lineage: Lineage::default().with("batch", 4), ..run(folder.path(), 2, 1, Begin::Resume) };
    let error = other.begin(&mut begin().1).unwrap_err().to_string();
    assert!(error.contains("trained with batch 2, not 4"), "{error}");
}

/// The gradients of a step are added up whoever computed them: 7 batches a step on 1 to 8 workers. The log tells: the weight alone
/// would not, since clipping and Adam forget the size of a gradient.
#[test]
fn the_number_of_workers_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let (numbers, _, log) = train(&run(folder.path(), 20, 7, Begin::New), 1);
    assert_eq!(numbers.len(), 140);
    let loss_and_gradient = |log: &str| -> Vec<f64> {
        log.lines().nth(1).unwrap().split(',').skip(2).take(2).map(|number| number.parse().unwrap()).collect()
    };
    let expected = loss_and_gradient(&log);
    for count in [2, 3, 8] {
        let folder = tempfile::tempdir().unwrap();
        let (others, _, log) = train(&run(folder.path(), 20, 7, Begin::New), count);
        assert_eq!(others, numbers);
        for (got, expected) in loss_and_gradient(&log).into_iter().zip(&expected) {
            assert!((got / expected - 1.0).abs() < 1e-5, "{count} workers: {got} instead of {expected}");
        }
    }
    let error = run(folder.path(), 9, 1, Begin::Resume).train(
        &mut begin().1,
        || Ok::<u64, Error>(0),
        &mut [],
        |_, _| Ok(ControlFlow::Continue(())),
    );
    assert!(matches!(error.unwrap_err(), Error::Setting { field: "workers", .. }));
}

/// 20 steps of 2 batches of 2 pictures; batch n has the loss w (n + 1) and the gradient n + 1.
#[test]
fn the_log_has_the_mean_over_the_batches_and_every_picture() {
    let folder = tempfile::tempdir().unwrap();
    let (.., log) = train(&run(folder.path(), 20, 2, Begin::New), 1);
    let line: Vec<&str> = log.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(line[..2], ["20", "80"]);
    // The mean of the pairs' means, 1.5 to 39.5; the weight moves down from 1 by about 0.1 a step.
    assert_eq!(line[3], "20.5000");
    let waiting: f64 = line[6].parse().unwrap();
    assert!((0.0..=1.0).contains(&waiting), "{waiting}");
}

#[test]
fn checkpoints_are_written_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let often = Run { checkpoint_every: Duration::ZERO, ..run(folder.path(), 3, 1, Begin::New) };
    let (_, mut state) = begin();
    let mut workers = [worker(&state)];
    let mut next = 0..;
    let made = || next.next().ok_or(Error::NoBatches);
    let observe = |state: &TrainState, _: Option<&Entry>| match state.step() {
        // Killed in the third step: what the second left is there.
        3 => Err(Error::NoBatches),
        _ => Ok(ControlFlow::Continue(())),
    };
    often.train(&mut state, made, &mut workers, observe).unwrap_err();
    let (_, mut state) = begin();
    Run { begin: Begin::Resume, ..often }.begin(&mut state).unwrap();
    assert_eq!(state.step(), 2);
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_the_training() {
    let folder = tempfile::tempdir().unwrap();
    for checkpoint_every in [Duration::ZERO, Duration::from_secs(3600)] {
        let run = Run { checkpoint_every, ..run(folder.path(), 5, 1, Begin::New) };
        // A folder is where the file should be.
        std::fs::create_dir_all(run.checkpoint()).unwrap();
        let (_, mut state) = begin();
        let mut workers = [worker(&state)];
        let mut numbers = 0..;
        let made = || Ok(numbers.next().unwrap());
        let observe = |_: &TrainState, _: Option<&Entry>| Ok(ControlFlow::Continue(()));
        let error = run.train(&mut state, made, &mut workers, observe).unwrap_err();
        assert!(error.to_string().contains("net.checkpoint.safetensors"), "{error}");
        // One that was to be written on the way is missed at once.
        assert_eq!(state.step(), if checkpoint_every.is_zero() { 2 } else { 5 });
    }
}

/// The fourth step has no finite gradient, which is known in the fifth. Weights, average, step and pictures are those of three steps.
#[test]
fn a_step_that_diverges_is_left_out_though_the_next_one_began() {
    let folder = tempfile::tempdir().unwrap();
    let (_, expected, _) = train(&run(folder.path(), 3, 1, Begin::New), 1);
    let folder = tempfile::tempdir().unwrap();
    let (weight, mut state) = begin();
    let Worker { replica, mut loss } = worker(&state);
    let spoilt = move |number, batch| Ok(loss(number, batch)? * if number == 3 { f64::NAN } else { 1.0 });
    let mut workers = [Worker { replica, loss: Box::new(spoilt) }];
    let mut numbers = 0..;
    let made = || Ok(numbers.next().unwrap());
    let observe = |_: &TrainState, _: Option<&Entry>| Ok(ControlFlow::Continue(()));
    let run = run(folder.path(), 9, 1, Begin::New);
    let error = run.train(&mut state, made, &mut workers, observe).unwrap_err();
    assert!(matches!(error, Error::Diverged { step: 3, .. }), "{error}");
    assert_eq!((state.step(), state.pictures(), numbers.start), (3, 6, 5));
    assert_eq!(weight.double_value(&[0, 0]), expected);
    assert!(!run.checkpoint().exists(), "nothing is saved over the last good checkpoint");
    // It may go on with another batch.
    weight.sum(Kind::Float).backward();
    assert_eq!(state.update(2, 1).unwrap(), 1.0);
}

/// A thread that ended with every step would give its memory back every time.
#[test]
fn workers_keep_their_threads() {
    let folder = tempfile::tempdir().unwrap();
    let threads = &Mutex::new(HashSet::new());
    let (_, mut state) = begin();
    let worker = || {
        let Worker { replica, mut loss } = worker(&state);
        let seen = move |number, batch| {
            threads.lock().unwrap().insert(std::thread::current().id());
            loss(number, batch)
        };
        Worker { replica, loss: Box::new(seen) }
    };
    let mut workers = [worker(), worker(), worker()];
    let mut numbers = 0..;
    let made = || Ok(numbers.next().unwrap());
    let observe = |_: &TrainState, _: Option<&Entry>| Ok(ControlFlow::Continue(()));
    run(folder.path(), 8, 3, Begin::New).train(&mut state, made, &mut workers, observe).unwrap();
    drop(workers);
    assert_eq!(threads.lock().unwrap().len(), 3);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_training() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut state) = begin();
    let run = run(folder.path(), 50, 1, Begin::New);
    let replica = state.replica().unwrap();
    let weight = Scope::root(&mut replica.source()).weight("w", &[1, 1], Init::Ones).unwrap();
    let loss = Box::new(move |_, ()| Ok((&weight * f64::NAN).sum(Kind::Float)));
    let mut workers = [Worker { replica, loss }];
    let error = run.train(&mut state, || Ok(()), &mut workers, |_, _| Ok(ControlFlow::Continue(())));
    assert!(matches!(error.unwrap_err(), Error::Diverged { step: 0, .. }));
    assert!(!run.checkpoint().exists(), "nothing is saved over the last good checkpoint");
}

/// `tch` panics where it has no room for a number: what libtorch said is kept.
#[test]
fn a_panic_of_tch_is_an_error_that_says_why() {
    for count in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let (_, mut state) = begin();
        let full = || {
            let loss = Box::new(|_, _| Ok(Tensor::f_full([1 << 50], 1.0, (Kind::Float, Device::Cpu))?));
            Worker::<u64, Error> { replica: state.replica().unwrap(), loss }
        };
        let mut workers: Vec<_> = (0..count).map(|_| full()).collect();
        let observe = |_: &TrainState, _: Option<&Entry>| Ok(ControlFlow::Continue(()));
        let error =
            run(folder.path(), 1, 2, Begin::New).train(&mut state, || Ok(0), &mut workers, observe).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Core { source: ediffi_core::Error::Torch { .. } }), "{message}");
        assert!(message.contains("memory") || message.contains("size"), "{message}");
    }
}

/// The loop's own thread makes batches and observes, too.
#[test]
fn a_panic_of_tch_beside_the_workers_is_an_error_that_says_why() {
    let full = || Tensor::f_full([1 << 50], 1.0, (Kind::Float, Device::Cpu)).is_ok();
    for making in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (_, mut state) = begin();
        let mut workers = [worker(&state), worker(&state)];
        let mut numbers = 0..;
        let made = || Ok(if making && full() { 0 } else { numbers.next().unwrap() });
        let observe = |_: &TrainState, _: Option<&Entry>| {
            Ok(if full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let error = run(folder.path(), 1, 2, Begin::New).train(&mut state, made, &mut workers, observe).unwrap_err();
        assert!(matches!(error, Error::Core { source: ediffi_core::Error::Torch { .. } }), "{error}");
        assert_eq!(state.step(), u64::from(!making));
    }
}

#[test]
fn a_worker_that_panics_is_an_error() {
    for count in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let (_, mut state) = begin();
        let run = run(folder.path(), 1, 2, Begin::New);
        let broken = || Worker::<u64, Error> {
            replica: state.replica().unwrap(),
            loss: Box::new(|_, _| std::panic::resume_unwind(Box::new("no message"))),
        };
        let mut workers: Vec<_> = (0..count).map(|_| broken()).collect();
        let error = run.train(&mut state, || Ok(0), &mut workers, |_, _| Ok(ControlFlow::Continue(())));
        assert!(matches!(error.unwrap_err(), Error::WorkerPanicked), "{count} workers");
    }
}

/// In the second step one of two workers fails while the other is still at work, and goes on working until the first has
/// failed. The training ends with that failure, whichever of them it is.
#[test]
fn a_worker_that_fails_beside_another_at_work_ends_the_training() {
    for failing in [0, 1] {
        for panics in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (_, mut state) = begin();
            let run = run(folder.path(), 5, 2, Begin::New);
            let (failed, wait) = std::sync::mpsc::channel::<()>();
            let mut ends = (Some(failed), Some(wait));
            let mut worker = |turn| {
                let Worker { replica, mut loss } = worker(&state);
                let (failed, wait) = if turn == failing { (ends.0.take(), None) } else { (None, ends.1.take()) };
                let loss = move |number, batch| match (number / 2, &failed, &wait) {
                    (1, Some(_), _) if panics => std::panic::resume_unwind(Box::new("no message")),
                    (1, Some(failed), _) => {
                        failed.send(()).unwrap();
                        Err(Error::NoBatches)
                    }
                    (1, _, Some(wait)) if !panics => {
                        wait.recv().unwrap();
                        loss(number, batch)
                    }
                    _ => loss(number, batch),
                };
                Worker { replica, loss: Box::new(loss) }
            };
            let mut workers = [worker(0), worker(1)];
            let mut numbers = 0..;
            let made = || Ok(numbers.next().unwrap());
            let observe = |_: &TrainState, _: Option<&Entry>| Ok(ControlFlow::Continue(()));
            let error = run.train(&mut state, made, &mut workers, observe).unwrap_err();
            let expected =
                if panics { matches!(error, Error::WorkerPanicked) } else { matches!(error, Error::NoBatches) };
            assert!(expected, "worker {failing}: {error}");
            assert_eq!(state.step(), 1);
        }
    }
}
