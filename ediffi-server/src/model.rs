//! The models that a server draws with, and what it says of them without drawing.

use std::sync::{Mutex, PoisonError};

use ediffi::{Canvas, DeviceChoice, Pipeline, PipelineBuilder, Region, Request, StagePlan};
use serde::Serialize;
use utoipa::ToSchema;

use crate::refusal::Refusal;

/// A stage of a model.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StageInfo {
    /// Its name.
    pub name: String,
    /// Width in pixels of its pictures, unless a request sets another size.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Its steps, unless a request sets others.
    pub steps: usize,
    /// Whether it enlarges the pictures of the stage before it.
    pub enlarges: bool,
    /// Whether it draws latents.
    pub latent: bool,
    /// How many experts it has.
    pub experts: usize,
}

/// A preset of a model.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PresetInfo {
    /// Its name, for `preset` of a request.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// A model of the server.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelInfo {
    /// Its name.
    pub id: String,
    /// Width in pixels of its finished pictures.
    pub width: u32,
    /// Height in pixels of its finished pictures.
    pub height: u32,
    /// Its stages, in their order.
    pub stages: Vec<StageInfo>,
    /// Its presets.
    pub presets: Vec<PresetInfo>,
    /// Whether it reads a prompt.
    pub text: bool,
    /// Whether it takes a style from pictures.
    pub style: bool,
    /// Whether words can be painted.
    pub canvas: bool,
    /// Prompts that show what it draws.
    pub prompts: Vec<String>,
}

/// A model: how it is opened, and an open pipeline that answers what needs no drawing.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) info: ModelInfo,
    builder: PipelineBuilder,
    reader: Mutex<Pipeline>,
}

impl Model {
    /// Opens a model. Its weights are not loaded.
    pub(crate) fn open(id: &str, builder: PipelineBuilder, prompts: Vec<String>) -> ediffi::Result<Self> {
        let reader = builder.clone().open()?;
        let plans = reader.plan(&plain())?;
        let manifest = reader.manifest();
        let takes = |request: &Request| reader.validate(request).is_ok();
        let stage = |plan: &StagePlan| {
            let config = manifest.stages.iter().find(|stage| stage.name == plan.stage);
            StageInfo {
                name: plan.stage.clone(),
                width: plan.width,
                height: plan.height,
                steps: plan.plan.steps().len(),
                enlarges: plan.index > 0 && plan.embedding.is_none(),
                latent: plan.decoding.is_some(),
                experts: config.map_or(1, |stage| stage.experts.len()),
            }
        };
        let presets = manifest.presets.iter();
        let presets =
            presets.map(|(name, preset)| PresetInfo { name: name.clone(), description: preset.about.clone() });
        let info = ModelInfo {
            id: id.to_owned(),
            width: plans.last().map_or(0, |plan| plan.width),
            height: plans.last().map_or(0, |plan| plan.height),
            stages: plans.iter().map(stage).collect(),
            presets: presets.collect(),
            text: takes(&Request::new("a")),
            style: manifest.encoders.clip.is_some(),
            canvas: takes(&painted()?),
            prompts,
        };
        Ok(Self { info, builder, reader: Mutex::new(reader) })
    }

    /// A pipeline that draws on a device of its own.
    pub(crate) fn pipeline(&self, device: DeviceChoice) -> ediffi::Result<Pipeline> {
        self.builder.clone().device(device).keep_encoders(true).open()
    }

    /// Asks the pipeline that draws nothing. It reads files and tokenizes, so the thread may wait a moment.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&Pipeline) -> ediffi::Result<T>) -> Result<T, Refusal> {
        // It is changed by nobody who asks, so a panic leaves it whole.
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&reader).map_err(|error| Refusal::of(&error))
    }
}

/// A request that every model takes.
fn plain() -> Request {
    Request::unconditional()
}

/// A request with a painted word.
fn painted() -> ediffi::Result<Request> {
    let canvas = Canvas::new([Region::rectangle("cat", (2, 1), 0..1, 0..1)?])?;
    Ok(Request::new("a cat").canvas(canvas))
}
