//! A plan, carried out: what is trained is skipped, what was begun goes on, what is not begun begins.

use std::path::Path;
use std::sync::Arc;

use ediffi_train::dataset::Dataset;
use ediffi_train::plan::Task;

use crate::observer::{Event, Observer};
use crate::options::{Options, Outcome};
use crate::plan::Plan;
use crate::workshop::Workshop;
use crate::{Result, assemble, encode, network, own_t5, run_folder};

/// The name of the model's folder in that of the run.
const MODEL: &str = "model";

/// Trains the networks of a plan on captioned pictures. When all of them are trained, `model` in the folder of the run is a model folder
/// that [`ediffi::Pipeline::open`] opens.
///
/// Killed and resumed, on one CPU it gives the weights of an unbroken run.
///
/// # Errors
/// [`Error::Plan`](crate::Error::Plan) and its kin before anything large is allocated; [`Error::Exists`](crate::Error::Exists),
/// [`Error::OtherRun`](crate::Error::OtherRun) and [`Error::NoRun`](crate::Error::NoRun) for the folder; those of the data, of the encoders
/// and of the training.
pub fn train(
    plan: &Plan,
    dataset: Arc<dyn Dataset>,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    use_threads(options);
    let workshop = Workshop::open(plan, dataset, options)?;
    run_folder::take(&options.folder, options.begin, plan, &workshop.data)?;
    for task in workshop.training.tasks() {
        let name = task.name();
        if !options.only.is_empty() && !options.only.contains(&name) {
            continue;
        }
        if task_of(&workshop, &task, observer)? == Outcome::Stopped {
            return Ok(Outcome::Stopped);
        }
        let _ = observer.event(&Event::Trained { name: &name });
    }
    run_folder::write_plan(&options.folder, plan)?;
    if assemble::missing(&workshop).is_none() {
        let folder = options.folder.join(MODEL);
        assemble::assemble(&workshop, &folder)?;
        let _ = observer.event(&Event::Model { folder: &folder });
    }
    Ok(Outcome::Trained)
}

/// Encodes the captions of the data once, into `into`, for trainings with [`Options::embeddings`]. A T5 that the plan trains is trained first.
/// Stopped or killed, the same call goes on.
///
/// # Errors
/// As [`train`]; a folder of other embeddings.
pub fn encode_captions(
    plan: &Plan,
    dataset: Arc<dyn Dataset>,
    options: &Options,
    into: &Path,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    use_threads(options);
    let workshop = Workshop::open(plan, dataset, options)?;
    if plan.encoders.own.is_some() {
        run_folder::take(&options.folder, options.begin, plan, &workshop.data)?;
        for task in workshop.training.tasks().filter(|task| matches!(task, Task::Encoder(_))) {
            if task_of(&workshop, &task, observer)? == Outcome::Stopped {
                return Ok(Outcome::Stopped);
            }
        }
    }
    encode::captions(&workshop, into, observer)
}

fn task_of(workshop: &Workshop<'_>, task: &Task<'_>, observer: &mut dyn Observer) -> Result<Outcome> {
    match (task, &workshop.plan.encoders.own) {
        (Task::Encoder(_), Some(own)) => {
            // One that no network reads is not trained.
            let tokens = workshop.needs.t5.map(|t5| t5.tokens);
            tokens.map_or(Ok(Outcome::Trained), |tokens| own_t5::train(workshop, own, tokens, observer))
        }
        (Task::Encoder(_), None) => Ok(Outcome::Trained),
        (Task::Network(stage, network), _) => network::train(workshop, &stage.name, &network.name, observer),
    }
}

fn use_threads(options: &Options) {
    if let Some(threads) = options.threads.and_then(|threads| i32::try_from(threads).ok()) {
        tch::set_num_threads(threads.max(1));
    }
}
