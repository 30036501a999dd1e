//! The training of one network of a plan.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use ediffi_core::weights::{self, Params, WeightsFile};
use ediffi_train::fit::{Setup, fit_together};
use ediffi_train::log::Entry;
use ediffi_train::reduce::{Reduce, agree, ask_first, gather};
use ediffi_train::run::Begin;
use ediffi_train::state::{Shared, TrainState};
use tch::{Kind, Tensor};

use crate::kept::Kept;
use crate::measuring::Measuring;
use crate::observer::{Event, Observer};
use crate::options::Outcome;
use crate::plan::{Export, NetworkPlan, Plan, StagePlan};
use crate::run_folder::Anew;
use crate::sheets::Sheets;
use crate::subject::Subject;
use crate::together::{first, number_of_first, on_first};
use crate::watch::Watch;
use crate::workshop::Workshop;
use crate::{Error, Result};

/// Trains one network in all processes of `reduce`. Rank 0 exports its averaged weights, which are there for all afterwards.
pub(crate) fn train(
    reduce: &dyn Reduce,
    workshop: &Workshop<'_>,
    stage: &str,
    network: &str,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let (stage, network) = workshop.planned(stage, network)?;
    let name = format!("{}.{}", stage.name, network.name);
    let (task, plan, options) = (workshop.training.task(&name)?, workshop.plan, workshop.options);
    let run = || workshop.run(&name, &task, workshop.lineage(stage, network)?);
    let mut run = agree(reduce, run())?;
    let (weights, kept) = (workshop.weights(&name), Kept::new(&options.folder, &name, plan.keep));
    let open = || -> Result<_> {
        run.begin.discard(&weights)?;
        Ok((Measuring::open(workshop, stage, network)?, Anew::of(&run)?))
    };
    let (measuring, anew) = on_first(reduce, open)?.unzip();
    let measuring = measuring.flatten();
    let ended = measuring.as_ref().and_then(Measuring::ended);
    run.steps = number_of_first(reduce, ended.map_or(run.steps, |ended| run.steps.min(ended)))?;
    if ask_first(reduce, || Ok::<_, Error>(run.is_trained(&weights)?))? {
        return Ok(Outcome::Trained);
    }
    let prepare = || -> Result<_> {
        let batches = workshop.batches(stage)?;
        let parent = workshop.parent(stage, network)?;
        Ok((Subject::of(workshop, (stage, network), &task, parent.as_ref())?, parent, batches))
    };
    let (subject, parent, batches) = agree(reduce, prepare())?;
    let setup = Setup {
        seed: task.seed(plan.seed),
        // What a LoRA starts from is frozen, and no parameter of its own.
        parent: parent.as_ref().filter(|_| network.lora.is_none()).map(|parent| parent.weights.clone()),
        device: options.runtime.device,
        kind: subject.kind(),
        optimizer: network.training.optimizer(),
        ema: network.training.ema,
        workers: workshop.workers(reduce.world()),
    };
    let notes = subject.notes(run.lineage.notes());
    let learner = |params: &mut dyn Params| subject.loss(params);
    let mut looks = anew.map(|anew| Looks {
        workshop,
        subject: &subject,
        sheets: Sheets::new(workshop, stage, network, parent),
        watch: Watch::new(&run, &options.folder, anew),
        measuring,
        kept,
        name: &name,
        steps: run.steps,
        notes: notes.clone(),
        ended: false,
    });
    let (skipping, before) = (batches.clone(), batches.skipped());
    let mut told = 0;
    let observe = |state: &TrainState, entry: Option<&Entry>| {
        let (step, steps) = (state.step(), run.steps);
        let times = skipping.skipped().saturating_sub(before);
        let stops = entry.is_some()
            && std::mem::replace(&mut told, times) != times
            && observer.event(&Event::Skipped { name: &name, times }).is_break();
        let flow = match &mut looks {
            Some(looks) => looks.step(state, entry, observer),
            None => Ok(observer.event(&Event::Step { name: &name, step, steps, entry })),
        };
        if takes_long(workshop, step, steps) {
            // Whatever comes of it: the others wait here, where nobody is missed.
            reduce.barrier()?;
        }
        if stops { flow.map(|_| ControlFlow::Break(())) } else { flow }
    };
    let state = fit_together(reduce, &run, &setup, batches, learner, observe)?;
    let all = gather(reduce, &[skipping.skipped().saturating_sub(before) as f64])?;
    let times: f64 = all.iter().flatten().sum();
    if times > 0.0 {
        // Nothing is left to stop.
        let _ = observer.event(&Event::Skipped { name: &name, times: times as u64 });
    }
    let export = || {
        let Some(Looks { kept, ended, watch, .. }) = &mut looks else { return Ok(false) };
        watch.begun()?;
        if state.step() < run.steps && !*ended {
            return Ok(false);
        }
        match plan.keep.export {
            Export::Last => state.export(&weights, "", Kind::Float, notes.clone())?,
            Export::Best if !kept.best().is_file() => return Err(Error::NoBest { network: name.clone() }),
            Export::Best => export_best(&kept.best(), &weights, state.step(), notes.clone())?,
        }
        Ok(true)
    };
    Ok(if first(reduce, export)? { Outcome::Trained } else { Outcome::Stopped })
}

/// Whether rank 0 draws, measures or writes after a step.
fn takes_long(workshop: &Workshop<'_>, step: u64, steps: u64) -> bool {
    let Plan { keep, validation, .. } = workshop.plan;
    let every = [workshop.options.sheet_steps, keep.every, validation.map_or(0, |validation| validation.every)];
    step == steps || every.into_iter().any(|every| every > 0 && step.is_multiple_of(every))
}

/// What is looked at and kept on the way.
struct Looks<'w> {
    workshop: &'w Workshop<'w>,
    subject: &'w Subject,
    sheets: Sheets<'w>,
    watch: Watch,
    measuring: Option<Measuring>,
    kept: Kept,
    name: &'w str,
    steps: u64,
    notes: HashMap<String, String>,
    ended: bool,
}

impl Looks<'_> {
    /// After every step.
    fn step(
        &mut self,
        state: &TrainState,
        entry: Option<&Entry>,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<()>> {
        let (step, last) = (state.step(), state.step() == self.steps);
        let mut flow = self.watch.step(state, entry, observer)?;
        if let Some(path) = self.kept.due(step) {
            self.export(state, &path)?;
            self.kept.prune(step)?;
        }
        if self.measure(state, last, observer)? {
            (self.ended, flow) = (true, ControlFlow::Break(()));
        }
        let every = self.workshop.options.sheet_steps;
        if every > 0 && (step.is_multiple_of(every) || last || self.ended) {
            let _no_grad = tch::no_grad_guard();
            let learner = self.subject.learner(&mut Shared(state.average()))?;
            if let Some(sheet) = self.sheets.draw(&learner, self.subject.told(), step)? {
                self.watch.events(step)?.picture("samples", step, sheet.size, &sheet.png)?;
                if observer.event(&Event::Sheet { path: &sheet.path }).is_break() {
                    flow = ControlFlow::Break(());
                }
            }
        }
        Ok(flow)
    }

    /// Measures the averaged weights if it is time to. Whether the training ends with that.
    fn measure(&mut self, state: &TrainState, last: bool, observer: &mut dyn Observer) -> Result<bool> {
        let (Some(measuring), step) = (&mut self.measuring, state.step()) else { return Ok(false) };
        measuring.begin(step)?;
        if !measuring.due(step) && !last {
            return Ok(false);
        }
        let _no_grad = tch::no_grad_guard();
        let learner = self.subject.learner(&mut Shared(state.average()))?;
        let measured = measuring.measure(self.workshop, &learner, step)?;
        let events = self.watch.events(step)?;
        events.scalar("validation/mean", step, measured.mean())?;
        for (bin, loss) in measured.losses.iter().enumerate() {
            events.scalar(&format!("validation/{}", measuring.label(bin)), step, *loss)?;
        }
        let stop = observer.event(&Event::Measured { name: self.name, step, losses: &measured.losses });
        // The file first: a log that has the best knows that its weights are there.
        if measuring.is_best(&measured) {
            let best = self.kept.best();
            self.export(state, &best)?;
        }
        let ended = self.measuring.as_mut().map(|measuring| measuring.write(measured)).transpose()?;
        Ok(ended.unwrap_or(false) && stop.is_continue() && !last)
    }

    fn export(&self, state: &TrainState, path: &Path) -> Result<()> {
        ediffi_core::files::make_folder_of(path)?;
        Ok(state.export(path, "", Kind::Float, self.notes.clone())?)
    }
}

/// The best weights as those of a network that is trained.
fn export_best(best: &Path, to: &Path, steps: u64, mut notes: HashMap<String, String>) -> Result<()> {
    let file = WeightsFile::open(best, |name| Some(name.to_owned()))?;
    for (note, of) in [("best", "steps"), ("pictures", "pictures")] {
        notes.extend(file.text(of).map(|text| (note.to_owned(), text.to_owned())));
    }
    notes.insert("steps".to_owned(), steps.to_string());
    Ok(weights::save(to, &Tensor::read_safetensors(best)?, notes)?)
}

impl<'a> Workshop<'a> {
    /// A network of the plan with its stage.
    pub(crate) fn planned(&self, stage: &str, network: &str) -> Result<(&'a StagePlan, &'a NetworkPlan)> {
        let plan: &'a Plan = self.plan;
        let stages = plan.stages.iter().filter(|found| found.name == stage);
        let mut networks = stages.flat_map(|stage| stage.networks.iter().map(move |network| (stage, network)));
        networks.find(|(_, found)| found.name == network).ok_or_else(|| Error::Plan {
            what: format!("{stage}.{network}"),
            reason: "the plan has no such network".to_owned(),
        })
    }

    /// Whether a network has had all its steps, or was ended by its validation.
    pub(crate) fn is_finished(&self, stage: &StagePlan, network: &NetworkPlan) -> Result<bool> {
        let name = format!("{}.{}", stage.name, network.name);
        let mut run = self.run(&name, &self.training.task(&name)?, self.lineage(stage, network)?)?;
        run.begin = Begin::Resume;
        let ended = Measuring::open(self, stage, network)?.as_ref().and_then(Measuring::ended);
        run.steps = ended.map_or(run.steps, |ended| run.steps.min(ended));
        Ok(run.is_trained(&self.weights(&name))?)
    }
}
