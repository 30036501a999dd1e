//! A request: everything that decides a picture, except the model.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ediffi_cascade::{SettingsPatch, Tiling};
use ediffi_core::brief::told_json;
use ediffi_core::guidance::Guidance;
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::Solver;
use ediffi_paint::Canvas;
use serde::{Deserialize, Serialize};

use crate::{Edit, Error, MicroConditioning, Mix, Near, Result, StagePrompt, Style, StyleImage};

/// What to draw, and how. The same request to the same model gives the same picture, to the bit on one machine.
///
/// Every setter is optional:
///
/// ```
/// use ediffi::Request;
///
/// let request = Request::new("a red apple left of a cat").seed(7).images(4).steps("base", 30).guidance("base", 6.0);
/// let json = serde_json::to_string(&request)?;
/// assert_eq!(serde_json::from_str::<Request>(&json)?, request);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// In JSON only the prompt is required. An unknown key is an error that names it. [`Pipeline::validate`](crate::Pipeline::validate)
/// checks a request against a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
#[must_use]
pub struct Request {
    /// What to draw.
    #[serde(default)]
    pub prompt: String,
    /// What guidance leads away from (default: the empty prompt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// Other prompts that share in the picture, or take over at some noise levels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<Mix>,
    /// What single stages are told in the place of prompt and negative prompt, by the name of the stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stage_prompts: BTreeMap<String, StagePrompt>,
    /// Allow an empty prompt (default: false).
    #[serde(default, skip_serializing_if = "is_false")]
    pub unconditional: bool,
    /// Cut a prompt that is too long for an encoder, in place of an error (default: false).
    #[serde(default, skip_serializing_if = "is_false")]
    pub truncate: bool,
    /// The style to take, from pictures or embeddings of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<Style>,
    /// Where the words of the prompt appear: paint-with-words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canvas: Option<Canvas>,
    /// The picture to begin with: image to image, inpainting, enlarging.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
    /// What SDXL's networks are told of the picture (default: its size, and that it was not cut).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro: Option<MicroConditioning>,
    /// The seed of the first image; image k has `seed + k`.
    #[serde(default)]
    pub seed: u64,
    /// Another seed, whose picture the images are near to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
    /// Number of images (default: 1).
    #[serde(default = "one")]
    pub images: usize,
    /// Width in pixels of the finished picture (default: the size of the last stage, or in the proportions of the picture to edit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels of the finished picture (default: the size of the last stage, or in the proportions of the picture to edit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// The first stage to run (default: the model's first). One of super-resolution enlarges the picture to edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_stage: Option<String>,
    /// The last stage to run (default: the model's last).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_stage: Option<String>,
    /// One of the model's [presets](crate::SettingsPreset), by name (default: the model's own settings).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// What differs from the settings of the preset, or from the model's own, by the name of the stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stages: BTreeMap<String, SettingsPatch>,
}

fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Request {
    /// One image of `prompt`, with seed 0 and the model's own settings.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: None,
            mix: Vec::new(),
            stage_prompts: BTreeMap::new(),
            unconditional: false,
            truncate: false,
            style: None,
            canvas: None,
            edit: None,
            micro: None,
            seed: 0,
            near: None,
            images: 1,
            width: None,
            height: None,
            first_stage: None,
            last_stage: None,
            preset: None,
            stages: BTreeMap::new(),
        }
    }

    /// Reads the JSON of a request. The error says where the fault is, and does not grow with what was read, as that of `serde_json`
    /// may: it can be sent back to a stranger.
    ///
    /// # Errors
    /// [`Error::RequestJson`] naming an unknown key or a value that does not fit, with line and column.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| Error::RequestJson(told_json(error)))
    }

    /// One image without a prompt. It may still have a style.
    pub fn unconditional() -> Self {
        Self { unconditional: true, ..Self::new("") }
    }

    /// One image of what is in a picture, as the model's CLIP sees it, without a prompt: a variation. Each seed is another one. A prompt may be
    /// set beside it; [`edit`](Self::edit) with the same picture keeps its layout, too.
    pub fn variation(picture: StyleImage) -> Self {
        Self::unconditional().style(picture)
    }

    /// Sets what guidance leads away from. It has no effect where guidance is off.
    pub fn negative_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.negative_prompt = Some(prompt.into());
        self
    }

    /// Mixes another prompt in, which shares in the picture or takes over at some noise levels: see [`Mix`].
    pub fn mix(mut self, mix: Mix) -> Self {
        self.mix.push(mix);
        self
    }

    /// Sets what one stage is told in the place of the prompt.
    pub fn stage_prompt(mut self, stage: impl Into<String>, prompt: impl Into<String>) -> Self {
        self.stage_prompts.entry(stage.into()).or_default().prompt = Some(prompt.into());
        self
    }

    /// Sets what guidance leads away from in one stage, in the place of the negative prompt.
    pub fn stage_negative_prompt(mut self, stage: impl Into<String>, prompt: impl Into<String>) -> Self {
        self.stage_prompts.entry(stage.into()).or_default().negative_prompt = Some(prompt.into());
        self
    }

    /// Sets what SDXL's networks are told of the picture. Other models refuse it.
    pub fn micro(mut self, micro: MicroConditioning) -> Self {
        self.micro = Some(micro);
        self
    }

    /// Sets the seed of the first image. Image k has `seed + k`, which wraps to 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes variations of the picture of another seed: see [`Near`].
    pub fn near(mut self, seed: u64, strength: f64) -> Self {
        self.near = Some(Near { seed, strength });
        self
    }

    /// Sets how many images to make.
    pub fn images(mut self, images: usize) -> Self {
        self.images = images;
        self
    }

    /// Sets width and height in pixels of the finished picture. Earlier stages draw it in the same proportions.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        (self.width, self.height) = (Some(width), Some(height));
        self
    }

    /// Begins with a picture: image to image, inpainting or enlarging. See [`Edit`].
    pub fn edit(mut self, edit: Edit) -> Self {
        self.edit = Some(edit);
        self
    }

    /// Begins with this stage. One of super-resolution enlarges the picture of [`edit`](Self::edit).
    pub fn first_stage(mut self, stage: impl Into<String>) -> Self {
        self.first_stage = Some(stage.into());
        self
    }

    /// Stops after this stage.
    pub fn last_stage(mut self, stage: impl Into<String>) -> Self {
        self.last_stage = Some(stage.into());
        self
    }

    /// Takes the settings of one of the model's [presets](crate::SettingsPreset): [`Manifest::presets`](crate::Manifest::presets) has their
    /// names. What the request itself sets for a stage stands above them.
    pub fn preset(mut self, name: impl Into<String>) -> Self {
        self.preset = Some(name.into());
        self
    }

    /// Cuts a prompt that is too long for an encoder, with a warning in the log, in place of an error.
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// Takes the style of a picture ([`StyleImage`]), of an embedding kept from before
    /// ([`StyleEmbedding`](crate::StyleEmbedding)), or of several of them ([`Style`]). What is in the picture stays with the
    /// prompt.
    pub fn style(mut self, style: impl Into<Style>) -> Self {
        self.style = Some(style.into());
        self
    }

    /// Takes a style with a strength: see [`Style::strength`](field@Style::strength).
    pub fn style_with_strength(self, style: impl Into<Style>, strength: f64) -> Self {
        self.style(style.into().strength(strength))
    }

    /// Sets where words of the prompt appear: paint-with-words.
    ///
    /// The canvas is scaled to the picture. It acts in the first stage, which decides where things are.
    pub fn canvas(mut self, canvas: Canvas) -> Self {
        self.canvas = Some(canvas);
        self
    }

    /// Sets the number of steps of a stage.
    pub fn steps(self, stage: impl Into<String>, steps: usize) -> Self {
        self.set(stage, |settings| settings.steps = Some(steps))
    }

    /// Sets the solver of a stage.
    pub fn solver(self, stage: impl Into<String>, solver: Solver) -> Self {
        self.set(stage, |settings| settings.solver = Some(solver))
    }

    /// Sets the schedule of a stage.
    pub fn schedule(self, stage: impl Into<String>, schedule: Schedule) -> Self {
        self.set(stage, |settings| settings.schedule = Some(schedule))
    }

    /// Sets the scale of a stage's guidance: 1 is none. Interval and thresholding stay the model's.
    pub fn guidance(self, stage: impl Into<String>, scale: f64) -> Self {
        self.set(stage, |settings| settings.guidance_scale = Some(scale))
    }

    /// Sets the whole of a stage's guidance.
    pub fn guidance_rule(self, stage: impl Into<String>, guidance: Guidance) -> Self {
        self.set(stage, |settings| {
            settings.guidance_scale = None;
            settings.guidance = Some(guidance);
        })
    }

    /// Sets the scale of guidance of one expert of a stage. Experts are counted as [`Pipeline::plan`](crate::Pipeline::plan) counts them, and the
    /// manifest: those of published folders from the noisiest.
    ///
    /// ```
    /// use ediffi::{Request, Solver};
    ///
    /// // SDXL and its refiner: the second is guided less, by another solver, and away from another text.
    /// let request = Request::new("a lighthouse in a storm")
    ///     .expert_guidance("base", 1, 3.0)
    ///     .expert_solver("base", 1, Solver::DpmPp2M)
    ///     .expert_negative_prompt("base", 1, "blurred");
    /// ```
    pub fn expert_guidance(self, stage: impl Into<String>, expert: usize, scale: f64) -> Self {
        self.set(stage, |settings| settings.experts.entry(expert).or_default().guidance_scale = Some(scale))
    }

    /// Sets the number of steps of one expert of a stage, which are laid between the first and the last noise level that the schedule of the
    /// stage has in its interval. The other experts keep theirs.
    pub fn expert_steps(self, stage: impl Into<String>, expert: usize, steps: usize) -> Self {
        self.set(stage, |settings| settings.experts.entry(expert).or_default().steps = Some(steps))
    }

    /// Sets the solver of the steps that begin in the interval of one expert of a stage. It takes over where the picture is; a multistep
    /// solver begins anew there.
    pub fn expert_solver(self, stage: impl Into<String>, expert: usize, solver: Solver) -> Self {
        self.set(stage, |settings| settings.experts.entry(expert).or_default().solver = Some(solver))
    }

    /// Sets what guidance leads one expert of a stage away from, in the place of the negative prompt.
    pub fn expert_negative_prompt(
        mut self,
        stage: impl Into<String>,
        expert: usize,
        prompt: impl Into<String>,
    ) -> Self {
        self.stage_prompts.entry(stage.into()).or_default().expert_negative_prompts.insert(expert, prompt.into());
        self
    }

    /// Runs a stage tile by tile, to save memory.
    pub fn tiling(self, stage: impl Into<String>, tiling: Tiling) -> Self {
        self.set(stage, |settings| settings.tiling = Some(tiling))
    }

    fn set(mut self, stage: impl Into<String>, set: impl FnOnce(&mut SettingsPatch)) -> Self {
        set(self.stages.entry(stage.into()).or_default());
        self
    }

    /// The request as a picture keeps it: large pictures of its style scaled down. All its pictures are decoded for it.
    ///
    /// # Errors
    /// [`Error::StyleImage`](crate::Error::StyleImage) and [`Error::EditPicture`](crate::Error::EditPicture) for a picture whose pixels are
    /// damaged.
    pub(crate) fn settled(&self) -> Result<Cow<'_, Self>> {
        self.edit.as_ref().map_or(Ok(()), Edit::expect_whole)?;
        let style = self.style.as_ref().map(Style::settled).transpose()?.flatten();
        Ok(style.map_or(Cow::Borrowed(self), |style| Cow::Owned(Self { style: Some(style), ..self.clone() })))
    }

    /// Whether it has texts beside prompt and negative prompt, which are for its images alone.
    pub(crate) fn has_further_texts(&self) -> bool {
        !self.mix.is_empty() || !self.stage_prompts.is_empty()
    }

    /// The request whose only image is image `index` of this one.
    pub(crate) fn only(&self, index: usize) -> Self {
        Self { seed: self.seed.wrapping_add(index as u64), images: 1, ..self.clone() }
    }
}

#[cfg(test)]
mod tests;
