//! A picture of a published pipeline, from its text on.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use ediffi::{DeviceChoice, Event, ExpertInterval, Observer, Pipeline, Precision, Request};

use super::ready::Ready;
use crate::result::Result;

/// The first evaluation draws the picture. Later ones draw nothing: each says what one step of each network took in it.
pub(super) fn open(
    (folder, refiner): (&Path, Option<&Path>),
    text: &str,
    steps: &BTreeMap<String, usize>,
    precision: Precision,
) -> Result<Ready> {
    let mut builder = Pipeline::builder(folder).device(DeviceChoice::Cpu).precision(precision);
    if let Some(refiner) = refiner {
        builder = builder.expert(ExpertInterval::fraction(0.5..), refiner);
    }
    let pipeline = builder.open()?;
    let request = steps.iter().fold(Request::new(text), |request, (stage, steps)| request.steps(stage, *steps));
    let mut drawn = None;
    let evaluate = move || match drawn {
        Some(step) => Ok(step),
        None => {
            let (began, mut clock) = (Instant::now(), Clock::default());
            pipeline.generate_with(&request, &mut clock)?;
            if clock.steps.is_empty() {
                return Err("no network has drawn two steps".into());
            }
            drawn = Some(clock.steps.iter().map(Duration::as_secs_f64).sum());
            Ok(began.elapsed().as_secs_f64())
        }
    };
    Ok(Ready { evaluate: Box::new(evaluate), flop: None })
}

/// What the second step of each network takes: its weights are loaded then, and what is derived once is there.
#[derive(Default)]
struct Clock {
    steps: Vec<Duration>,
    /// Steps of the network at work, and when the last of them ended.
    done: usize,
    last: Option<Instant>,
}

impl Observer for Clock {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match event {
            Event::StageStarted { .. } | Event::ExpertSwitched { .. } => self.done = 0,
            Event::Step { .. } => {
                self.done += 1;
                let now = Instant::now();
                if let (2, Some(last)) = (self.done, self.last) {
                    self.steps.push(now - last);
                }
                self.last = Some(now);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
