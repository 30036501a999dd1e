//! A pipeline shared by many threads.

use std::ops::ControlFlow;
use std::sync::mpsc;

use ediffi::{Error, Event, Phase, Request, Worker};

use crate::model::{Model, apple, bytes};

#[test]
fn jobs_of_many_threads_get_their_own_pictures() {
    let model = Model::new();
    let worker = Worker::new(model.open()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let worker = worker.clone();
            std::thread::spawn(move || bytes(&worker.generate(apple().seed(seed)).unwrap()))
        })
        .collect();
    let pipeline = model.open();
    for (seed, thread) in threads.into_iter().enumerate() {
        let expected = bytes(&pipeline.generate(&apple().seed(seed as u64)).unwrap());
        assert_eq!(thread.join().unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn an_error_of_the_pipeline_reaches_the_one_who_waits() {
    let model = Model::new();
    let worker = Worker::new(model.open()).unwrap();
    let error = worker.generate(Request::new("")).unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }));
    worker.generate(apple()).unwrap();
}

#[test]
fn a_job_can_be_watched_and_cancelled() {
    let model = Model::new();
    let worker = Worker::new(model.open()).unwrap();
    let (say, hear) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let mut stopped_once = false;
    let watch = move |event: &Event<'_>| {
        if let (Event::Step { .. }, false) = (event, stopped_once) {
            stopped_once = true;
            let _ = say.send(());
            let _ = wait.recv();
        }
        ControlFlow::Continue(())
    };
    let job = worker.submit_with(apple(), watch).unwrap();
    hear.recv().unwrap();
    let progress = job.progress();
    assert_eq!((progress.phase, progress.stage.as_str()), (Phase::Running, "base"));
    assert_eq!((progress.stage_index, progress.stages, progress.step, progress.steps), (0, 2, 1, 4));
    assert_eq!(progress.fraction(), 0.125);
    job.cancel();
    go.send(()).unwrap();
    assert!(matches!(job.wait(), Err(Error::Cancelled)));
    worker.generate(apple()).unwrap();
}

#[test]
fn a_panic_of_an_observer_ends_its_job_alone() {
    let model = Model::new();
    let worker = Worker::new(model.open()).unwrap();
    let watch = |event: &Event<'_>| match event {
        Event::Step { .. } => panic!("observer"),
        _ => ControlFlow::Continue(()),
    };
    let error = worker.submit_with(apple(), watch).unwrap().wait().unwrap_err();
    assert!(matches!(&error, Error::Panicked(message) if message == "observer"), "{error}");
    let expected = bytes(&model.open().generate(&apple()).unwrap());
    assert_eq!(bytes(&worker.generate(apple()).unwrap()), expected, "and the pipeline is whole");
}
