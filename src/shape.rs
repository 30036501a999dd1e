//! What is known of a stage before anything is loaded.

use ediffi_cascade::sizes::StageSize;
use ediffi_cascade::{SamplerSettings, Stage};
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::unet::EmbeddingShapes;

use crate::Request;

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
    /// Whether guidance may move away from a weaker network.
    pub(crate) weaker: bool,
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
            weaker: stage.config().weaker.is_some(),
            latent: stage.autoencoder().is_some(),
        }
    }
}

/// The stages up to the last one that the request names; all, if it names none or one that does not exist.
pub(crate) fn running<'a>(request: &Request, stages: &'a [StageShape]) -> &'a [StageShape] {
    let last = request.last_stage.as_ref().and_then(|last| stages.iter().position(|stage| stage.name == *last));
    last.and_then(|last| stages.get(..=last)).unwrap_or(stages)
}
