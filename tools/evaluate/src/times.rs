//! How long one step of one picture takes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use ediffi::{Event, Pipeline, Request};
use serde::Serialize;

use crate::bootstrap::{Measure, mean};
use crate::error::Result;

/// Pictures whose steps are timed, after one that is not.
const PICTURES: u64 = 3;

/// The time of a step of a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepTime {
    pub(crate) stage: String,
    pub(crate) side: i64,
    /// Milliseconds of a step of one picture, guidance included, with every core at work on it.
    pub(crate) milliseconds: Measure,
}

/// Times the steps of the first `stages` stages, with the model's own settings. The first step of each stage and picture does not
/// count: it also does what is done once.
pub fn step_times(folder: &Path, stages: usize) -> Result<Vec<StepTime>> {
    let before = tch::get_num_threads();
    tch::set_num_threads(std::thread::available_parallelism().map_or(1, usize::from) as i32);
    let timed = time(folder, stages);
    tch::set_num_threads(before);
    timed
}

fn time(folder: &Path, stages: usize) -> Result<Vec<StepTime>> {
    let pipeline = Pipeline::open(folder)?;
    let running = pipeline.manifest().stages.get(..stages).unwrap_or_default();
    let mut request = Request::new("a red apple left of a cat, noto style");
    if let Some(last) = running.last() {
        request = request.last_stage(&last.name);
    }
    pipeline.generate(&request)?;
    let mut times: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for seed in 0..PICTURES {
        let mut last = Instant::now();
        let mut watch = |event: &Event<'_>| {
            if let Event::Step { stage, index, .. } = event {
                if *index > 0 {
                    times.entry((*stage).to_owned()).or_default().push(last.elapsed().as_secs_f64() * 1e3);
                }
                last = Instant::now();
            }
            ControlFlow::Continue(())
        };
        pipeline.generate_with(&request.clone().seed(seed), &mut watch)?;
    }
    let time = |stage: &ediffi::StageConfig| {
        let milliseconds = mean(times.get(&stage.name)?)?;
        Some(StepTime { stage: stage.name.clone(), side: stage.size, milliseconds })
    };
    Ok(running.iter().filter_map(time).collect())
}
