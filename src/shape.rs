//! What is known of a stage before anything is loaded, and what a request makes of it.

use ediffi_cascade::{SamplerSettings, Tiling};
use ediffi_core::unet::{ClipText, ContextConfig, Tokens};

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
    pub(crate) needs: Needs,
    /// How it samples unless a request says otherwise.
    pub(crate) settings: SamplerSettings,
}

/// The embeddings that networks take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) t5: Option<Tokens>,
    pub(crate) clip_text: Option<ClipText>,
    pub(crate) clip_image: Option<i64>,
}

impl Needs {
    /// What both take together; the name of the embedding on which they differ.
    pub(crate) fn union(self, other: Self) -> Result<Self, &'static str> {
        Ok(Self {
            t5: either(self.t5, other.t5).ok_or("T5")?,
            clip_text: either(self.clip_text, other.clip_text).ok_or("CLIP text")?,
            clip_image: either(self.clip_image, other.clip_image).ok_or("CLIP image")?,
        })
    }

    /// Whether a text has any effect.
    pub(crate) fn text(&self) -> bool {
        self.t5.is_some() || self.clip_text.is_some()
    }
}

fn either<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<Option<T>> {
    match (a, b) {
        (Some(a), Some(b)) => (a == b).then_some(Some(a)),
        (a, b) => Some(a.or(b)),
    }
}

impl From<Option<ContextConfig>> for Needs {
    fn from(context: Option<ContextConfig>) -> Self {
        context.map_or_else(Self::default, |context| Self {
            t5: context.t5,
            clip_text: context.clip_text,
            clip_image: context.clip_image,
        })
    }
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
