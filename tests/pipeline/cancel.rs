//! Observers: what they see, and how they stop a generation.

use std::ops::ControlFlow;

use ediffi::{Error, Event, NoiseSource, Observer, Residency};
use ediffi_core::seed::Noise;

use crate::model::{Model, apple, bytes};

/// One letter for each event.
fn letter(event: &Event<'_>) -> char {
    match event {
        Event::EncoderStarted { .. } => 'e',
        Event::StageStarted { .. } => '(',
        Event::ExpertSwitched { .. } => 'x',
        Event::Step { .. } => '.',
        Event::StageFinished { .. } => ')',
        Event::Image { .. } => 'i',
        _ => '?',
    }
}

#[test]
fn events_come_in_order() {
    let model = Model::new();
    let pipeline = model.builder().batch(2).open().unwrap();
    let mut seen = String::new();
    let mut watch = |event: &Event<'_>| {
        seen.push(letter(event));
        ControlFlow::Continue(())
    };
    pipeline.generate_with(&apple().images(3), &mut watch).unwrap();
    // Two encoders; four steps with two experts and two steps with one, each for a batch of two and one of one.
    let base = seen.split('(').nth(1).unwrap();
    assert_eq!(seen.split('(').count(), 3, "{seen}");
    assert!(seen.starts_with("ee(x."), "{seen}");
    assert_eq!((base.matches('x').count(), base.matches('.').count(), base.matches(')').count()), (4, 8, 1), "{seen}");
    assert!(seen.ends_with(")(x..iix..i)"), "{seen}");
}

#[test]
fn steps_carry_a_preview() {
    let model = Model::new();
    let pipeline = model.builder().batch(2).open().unwrap();
    let mut last = None;
    let mut watch = |event: &Event<'_>| {
        if let Event::Step { stage, batch, batches, preview, .. } = event {
            assert_eq!((*batches, preview.images()), (2, if *batch == 0 { &[0, 1][..] } else { &[2] }));
            let side = if *stage == "base" { 8 } else { 16 };
            let picture = preview.rgb(preview.images()[0]).unwrap().unwrap();
            assert_eq!(picture.dimensions(), (side, side));
            last = Some(picture);
        }
        ControlFlow::Continue(())
    };
    let generation = pipeline.generate_with(&apple().images(3), &mut watch).unwrap();
    assert_eq!(last.as_ref(), Some(generation.images[2].rgb()), "the last preview is the picture");
}

#[test]
fn a_break_at_any_event_stops_and_leaves_the_pipeline_usable() {
    let model = Model::new();
    let pipeline = model.open();
    let expected = bytes(&pipeline.generate(&apple()).unwrap());
    let mut events = 0;
    let mut count = |_: &Event<'_>| {
        events += 1;
        ControlFlow::Continue(())
    };
    pipeline.release().unwrap();
    pipeline.generate_with(&apple(), &mut count).unwrap();
    assert!(events > 10);
    for stop in 0..events {
        pipeline.release().unwrap();
        let mut seen = 0;
        let mut watch = |_: &Event<'_>| {
            seen += 1;
            if seen > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = pipeline.generate_with(&apple(), &mut watch);
        assert!(matches!(result, Err(Error::Cancelled)), "at event {stop}");
        assert_eq!(seen, stop + 1, "nothing is reported after the break");
    }
    assert_eq!(bytes(&pipeline.generate(&apple()).unwrap()), expected);
}

/// What was finished before the end was handed out, and is what a whole run gives.
#[test]
fn a_run_that_ends_in_a_late_batch_loses_no_finished_image() {
    let model = Model::new();
    let expected = bytes(&model.builder().batch(2).open().unwrap().generate(&apple().images(5)).unwrap());
    let pipeline = model.builder().batch(2).open().unwrap();
    let kept_until = |end: &dyn Fn(usize, usize) -> ControlFlow<()>| {
        let mut kept: Vec<Vec<u8>> = Vec::new();
        let mut watch = |event: &Event<'_>| match event {
            Event::Image { index, image } => {
                assert_eq!(*index, kept.len());
                kept.push(image.to_png().unwrap());
                ControlFlow::Continue(())
            }
            Event::Step { stage: "sr", batch, index, .. } => end(*batch, *index),
            _ => ControlFlow::Continue(()),
        };
        (pipeline.generate_with(&apple().images(5), &mut watch).map(drop), kept)
    };
    let in_batch = |batch| {
        move |at, step| if (at, step) == (batch, 1) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    for batch in 0..3 {
        let (result, kept) = kept_until(&in_batch(batch));
        assert!(matches!(result, Err(Error::Cancelled)));
        assert_eq!(kept, expected[..2 * batch]);
    }
    // An observer that has seen enough at the first image is shown the rest of the batch.
    let mut shown = 0;
    let mut enough = |event: &Event<'_>| match event {
        Event::Image { .. } => {
            shown += 1;
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    };
    let stopped = pipeline.generate_with(&apple().images(5), &mut enough);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert_eq!(shown, 2);
    // An error keeps what is finished, too: here of the third batch, which has no noise.
    let mut kept = 0;
    let mut watch = |event: &Event<'_>| {
        kept += usize::from(matches!(event, Event::Image { .. }));
        ControlFlow::Continue(())
    };
    let mut noise = |_: &str, seeds: &[u64]| -> Box<dyn NoiseSource> {
        let images = if seeds.len() == 1 { &[] } else { seeds };
        Box::new(Noise::new(images, 0))
    };
    let request = apple().images(5).last_stage("base");
    let embeddings = pipeline.encode(&request).unwrap();
    let error = pipeline.sample_from(&embeddings, &request, &mut noise, &mut watch).unwrap_err();
    assert!(error.to_string().contains("noise"), "{error}");
    assert_eq!(kept, 4);
}

/// The pictures of a relay are those of each batch by itself, the progress counts what is done, and a batch is out before the next
/// one has its last turn.
#[test]
fn a_relay_draws_the_same_images_in_turns() {
    let model = Model::new();
    let request = apple().images(5).last_stage("base");
    let expected = bytes(&model.builder().batch(2).open().unwrap().generate(&request).unwrap());
    for residency in [Residency::Relay, Residency::RelayPrefetch] {
        let relay = model.builder().batch(2).residency(residency).open().unwrap();
        let mut seen = String::new();
        let mut watch = |event: &Event<'_>| {
            seen.push(letter(event));
            if let Event::ExpertSwitched { batch, .. } | Event::Step { batch, .. } = event {
                seen.push_str(&batch.to_string());
            }
            ControlFlow::Continue(())
        };
        assert_eq!(bytes(&relay.generate_with(&request, &mut watch).unwrap()), expected, "{residency:?}");
        assert_eq!(seen, "ee(x0.0.0x1.1.1x2.2.2x0.0.0iix1.1.1iix2.2.2i)", "{residency:?}");
    }
}

/// Raises its flag at a step and counts how often it is asked afterwards: each answer stands before one evaluation.
struct Flag {
    steps: usize,
    asked_after: usize,
    steps_after: usize,
}

impl Observer for Flag {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        if let Event::Step { .. } = event {
            self.steps += 1;
            self.steps_after += usize::from(self.steps > 2);
        }
        ControlFlow::Continue(())
    }

    fn cancelled(&mut self) -> bool {
        let raised = self.steps >= 2;
        self.asked_after += usize::from(raised);
        raised
    }
}

#[test]
fn a_flag_stops_before_the_next_evaluation() {
    let model = Model::new();
    let pipeline = model.open();
    let mut flag = Flag { steps: 0, asked_after: 0, steps_after: 0 };
    let result = pipeline.generate_with(&apple(), &mut flag);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!((flag.asked_after, flag.steps_after), (1, 0));
}

#[test]
fn an_observer_cannot_use_the_pipeline_it_watches() {
    let model = Model::new();
    let pipeline = model.open();
    let mut refused = 0;
    let mut watch = |_: &Event<'_>| {
        refused += usize::from(matches!(pipeline.generate(&apple()), Err(Error::Busy)));
        refused += usize::from(matches!(pipeline.release(), Err(Error::Busy)));
        assert!(pipeline.validate(&apple()).is_ok(), "looking at a request is free");
        ControlFlow::Break(())
    };
    assert!(matches!(pipeline.generate_with(&apple(), &mut watch), Err(Error::Cancelled)));
    assert_eq!(refused, 2);
}
