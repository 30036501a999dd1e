//! A plan, carried out: what is trained is skipped, what was begun goes on, what is not begun begins.

use ediffi_train::plan::Task;
use ediffi_train::run::Begin;

use super::stages::{dimensions_of, side};
use super::workshop::{Outcome, Workshop};
use super::{Result, clip, networks, t5};

/// Trains the tasks of the plan in order: all of them, or those of `only`. Those of `restart` begin anew.
pub fn execute(workshop: &Workshop, only: &[String], restart: &[String]) -> Result<Outcome> {
    for name in only.iter().chain(restart) {
        workshop.plan.task(name)?;
    }
    if let Some(name) = restart.iter().find(|name| !only.is_empty() && !only.contains(name)) {
        return Err(format!("--restart {name} is not among what --only names").into());
    }
    for task in workshop.plan.tasks() {
        // Before the first is trained: a fault in the last would show after days.
        if let Task::Network(stage, network) = task {
            dimensions_of(network, side(stage)?)?.validate().map_err(|error| format!("{}: {error}", task.name()))?;
        }
    }
    for task in workshop.plan.tasks() {
        let name = task.name();
        if !only.is_empty() && !only.contains(&name) {
            continue;
        }
        let begin = if restart.contains(&name) { Begin::Restart } else { Begin::Resume };
        let outcome = match &task {
            Task::Encoder(encoder) => match encoder.name.as_str() {
                "clip" => clip::train(workshop, encoder, begin),
                "t5" => t5::train(workshop, encoder, begin),
                other => Err(format!("this program trains no encoder {other:?}: there are clip and t5").into()),
            },
            Task::Network(stage, network) => networks::train(workshop, stage, network, begin),
        };
        match outcome {
            Err(error) => return Err(advice(&name, error)),
            Ok(Outcome::Stopped) => return Ok(Outcome::Stopped),
            Ok(Outcome::Trained) => {}
        }
    }
    Ok(Outcome::Trained)
}

/// What somebody whose checkpoint does not fit can do.
fn advice(name: &str, error: Box<dyn std::error::Error + Send + Sync>) -> Box<dyn std::error::Error + Send + Sync> {
    match error.downcast_ref() {
        Some(
            ediffi_train::Error::Lineage { .. }
            | ediffi_train::Error::Checkpoint { .. }
            | ediffi_train::Error::RestartKilled { .. },
        ) => format!("{error}. `--restart {name}` trains it anew").into(),
        _ => error,
    }
}
