//! What is known of a stage before anything is loaded.

use ediffi_cascade::sizes::StageSize;
use ediffi_cascade::{SamplerSettings, Stage};
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::unet::EmbeddingShapes;

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
        }
    }
}
