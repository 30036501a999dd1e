//! The networks of the stages: the base on whole pictures, super-resolution on crops with spoilt smaller pictures.

use std::borrow::Borrow;
use std::path::Path;
use std::sync::Arc;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::unet::UNetConfig;
use ediffi_core::weights::Params;
use ediffi_train::batch::Batch;
use ediffi_train::corruption::Corruption;
use ediffi_train::dropout::ConditioningDropout;
use ediffi_train::fit::fit;
use ediffi_train::learner::{Learner, Objective};
use ediffi_train::plan::{NetworkTraining, StageTraining, Task};
use ediffi_train::run::Begin;
use ediffi_train::state::{Shared, TrainState};
use tch::Kind;

use super::batches::Captions;
use super::encoders::Encoders;
use super::stages::{BASE, dimensions_of, precondition, side};
use super::workshop::{Outcome, Workshop};
use super::{Result, preview, redraw};

/// Side of the crops that super-resolution trains on.
const CROP: u32 = 64;

/// What tells the noise of the base's batches from their scenes. Super-resolution has the side of its stage for this.
const NOISE: u64 = 0x6E01_5E00;

/// Trains one network of a stage and exports its averaged weights.
pub fn train(workshop: &Workshop, stage: &StageTraining, network: &NetworkTraining, begin: Begin) -> Result<Outcome> {
    let (task, side, runtime) = (Task::Network(stage, network), side(stage)?, workshop.runtime);
    let name = task.name();
    let redrawn = redraw::prepare(workshop, stage, network)?.map(Arc::new);
    let run = workshop.run(&name, &task, begin, workshop.lineage(stage, network)?);
    let weights = workshop.weights(&name);
    workshop.discard(&name, begin, &weights)?;
    if run.is_trained(&weights)? {
        println!("{name}: trained");
        return Ok(Outcome::Trained);
    }
    let paper = ConditioningDropout::default();
    let seed = workshop.plan.seed ^ if side == BASE { NOISE } else { u64::from(side) };
    let (dimensions, precondition) = (dimensions_of(network, side)?, network.precondition.unwrap_or_else(precondition));
    let objective = Objective {
        // References are dropped when a batch is made, so that none is drawn and embedded in vain.
        dropout: ConditioningDropout { clip_image: 0.0, ..paper },
        corruption: if side > 256 { Corruption::for_256() } else { Corruption::for_64() },
        ..Objective::new(precondition, stage.levels(network)?, seed)
    };
    let open = || Encoders::open(&workshop.clip(), &workshop.t5(), runtime);
    let data = workshop.data(run.batch);
    let batches = {
        let (data, redrawn) = (workshop.data(run.batch), redrawn.clone());
        move |number| match side {
            BASE => data.pictures(number, BASE, 1.0 - paper.clip_image),
            side => data.crops(number, side, CROP, redrawn.as_deref()),
        }
    };
    let parent = workshop.parent(stage, network);
    // An expert knows its own noise levels alone: its sheets are drawn together with the network that it began as. One that began as
    // none denoises pictures.
    let interval = network.cell.interval(&stage.noise)?;
    let alone = interval == SigmaInterval::ALL;
    let began_as = stage.networks.iter().find(|other| side == BASE && network.parent.as_ref() == Some(&other.name));
    let began_as = parent.iter().zip(began_as);
    let ancestor = began_as.map(|(weights, other)| preview::open(weights, &dimensions_of(other, side)?, runtime));
    let ancestor = ancestor.collect::<Result<Vec<_>>>()?.pop();
    let mut encoders = None;
    let sheet = |state: &TrainState, path: &Path| {
        let _no_grad = tch::no_grad_guard();
        // Opened for the first sheet, and kept for the others.
        let encoders: &Encoders = match &mut encoders {
            Some(encoders) => encoders,
            none => none.insert(open()?),
        };
        let learner = learner(&mut Shared(state.average()), &dimensions, runtime.kind, &objective, encoders)?;
        let unseen = u64::MAX / data.rows - 1;
        match side {
            BASE if alone || ancestor.is_some() => preview::base(path, &learner, interval, ancestor.as_ref()),
            BASE => preview::denoised(path, &learner, interval, &data.pictures(unseen, BASE, 0.0)?),
            side => preview::super_resolution(path, &learner, data.crops(unseen, side, CROP, redrawn.as_deref())?),
        }
    };
    let setup = workshop.setup(&task, parent);
    let loss = |params: &mut dyn Params| {
        let learner = learner(params, &dimensions, runtime.kind, &objective, open()?)?;
        Ok(move |number, batch: Batch<Captions>| learner.loss(number, &batch))
    };
    let state = fit(&run, &setup, batches, loss, workshop.watch(&run, sheet))?;
    if state.step() < run.steps {
        return Ok(Outcome::Stopped);
    }
    state.export(&weights, "", Kind::Float, run.lineage.notes())?;
    Ok(Outcome::Trained)
}

/// A network of these dimensions, which reads what `encoders` make of captions.
fn learner<E: Borrow<Encoders>>(
    params: &mut dyn Params,
    dimensions: &UNetConfig,
    kind: Kind,
    objective: &Objective,
    encoders: E,
) -> Result<Learner<impl Fn(&Batch<Captions>) -> Result<Conditioning> + use<E>>> {
    let encode = move |batch: &Batch<Captions>| encoders.borrow().encode(&batch.text);
    Ok(Learner::new(params, dimensions, kind, objective.clone(), encode)?)
}
