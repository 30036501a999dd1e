//! A training plan, in TOML.
#![no_main]

use ediffi_fuzz::{checked, peak, target};
use ediffi_train::plan::{Task, TrainingPlan};

target!(run);

fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (read, bytes) = peak(|| checked(TrainingPlan::parse(text)));
    // A schedule has 10 000 steps at most.
    assert!(bytes <= (4 << 20) + 256 * data.len(), "a plan of {} bytes took {bytes}", data.len());
    let Some(plan) = read else { return };
    let written = plan.to_toml().expect("what was read can be written");
    assert!(TrainingPlan::parse(&written).expect("what was written can be read") == plan, "another plan: {written}");
    assert!(!plan.to_string().is_empty());
    for task in plan.tasks() {
        assert!(plan.task(&task.name()).is_ok());
        assert!(task.training().optimizer().learning_rate.is_finite() && task.training().ema < 1.0);
        if let Task::Network(stage, network) = task {
            let _ = plan.lineage(stage, network).notes();
            let _ = checked(stage.levels(network));
        }
    }
}
