//! Sheets of a network under training.

use std::path::PathBuf;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::files::write_with_folders;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::unet::UNet;
use ediffi_core::weights;
use ediffi_data::Part;
use ediffi_train::batch::{Batch, BatchSource};
use ediffi_train::learner::Learner;
use ediffi_train::pixels::to_rgb;
use ediffi_train::random::batch_rng;
use tch::{Device, Tensor};

use crate::data::{Shapes, Text, Told, source};
use crate::plan::{NetworkPlan, Plan, StagePlan};
use crate::preview::Drawing;
use crate::start::Ancestor;
use crate::workshop::Workshop;
use crate::{Error, Result, sheet};

/// Pictures on a line, and on a sheet whose prompts are captions of the data.
const COLUMNS: usize = 8;

/// A sheet that was drawn.
pub(crate) struct Sheet {
    pub(crate) path: PathBuf,
    pub(crate) png: Vec<u8>,
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
}

/// Draws the sheets of one network.
pub(crate) struct Sheets<'w> {
    workshop: &'w Workshop<'w>,
    stage: &'w StagePlan,
    network: &'w NetworkPlan,
    /// What the network started from.
    parent: Option<Ancestor>,
    /// The network that it started as, which draws at the noise levels that it does not know; and captions or crops. Once they are needed.
    ready: Option<Ready>,
}

struct Ready {
    ancestor: Option<UNet>,
    batch: Batch<Text>,
}

impl<'w> Sheets<'w> {
    pub(crate) fn new(
        workshop: &'w Workshop<'w>,
        stage: &'w StagePlan,
        network: &'w NetworkPlan,
        parent: Option<Ancestor>,
    ) -> Self {
        Self { workshop, stage, network, parent, ready: None }
    }

    /// Draws a sheet with the learner's network. `None` where nobody knows all noise levels: an expert that started from nothing.
    pub(crate) fn draw<F>(&mut self, learner: &Learner<F>, told: &Told, step: u64) -> Result<Option<Sheet>>
    where
        F: Fn(&Batch<Text>) -> Result<Conditioning>,
    {
        let Self { workshop, stage, network, .. } = *self;
        let interval = network.cell.interval(&stage.noise)?;
        if interval != SigmaInterval::ALL && self.parent.is_none() {
            return Ok(None);
        }
        let ready = match self.ready.take() {
            Some(ready) => ready,
            None => self.prepare(interval)?,
        };
        let Ready { ancestor, batch } = self.ready.insert(ready);
        let mut networks = vec![(interval, &learner.network)];
        networks.extend(ancestor.iter().map(|ancestor| (SigmaInterval::ALL, ancestor)));
        let precondition = learner.objective.precondition.as_ref();
        let drawing = Drawing { networks, precondition, settings: &stage.sampler };
        let (side, pictures, columns) = if batch.smaller.is_some() {
            let (rows, _, side, _) = batch.pictures.size4()?;
            let conditioning = learner.conditioning(batch, &mut batch_rng(learner.objective.seed, u64::MAX))?;
            let drawn = drawing.draw(&conditioning, rows, side)?;
            let given = conditioning.low_res.unwrap_or_else(|| batch.pictures.shallow_clone());
            let lines = [given.f_to_device(Device::Cpu)?, drawn, batch.pictures.shallow_clone()];
            (side, Tensor::f_cat(&lines, 0)?, rows)
        } else {
            let (conditioning, rows) = prompts(workshop.plan, batch, told)?;
            let side = i64::from(stage.side);
            (side, drawing.draw(&conditioning, rows, side)?, rows.min(COLUMNS as i64))
        };
        let name = format!("{}.{}-{step:09}.png", stage.name, network.name);
        let path = workshop.options.folder.join("sheets").join(name);
        let (pictures, size) = (to_rgb(&pictures)?, u32::try_from(side).unwrap_or(0));
        let columns = u32::try_from(columns).unwrap_or(1);
        let png = sheet::png(&pictures, size, columns);
        let png = png.map_err(|source| Error::Sheet { path: path.clone(), source })?;
        write_with_folders(&path, &png)?;
        let lines = u32::try_from(pictures.len()).unwrap_or(0).div_ceil(columns.max(1));
        Ok(Some(Sheet { path, png, size: sheet::size(size, columns, lines) }))
    }

    /// Pictures that the network is not trained on, if any are held out.
    fn prepare(&self, interval: SigmaInterval) -> Result<Ready> {
        let Self { workshop, stage, .. } = self;
        let runtime = workshop.options.runtime;
        let ancestor = self.parent.as_ref().filter(|_| interval != SigmaInterval::ALL);
        let open = |Ancestor { weights, dimensions }: &Ancestor| {
            let build = |scope: weights::Scope<'_>| UNet::new(scope, dimensions, runtime.kind);
            let _no_grad = tch::no_grad_guard();
            weights::load(weights, |name| Some(name.to_owned()), runtime.device, runtime.kind, build)
        };
        let ancestor = ancestor.map(open).transpose()?;
        let part = if workshop.plan.data.held_out > 0.0 { Part::HeldOut } else { Part::Train };
        let threads = workshop.options.threads.unwrap_or(0);
        let mut batch = source(workshop.plan, stage, &workshop.dataset, (part, Shapes::Squares), threads)?.batch(0)?;
        let shown = batch.pictures.size4()?.0.min(COLUMNS as i64);
        batch.pictures = batch.pictures.f_narrow(0, 0, shown)?;
        batch.smaller = batch.smaller.map(|smaller| smaller.f_narrow(0, 0, shown)).transpose()?;
        batch.text.said.truncate(COLUMNS);
        Ok(Ready { ancestor, batch })
    }
}

/// What the pictures of a base show: the plan's prompts, or captions. Their number is told, too.
fn prompts(plan: &Plan, batch: &Batch<Text>, told: &Told) -> Result<(Conditioning, i64)> {
    let prompts = &plan.sheets.prompts;
    if prompts.is_empty() {
        let said = &batch.text.said;
        return Ok((told.of_samples(said)?, i64::try_from(said.len()).unwrap_or(1)));
    }
    let texts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    Ok((told.of_texts(&texts)?, i64::try_from(texts.len()).unwrap_or(1)))
}
