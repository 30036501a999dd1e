//! A pipeline shared by many threads.

use std::ops::ControlFlow;
use std::sync::mpsc;

use ediffi::{
    DeviceChoice, Error, Event, Limits, Phase, Pipeline, Precision, Request, Site, T5Weights, Tensor, WeightFunction,
    Worker,
};

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

/// Both ways of waiting for one's own worker, which would never end.
#[test]
fn an_observer_cannot_wait_for_its_own_worker() {
    let model = Model::new();
    let worker = Worker::new(model.open()).unwrap();
    let inner = worker.clone();
    let (say, hear) = mpsc::channel();
    let watch = move |event: &Event<'_>| {
        if let Event::StageStarted { index: 0, .. } = event {
            let waited = inner.submit(apple()).unwrap();
            say.send([inner.generate(apple()).err(), waited.wait().err(), inner.shutdown().err()]).unwrap();
        }
        ControlFlow::Continue(())
    };
    let result = worker.submit_with(apple(), watch).unwrap().wait();
    assert!(hear.recv().unwrap().iter().all(|error| matches!(error, Some(Error::Busy))));
    assert!(matches!(result, Err(Error::Cancelled)), "it has shut the worker down");
    // Another worker is no trouble.
    let (worker, other) = (Worker::new(model.open()).unwrap(), Worker::new(model.open()).unwrap());
    let (say, hear) = mpsc::channel();
    let watch = move |event: &Event<'_>| {
        if let Event::StageStarted { index: 0, .. } = event {
            say.send(bytes(&other.generate(apple()).unwrap())).unwrap();
        }
        ControlFlow::Continue(())
    };
    let own = worker.submit_with(apple(), watch).unwrap().wait().unwrap();
    assert_eq!(hear.recv().unwrap(), bytes(&own));
}

#[test]
fn what_needs_no_file_is_checked_when_a_request_is_submitted() {
    let model = Model::new();
    let worker = Worker::new(model.open()).unwrap();
    for wrong in [Request::new(""), apple().images(0), apple().last_stage("none")] {
        assert!(matches!(worker.submit(wrong), Err(Error::InvalidRequest { .. })));
    }
    // Its length in tokens is known when the tokenizer is open.
    let long = worker.submit(Request::new("a red apple ".repeat(40))).unwrap();
    assert!(matches!(long.wait(), Err(Error::InvalidRequest { .. })));
}

#[test]
fn pipelines_of_one_model_share_a_queue() {
    let model = Model::new();
    let worker = Worker::over([model.open(), model.open()], 64).unwrap();
    // Two jobs that wait for each other: each has a thread of its own.
    let meeting = std::sync::Arc::new(std::sync::Barrier::new(2));
    let jobs: Vec<_> = (0..2)
        .map(|seed| {
            let meeting = std::sync::Arc::clone(&meeting);
            let watch = move |event: &Event<'_>| {
                if matches!(event, Event::StageStarted { .. }) {
                    meeting.wait();
                }
                ControlFlow::Continue(())
            };
            worker.submit_with(apple().seed(seed), watch).unwrap()
        })
        .collect();
    let pipeline = model.open();
    for (seed, job) in jobs.into_iter().enumerate() {
        let expected = bytes(&pipeline.generate(&apple().seed(seed as u64)).unwrap());
        assert_eq!(bytes(&job.wait().unwrap()), expected, "seed {seed}");
    }
    assert!(matches!(Worker::over(vec![], 1), Err(Error::WorkerPipelines(_))));
}

/// Switches paint off.
#[derive(Debug)]
struct Unpainted;

impl WeightFunction for Unpainted {
    fn weight(&self, _: &Site<'_>) -> ediffi_paint::Result<Option<Tensor>> {
        Ok(None)
    }
}

fn enlarger(name: &str) -> String {
    format!("{}/ediffi-cascade/tests/fixtures/enlarger/{name}.safetensors", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn pipelines_that_would_draw_other_pictures_share_none() {
    let model = Model::new();
    let of = |model: &Model| Pipeline::builder(model.path()).device(DeviceChoice::Cpu).precision(Precision::F32);
    let builder = || of(&model);
    let differ = |other: Pipeline| match Worker::over([builder().open().unwrap(), other], 1) {
        Err(Error::WorkerPipelinesDiffer(part)) => part,
        other => panic!("{other:?}"),
    };
    let edited = Model::new();
    edited.edit(|manifest| manifest["stages"][0]["sampler"]["steps"] = 5.into());
    assert_eq!(differ(of(&edited).open().unwrap()), "model");
    let limits = Limits { images: 7, ..Limits::default() };
    assert_eq!(differ(builder().limits(limits).open().unwrap()), "limits");
    assert_eq!(differ(builder().precision(Precision::Bf16).open().unwrap()), "precision");
    assert_eq!(differ(builder().t5_weights(T5Weights::Int8).open().unwrap()), "encoders");
    assert_eq!(differ(builder().paint_weight(Unpainted).open().unwrap()), "paint weights");
    assert_eq!(differ(builder().keep_floats(true).open().unwrap()), "kept floats");
    let enlarging = |name: &str| builder().enlarger(enlarger(name)).open().unwrap();
    assert_eq!(differ(enlarging("compact")), "enlarger");
    assert!(matches!(
        Worker::over([enlarging("compact"), enlarging("compact-2")], 1),
        Err(Error::WorkerPipelinesDiffer("enlarger"))
    ));
    // The same files under another name draw the same.
    let same = Model::new();
    assert!(Worker::over([model.open(), same.open()], 1).is_ok());
    let weights = |name: &str| same.path().join(name);
    std::fs::copy(weights("base/low.safetensors"), weights("base/high.safetensors")).unwrap();
    assert_eq!(differ(of(&same).open().unwrap()), "weights");
}
