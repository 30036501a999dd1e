//! The events of a job as a stream.

use ediffi::{JobEvent, Worker, events};

use crate::model::{Model, apple};

#[test]
fn a_job_s_events_are_read_beside_it() {
    let model = Model::new();
    let worker = Worker::new(model.builder().batch(1).open().unwrap()).unwrap();
    let (reporter, stream) = events(100);
    let job = worker.submit_with(apple().images(2), reporter.with_previews()).unwrap();
    let (mut steps, mut started, mut finished, mut images) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for event in stream {
        match event {
            JobEvent::StageStarted { stage, width, steps, .. } => started.push((stage, width, steps)),
            JobEvent::Step { stage, batch, index, steps: of, previews } => {
                assert!(previews.iter().all(|(image, _)| *image == batch) && previews.len() == 1);
                steps.push((stage, batch, index, of, previews[0].1.width()));
            }
            JobEvent::StageFinished { stage, .. } => finished.push(stage),
            JobEvent::Image { index, image } => images.push((index, image)),
            _ => {}
        }
    }
    assert_eq!(started, [("base".to_owned(), 8, 8), ("sr".to_owned(), 16, 4)]);
    assert_eq!(finished, ["base", "sr"]);
    assert_eq!(steps.len(), 12);
    assert_eq!((&steps[0], &steps[11]), (&("base".to_owned(), 0, 0, 4, 8), &("sr".to_owned(), 1, 1, 2, 16)));
    // The stream has ended: the result is there.
    let generation = job.wait().unwrap();
    let pixels = |index: usize| generation.images[index].rgb();
    assert!(images.iter().all(|(index, image)| image.rgb() == pixels(*index)) && images.len() == 2);
}

/// Whoever does not read keeps nobody waiting, and finds the newest step and every end.
#[test]
fn a_slow_reader_loses_steps_and_no_image() {
    let model = Model::new();
    let worker = Worker::new(model.open()).unwrap();
    let (reporter, stream) = events(1);
    worker.submit_with(apple().images(3), reporter).unwrap().wait().unwrap();
    let all: Vec<JobEvent> = stream.collect();
    let steps = all.iter().filter(|event| matches!(event, JobEvent::Step { .. })).count();
    let images = all.iter().filter(|event| matches!(event, JobEvent::Image { .. })).count();
    let ends = all.iter().filter(|event| matches!(event, JobEvent::StageFinished { .. })).count();
    assert_eq!((steps, images, ends), (1, 3, 2));
    // A job that is cancelled, and one whose reader is gone.
    let (reporter, stream) = events(1);
    let job = worker.submit_with(apple(), reporter).unwrap();
    job.cancel();
    drop(stream.collect::<Vec<_>>());
    let (reporter, stream) = events(1);
    drop(stream);
    worker.submit_with(apple(), reporter).unwrap().wait().unwrap();
}
