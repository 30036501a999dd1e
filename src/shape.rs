//! What is known of a stage before anything is loaded, and what a request makes of it.

use ediffi_cascade::{SamplerSettings, Tiling};
use ediffi_core::unet::EmbeddingShapes;

use crate::request::StageSettings;

/// What a request is checked against.
#[derive(Debug, Clone)]
pub(crate) struct StageShape {
    pub(crate) name: String,
    /// Side of the square pictures it was trained for.
    pub(crate) size: u64,
    /// What sides have to be multiples of.
    pub(crate) multiple: u64,
    /// The embeddings its networks take.
    pub(crate) needs: EmbeddingShapes,
    /// How it samples unless a request says otherwise.
    pub(crate) settings: SamplerSettings,
}

impl StageShape {
    /// The stage's own settings with those of a request in their place.
    pub(crate) fn with(&self, wishes: Option<&StageSettings>) -> (SamplerSettings, Option<Tiling>) {
        let mut settings = self.settings.clone();
        let Some(wishes) = wishes else { return (settings, None) };
        if let Some(schedule) = &wishes.schedule {
            // Some schedules say themselves how many steps they have.
            settings.steps = schedule.own_steps().unwrap_or(settings.steps);
            settings.schedule = schedule.clone();
        }
        settings.steps = wishes.steps.unwrap_or(settings.steps);
        settings.solver = wishes.solver.unwrap_or(settings.solver);
        if let Some(guidance) = &wishes.guidance {
            settings.guidance = guidance.clone();
        }
        settings.guidance.scale = wishes.guidance_scale.unwrap_or(settings.guidance.scale);
        (settings, wishes.tiling)
    }
}
