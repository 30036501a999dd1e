//! What is known of a stage before anything is loaded.

use std::ops::RangeInclusive;

use ediffi_cascade::sizes::{self, StageSize};
use ediffi_cascade::{Owners, Prior, SamplerSettings, Stage};
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::unet::EmbeddingShapes;

use crate::{Edit, Request};

/// What a request is checked against.
#[derive(Debug, Clone)]
pub(crate) struct StageShape {
    pub(crate) name: String,
    pub(crate) size: StageSize,
    /// The embeddings its networks take.
    pub(crate) needs: EmbeddingShapes,
    /// How it samples unless a request says otherwise.
    pub(crate) settings: SamplerSettings,
    /// The timesteps that its schedules count on.
    pub(crate) timesteps: NoiseTable,
    /// Which expert owns which noise level.
    pub(crate) owners: Owners,
    /// Whether guidance may move away from a weaker network.
    pub(crate) weaker: bool,
    /// Whether it enlarges the picture of the stage before.
    pub(crate) enlarges: bool,
    /// Whether its pictures are RGB, as those of users are.
    pub(crate) rgb: bool,
    /// Whether it draws latents.
    pub(crate) latent: bool,
}

impl StageShape {
    pub(crate) fn of(stage: &Stage) -> Self {
        Self {
            name: stage.name().to_owned(),
            size: stage.sizes(),
            needs: stage.io().embeddings,
            settings: stage.config().settings.clone(),
            timesteps: stage.config().precondition.timesteps(),
            owners: stage.config().owners(),
            weaker: stage.config().weaker.is_some(),
            enlarges: stage.io().low_res,
            rgb: stage.picture_channels() == 3,
            latent: stage.autoencoder().is_some(),
        }
    }

    /// That of what draws image embeddings, which is no stage of the cascade.
    pub(crate) fn of_prior(prior: &Prior) -> Self {
        Self {
            name: Prior::NAME.to_owned(),
            size: StageSize { size: 1, multiple: 1 },
            needs: EmbeddingShapes::default(),
            settings: prior.settings().clone(),
            timesteps: prior.precondition().timesteps(),
            owners: Owners::single(prior.precondition().timesteps()),
            weaker: false,
            enlarges: false,
            rgb: false,
            latent: false,
        }
    }
}

impl StageShape {
    /// The noise levels with which its steps begin where it is the first of a request, without those that an edit leaves out and before any
    /// jumps; `None` for settings that make no schedule.
    pub(crate) fn levels(&self, request: &Request) -> Option<Vec<f64>> {
        let settings = self.settings.patched(request.stages.get(&self.name));
        let mut levels = self.owners.owned(&settings).ok()?.sigmas;
        levels.retain(|sigma| *sigma > 0.0);
        let strength = request.edit.as_ref().filter(|_| !self.enlarges).map_or(1.0, Edit::resolved_strength);
        let made = ((levels.len() as f64 * strength) as usize).min(levels.len());
        Some(levels.split_off(levels.len() - made))
    }
}

/// Whether a prior draws an image embedding for this request: the first stage runs, and the request gives none by a style.
pub(crate) fn has_prior(request: &Request, stages: &[StageShape]) -> bool {
    *range(request, stages).start() == 0 && request.style.is_none()
}

/// The numbers of the stages from the first that the request names to the last; those of all, if it names none or one that does not
/// exist.
pub(crate) fn range(request: &Request, stages: &[StageShape]) -> RangeInclusive<usize> {
    let find = |name: &Option<String>| stages.iter().position(|stage| Some(&stage.name) == name.as_ref());
    let last = find(&request.last_stage).unwrap_or(stages.len().saturating_sub(1));
    find(&request.first_stage).filter(|first| *first <= last).unwrap_or(0)..=last
}

/// The stages of the [range](self::range()).
pub(crate) fn running<'a>(request: &Request, stages: &'a [StageShape]) -> &'a [StageShape] {
    stages.get(range(request, stages)).unwrap_or_default()
}

/// What these stages are called.
pub(crate) fn names(stages: &[StageShape]) -> Vec<String> {
    stages.iter().map(|stage| stage.name.clone()).collect()
}

/// What the sides of a finished picture go by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sides {
    /// What a side has to be a multiple of, so that every stage can draw its part of it.
    pub(crate) unit: f64,
    /// The side that the last stage draws where nothing else is asked.
    pub(crate) own: f64,
}

impl Sides {
    /// Those of the last of these stages.
    pub(crate) fn of(running: &[StageShape]) -> Self {
        let sizes = sizes(running);
        Self { unit: sizes::unit(&sizes).max(1) as f64, own: sizes.last().map_or(1, |last| last.size) as f64 }
    }
}

fn sizes(stages: &[StageShape]) -> Vec<StageSize> {
    stages.iter().map(|stage| stage.size).collect()
}

/// Width and height that the first of these stages draws; `None` where some stage could not draw its part.
pub(crate) fn first_size(request: &Request, running: &[StageShape]) -> Option<(u32, u32)> {
    let sizes = sizes(running);
    let (width, height) = size(request, running);
    let side = |side| sizes::sides(&sizes, side)?.first().copied();
    Some((side(width)?, side(height)?))
}

/// Width and height that are asked of the last of these stages: the request's own. If it has none and edits a picture, they are in its
/// proportions, the shorter side as long as that of the stage, both of them as every stage can draw them.
pub(crate) fn size(request: &Request, running: &[StageShape]) -> (Option<u32>, Option<u32>) {
    let (Some(Edit { picture, .. }), None, None) = (&request.edit, request.width, request.height) else {
        return (request.width, request.height);
    };
    let Sides { unit, own } = Sides::of(running);
    let shorter = f64::from(picture.width().min(picture.height()).max(1));
    let side = |side: u32| Some(((f64::from(side) / shorter * own / unit).round().max(1.0) * unit) as u32);
    (side(picture.width()), side(picture.height()))
}
