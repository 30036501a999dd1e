//! A plan, carried out: what is trained is skipped, what was begun goes on, what is not begun begins.

use std::path::Path;
use std::sync::Arc;

use ediffi_train::dataset::Dataset;
use ediffi_train::plan::Task;
use ediffi_train::reduce::{Alone, Reduce, agree};
use ediffi_train::run::Begin;

use crate::observer::{Event, Observer};
use crate::options::{Options, Outcome};
use crate::plan::{OWN_T5, Plan};
use crate::processes::{self, Processes};
use crate::workshop::Workshop;
use crate::{Result, assemble, encode, network, own_t5, run_folder, together};

/// The name of the model's folder in that of the run.
const MODEL: &str = "model";

/// Trains the networks of a plan on captioned pictures. When all of them are trained, `model` in the folder of the run is a model folder
/// that [`ediffi::Pipeline::open`] opens.
///
/// Killed and resumed, on one CPU it gives the weights of an unbroken run.
///
/// # Errors
/// [`Error::Plan`](crate::Error::Plan) and its kin before anything large is allocated; [`Error::Exists`](crate::Error::Exists),
/// [`Error::OtherRun`](crate::Error::OtherRun) and [`Error::NoRun`](crate::Error::NoRun) for the folder, and
/// [`Locked`](ediffi_train::Error::Locked) while another job is at work there; those of the data, of the encoders and of the training.
pub fn train(
    plan: &Plan,
    dataset: Arc<dyn Dataset>,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    train_together(&Alone, plan, dataset, options, observer)
}

/// As [`train`], in every process of `reduce` at once. All are given the same plan, data and options; threads and device may be each
/// one's own. The folder is one that all of them see.
///
/// The batches of a step are dealt to the processes: the weights are those of one process up to the order of sums, and a run goes on with
/// another number of processes. Rank 0 alone writes: checkpoints, logs, validation, sheets, kept weights and the model. It trains a T5 of the
/// plan's own while the others wait.
///
/// Every observer is told of the steps, and one that breaks stops all behind the same step. Of sheets, measurements, the T5 and the model
/// only that of rank 0 is told.
///
/// # Errors
/// As [`train`]; [`Error::Plan`](crate::Error::Plan) for fewer batches a step (`accumulate`) than processes;
/// [`Elsewhere`](ediffi_train::Error::Elsewhere) where another process failed; [`Apart`](ediffi_train::Error::Apart) for processes with other
/// plans, data or options; those of the [`Reduce`].
pub fn train_together(
    reduce: &dyn Reduce,
    plan: &Plan,
    dataset: Arc<dyn Dataset>,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    train_in_groups(&Processes::together(reduce), plan, dataset, options, observer)
}

/// As [`train_together`], with the processes divided into groups: networks whose parents are trained are dealt to the groups, which train them
/// side by side, and meet behind them. One that stands alone is trained by all, if the plan has batches for all (`accumulate`). A group needs
/// no more batches a step than it has processes.
///
/// An observer that breaks stops its group; the others stop when they are through with the networks that are trained beside. Each group tells of its
/// own steps; that networks are trained is told to all, when the groups have met.
///
/// # Errors
/// As [`train_together`]. What fails in one group is returned there at once, while the others train: who started the processes ends them,
/// as `ediffi_cluster::run` does.
pub fn train_in_groups(
    processes: &Processes<'_>,
    plan: &Plan,
    dataset: Arc<dyn Dataset>,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    use_threads(options);
    let everyone = processes.everyone;
    let workshop = agree(everyone, Workshop::open(plan, dataset, options))?;
    together::check(processes, plan, &workshop.data, options)?;
    let _claim = together::on_first(everyone, || run_folder::take(options, plan, &workshop.data))?;
    for wave in processes::of_plan(&workshop.training, &options.only, processes.groups) {
        let mut stopped = false;
        for (turn, task) in wave.iter().enumerate() {
            if let Some(reduce) = processes.at(turn, wave.len(), plan.accumulate).filter(|_| !stopped) {
                stopped = one(reduce, &workshop, task, observer)? == Outcome::Stopped;
            }
        }
        if together::meet(processes, stopped)? {
            return Ok(Outcome::Stopped);
        }
        for task in &wave {
            let _ = observer.event(&Event::Trained { name: &task.name() });
        }
    }
    let finish = || {
        run_folder::write_plan(&options.folder, plan)?;
        let whole = assemble::missing(&workshop).is_none();
        if whole {
            let folder = options.folder.join(MODEL);
            assemble::assemble(&workshop, &folder)?;
            let _ = observer.event(&Event::Model { folder: &folder });
        }
        Ok(whole)
    };
    together::first(everyone, finish)?;
    Ok(Outcome::Trained)
}

/// Trains one thing in all processes of `reduce`.
fn one(reduce: &dyn Reduce, workshop: &Workshop<'_>, task: &Task<'_>, observer: &mut dyn Observer) -> Result<Outcome> {
    match task {
        Task::Encoder(_) => {
            let trained = || Ok(encoder(workshop, observer)? == Outcome::Trained);
            Ok(if together::first(reduce, trained)? { Outcome::Trained } else { Outcome::Stopped })
        }
        Task::Network(stage, network) => network::train(reduce, workshop, &stage.name, &network.name, observer),
    }
}

/// Encodes the captions of the data once, into `into`, for trainings with [`Options::embeddings`]. A T5 that the plan trains is trained first.
/// Stopped or killed, the same call goes on: for [`Begin::New`], too, what is there of that T5 stays, and nothing else is touched.
///
/// # Errors
/// As [`train`], except that a run of this plan and these data may be there; a folder of other embeddings.
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
        let begin = if options.begin == Begin::New { Begin::Resume } else { options.begin };
        let own = Options { begin, only: vec![OWN_T5.to_owned()], ..options.clone() };
        let _claim = run_folder::take(&own, plan, &workshop.data)?;
        if encoder(&workshop, observer)? == Outcome::Stopped {
            return Ok(Outcome::Stopped);
        }
    }
    encode::captions(&workshop, into, observer)
}

/// Trains the T5 that the plan trains. One that no network reads is not trained.
fn encoder(workshop: &Workshop<'_>, observer: &mut dyn Observer) -> Result<Outcome> {
    match (&workshop.plan.encoders.own, workshop.needs.t5) {
        (Some(own), Some(t5)) => own_t5::train(workshop, own, t5.tokens, observer),
        _ => Ok(Outcome::Trained),
    }
}

fn use_threads(options: &Options) {
    if let Some(threads) = options.threads.and_then(|threads| i32::try_from(threads).ok()) {
        tch::set_num_threads(threads.max(1));
    }
}
