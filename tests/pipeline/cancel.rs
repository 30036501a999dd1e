//! Observers: what they see, and how they stop a generation.

use std::ops::ControlFlow;

use ediffi::{Error, Event, Observer};

use crate::model::{Model, apple, bytes};

/// One letter for each event.
fn letter(event: &Event<'_>) -> char {
    match event {
        Event::EncoderStarted { .. } => 'e',
        Event::StageStarted { .. } => '(',
        Event::ExpertSwitched { .. } => 'x',
        Event::Step { .. } => '.',
        Event::StageFinished { .. } => ')',
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
    assert!(seen.ends_with(")(x..x..)"), "{seen}");
}

#[test]
fn steps_carry_a_preview() {
    let model = Model::new();
    let pipeline = model.builder().batch(2).open().unwrap();
    let mut last = None;
    let mut watch = |event: &Event<'_>| {
        if let Event::Step { stage, batch, batches, preview, .. } = event {
            assert_eq!((*batches, preview.images()), (2, if *batch == 0 { 0..2 } else { 2..3 }));
            let side = if *stage == "base" { 8 } else { 16 };
            let picture = preview.rgb(preview.images().start).unwrap().unwrap();
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
