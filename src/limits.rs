//! The most that a request may ask for: set by whoever opens a pipeline, and checked in one place before anything is decoded or
//! allocated.

use ediffi_cascade::{SettingsPatch, sizes};
use serde::{Deserialize, Serialize};

use crate::shape::{self, StageShape};
use crate::style::StyleSource;
use crate::{Edit, Problem, Request, StagePrompt, Style};

/// The most that one request may ask for. The default is safe for requests of strangers;
/// [`PipelineBuilder::limits`](crate::PipelineBuilder::limits) sets others.
///
/// ```
/// use ediffi::{Limits, Pipeline};
///
/// let limits = Limits { images: 4, steps: 100, ..Limits::default() };
/// let builder = Pipeline::builder("models/icons").limits(limits);
/// ```
///
/// They are checked before a prompt is tokenized, a picture decoded or a mask unpacked. A request that breaks some is refused with a
/// [`Problem::Limit`] for each, which names the field and the limit; what else is wrong with it is not looked for. Reading a request
/// from JSON takes memory in proportion to its length: bound that where it comes in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Pixels of one picture of a stage (default: 2048²). An enlarger makes more of them.
    pub pixels: u64,
    /// Images (default: 64).
    pub images: usize,
    /// Steps that a request sets for a stage, or for its experts together, and those of an edit with its jumps (default: 1000). A schedule has at most 10 000, whatever stands here.
    pub steps: usize,
    /// Characters of each prompt, and of each phrase of a canvas (default: 4096). Encoders read some hundred.
    pub prompt_characters: usize,
    /// Prompts that are mixed in, and stages and experts with prompts of their own (default: 8). Each prompt that shares in the estimates takes as long as
    /// the first.
    pub prompts: usize,
    /// Regions of a canvas (default: 64, which is also the most that a canvas can have).
    pub regions: usize,
    /// Bytes of the masks of a canvas as they are painted: a byte for each pixel of each region (default: 64 MiB).
    pub mask_bytes: u64,
    /// References of a style, pictures and embeddings (default: 32).
    pub style_pictures: usize,
    /// Pixels of the pictures of a style together, before they are scaled down (default: 2²⁵).
    pub style_pixels: u64,
    /// Pixels of a picture that is edited, and of its mask (default: 2²⁴).
    pub edit_pixels: u64,
    /// Bytes that the pictures of a request take while it is drawn, finished ones included (default: 4 GiB): the numbers in
    /// [`Cascade::run`](ediffi_cascade::Cascade::run), and what reading the largest picture of a style and painting the canvas take.
    /// Networks and what they compute on the way are the model's, and do not count.
    pub working_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pixels: 1 << 22,
            images: 64,
            steps: 1000,
            prompt_characters: 4096,
            prompts: 8,
            regions: 64,
            mask_bytes: 64 << 20,
            style_pictures: 32,
            style_pixels: 1 << 25,
            edit_pixels: 1 << 24,
            working_memory: 4 << 30,
        }
    }
}

/// How a pipeline draws, as far as memory goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawing {
    /// Images that are computed together.
    pub(crate) batch: usize,
    /// Whether all batches are on the way at the same time.
    pub(crate) turns: bool,
    /// Whether images keep their float pixels.
    pub(crate) keep_floats: bool,
    /// How many times as wide and as high an enlarger makes the picture of the last stage; 1 without one.
    pub(crate) scale: u64,
}

/// Bytes of a pixel: finished, in f32, and on its way through a solver, which is at most six times the pixels.
const FINISHED: u64 = 3;
const FLOATS: u64 = 12;
const ON_THE_WAY: u64 = 6 * FLOATS;

/// Bytes of a pixel that are in use while a picture of a style is read, and while a canvas is painted in f32 and f64.
const READING: u64 = 32;
const PAINTING: u64 = 12;

impl Limits {
    /// Every limit that a request breaks; `all` are the stages of the model, `running` those that it asks for.
    pub(crate) fn problems(
        &self,
        request: &Request,
        all: &[StageShape],
        running: &[StageShape],
        drawing: Drawing,
    ) -> Vec<Problem> {
        let mut found = Found::default();
        let characters = self.prompt_characters as u64;
        found.check("prompt, characters", length(&request.prompt, characters), characters, "prompt_characters");
        if let Some(negative) = &request.negative_prompt {
            found.check("negative prompt, characters", length(negative, characters), characters, "prompt_characters");
        }
        let further = request.mix.iter().map(|mix| &mix.prompt);
        let further = further.chain(request.stage_prompts.values().flat_map(StagePrompt::texts));
        let longest = further.map(|text| length(text, characters)).max().unwrap_or(0);
        found.check("further prompts, characters", longest, characters, "prompt_characters");
        let experts: usize = request.stage_prompts.values().map(|own| own.expert_negative_prompts.len()).sum();
        let prompts = (request.mix.len() + request.stage_prompts.len() + experts) as u64;
        found.check("mixed prompts and those of stages", prompts, self.prompts as u64, "prompts");
        found.check("images", request.images as u64, self.images as u64, "images");
        for (name, patch) in &request.stages {
            let Some(stage) = all.iter().find(|stage| stage.name == *name) else { continue };
            self.stage_steps(stage, patch, &mut found);
        }
        let jumps = request.edit.as_ref().and_then(|edit| edit.jumps).filter(|jumps| jumps.count > 0);
        if let Some((jumps, levels)) = jumps.zip(running.first().and_then(|first| first.levels(request))) {
            let steps = jumps.steps(levels.len());
            found.check("edit, steps with its jumps", steps as u64, self.steps as u64, "steps");
        }
        let pixels = pixels(request, running);
        found.check("width and height, pixels", pixels, self.pixels, "pixels");
        self.style(request.style.as_ref(), &mut found);
        let edited =
            request.edit.iter().flat_map(Edit::pictures).map(|picture| area(picture.width(), picture.height()));
        let edited: Vec<u64> = edited.collect();
        for (field, pixels) in ["edit, pixels of the picture", "edit, pixels of the mask"].iter().zip(&edited) {
            found.check(field, *pixels, self.edit_pixels, "edit_pixels");
        }
        let painted = self.canvas(request, &mut found);
        // What a breach of another limit asks for need not be named twice.
        if found.0.is_empty() {
            let whole = running.last().map(|last| &last.name) == all.last().map(|last| &last.name);
            // Of latents, four numbers stand for the three of each of 64 pixels.
            let drawn = if running.iter().any(|stage| stage.latent) { pixels.div_ceil(48) } else { pixels };
            let bytes = drawing.bytes(request.images as u64, (pixels, drawn), whole);
            let bytes = bytes.saturating_add(request.style.as_ref().map_or(0, largest).saturating_mul(READING));
            let bytes = bytes.saturating_add(painted.saturating_mul(PAINTING));
            // Each is decoded, and is in f32; a stage has both at its own size.
            let given: u64 = edited.iter().fold(0, |sum, pixels| sum.saturating_add(pixels.saturating_mul(READING)));
            let held = if edited.is_empty() { 0 } else { pixels.saturating_mul(READING) };
            let bytes = bytes.saturating_add(given).saturating_add(held);
            found.check("images, width and height: bytes", bytes, self.working_memory, "working_memory");
        }
        found.0
    }

    /// The limit that the steps of the prior break, if they do.
    pub(crate) fn steps_problem(&self, request: &Request, prior: &StageShape) -> Option<Problem> {
        let mut found = Found::default();
        self.stage_steps(prior, request.stages.get(&prior.name)?, &mut found);
        found.0.pop()
    }

    /// The steps that a request sets for a stage.
    fn stage_steps(&self, stage: &StageShape, patch: &SettingsPatch, found: &mut Found) {
        let own = patch.schedule.as_ref().and_then(ediffi_core::schedule::Schedule::own_steps);
        let steps = patch.steps.or(own).unwrap_or(0).max(own.unwrap_or(0));
        // Before anything is laid out by them.
        let laid = patch.experts.values().filter_map(|own| own.steps).fold(0_usize, usize::saturating_add);
        let steps = steps.max(laid);
        found.check(&format!("stage `{}`, steps", stage.name), steps as u64, self.steps as u64, "steps");
    }

    /// As [`problems`](Self::problems), of a style alone.
    pub(crate) fn style_problems(&self, style: &Style) -> Vec<Problem> {
        let mut found = Found::default();
        self.style(Some(style), &mut found);
        found.0
    }

    fn style(&self, style: Option<&Style>, found: &mut Found) {
        let Some(style) = style else { return };
        found.check("style, references", style.references.len() as u64, self.style_pictures as u64, "style_pictures");
        found.check("style, pixels of its pictures", style.pixels(), self.style_pixels, "style_pixels");
    }

    /// The pixels of the canvas.
    fn canvas(&self, request: &Request, found: &mut Found) -> u64 {
        let Some(canvas) = &request.canvas else { return 0 };
        let regions = canvas.regions().len() as u64;
        let pixels = u64::from(canvas.width()) * u64::from(canvas.height());
        found.check("canvas, regions", regions, self.regions as u64, "regions");
        found.check("canvas, bytes of its masks", pixels.saturating_mul(regions), self.mask_bytes, "mask_bytes");
        let characters = self.prompt_characters as u64;
        let longest = canvas.regions().iter().map(|region| length(&region.phrase, characters)).max();
        found.check("canvas, characters of a phrase", longest.unwrap_or(0), characters, "prompt_characters");
        pixels
    }
}

impl Drawing {
    /// Bytes of `images` pictures of `pixels`, of which a solver has `drawn`; `whole`: whether the last stage runs, after which an enlarger
    /// has its turn.
    fn bytes(self, images: u64, (pixels, drawn): (u64, u64), whole: bool) -> u64 {
        let scale = if whole { self.scale } else { 1 };
        let finished = pixels.saturating_mul(scale.saturating_mul(scale));
        let batch = images.min(self.batch as u64);
        let way = if self.turns { images } else { batch };
        let kept = FINISHED + if self.keep_floats { FLOATS } else { 0 };
        let enlarging = if scale > 1 { finished.saturating_mul(batch).saturating_mul(FLOATS) } else { 0 };
        finished
            .saturating_mul(images)
            .saturating_mul(kept)
            .saturating_add(enlarging)
            .saturating_add(pixels.saturating_mul(images).saturating_mul(FLOATS))
            .saturating_add(drawn.saturating_mul(way).saturating_mul(ON_THE_WAY))
    }
}

/// The limits that were broken.
#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn check(&mut self, field: &str, value: u64, limit: u64, name: &'static str) {
        if value > limit {
            self.0.push(Problem::Limit { field: field.to_owned(), value, limit, name });
        }
    }
}

fn area(width: u32, height: u32) -> u64 {
    u64::from(width) * u64::from(height)
}

/// The characters of a text. One of more bytes than `limit` characters can have is not read to its end.
fn length(text: &str, limit: u64) -> u64 {
    let bytes = text.len() as u64;
    if bytes > limit.saturating_mul(4) { bytes.div_ceil(4) } else { text.chars().count() as u64 }
}

/// Pixels of the largest picture that a stage draws. A side that no stage can draw counts as it was asked for.
fn pixels(request: &Request, running: &[StageShape]) -> u64 {
    let sizes: Vec<_> = running.iter().map(|stage| stage.size).collect();
    let last = sizes.last().map_or(0, |stage| u64::try_from(stage.size).unwrap_or(0));
    let sides = |side: Option<u32>| {
        let asked = side.map_or(last, u64::from);
        let drawn = sizes::sides(&sizes, side).unwrap_or_default();
        drawn.into_iter().map(u64::from).max().map_or(asked, |drawn| drawn.max(asked))
    };
    let (width, height) = shape::size(request, running);
    sides(width).saturating_mul(sides(height))
}

/// Pixels of the largest picture of a style.
fn largest(style: &Style) -> u64 {
    let of = |source: &StyleSource| match source {
        StyleSource::Image(image) => u64::from(image.width()) * u64::from(image.height()),
        StyleSource::Embedding(_) => 0,
    };
    style.references.iter().map(|reference| of(&reference.source)).max().unwrap_or(0)
}
