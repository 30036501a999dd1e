//! What made a picture besides its request.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;

use ediffi_cascade::SamplerSettings;
use ediffi_core::brief::told_json;
use ediffi_core::files;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::metadata::Metadata;

/// What made a picture besides its request: the model, and how it computed. A PNG file holds it beside the request.
///
/// The same request on the same model with the same provenance gives the same picture, but for the rounding of another machine. What a
/// program sets on [`PipelineBuilder`](crate::PipelineBuilder) besides is not in it: the weights of T5 in eight bits, captions that are
/// not cleaned, a weight function of its own.
///
/// ```no_run
/// use ediffi::{Pipeline, Provenance, Request};
///
/// let pipeline = Pipeline::open("models/icons")?;
/// let (made, request) = (Provenance::from_png("apple.png")?, Request::from_png("apple.png")?);
/// for difference in made.differences(&pipeline.provenance(&request)?) {
///     eprintln!("another picture may come out: {difference}");
/// }
/// # Ok::<(), ediffi::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Provenance {
    /// The precision of the networks: `f32`, `bf16` or `f16`.
    pub precision: String,
    /// The digest of the encoders' weights, and of what the folders of Stable Diffusion say of texts; none where they could not be read, and
    /// the embeddings were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoders: Option<String>,
    /// The stages that ran, by name.
    pub stages: BTreeMap<String, StageProvenance>,
    /// The digest of the enlarger's weights, if one ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enlarger: Option<String>,
}

/// What made a picture in one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageProvenance {
    /// The digest of what the stage is made of: its configuration and the weights of its experts. Of a large matrix it sees 17
    /// places, which is enough to tell one training from another.
    pub digest: String,
    /// How it sampled: the model's own settings with those of the request in their place.
    pub settings: SamplerSettings,
}

/// The digests of an opened model, each found when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    pub(crate) encoders: OnceCell<String>,
    pub(crate) stages: Vec<OnceCell<String>>,
    pub(crate) prior: OnceCell<String>,
    pub(crate) enlarger: OnceCell<String>,
}

impl Digests {
    pub(crate) fn new(stages: usize) -> Self {
        Self { stages: std::iter::repeat_with(OnceCell::new).take(stages).collect(), ..Self::default() }
    }
}

impl Provenance {
    /// What made the picture of a PNG file that [`GeneratedImage::save`](crate::GeneratedImage::save) wrote.
    ///
    /// # Errors
    /// [`Error::ReadFile`](crate::Error::ReadFile), and those of [`Request::from_png`](crate::Request::from_png); one
    /// [without a request](crate::Error::PngWithoutRequest) for a file of an earlier version, which does not say.
    pub fn from_png(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_png_bytes(&files::read_bytes(path.as_ref())?)
    }

    /// As [`from_png`](Self::from_png), of the bytes of a file.
    ///
    /// # Errors
    /// As [`from_png`](Self::from_png).
    pub fn from_png_bytes(bytes: &[u8]) -> Result<Self> {
        let made = Metadata::read(bytes)?.made.ok_or(crate::Error::PngWithoutRequest)?;
        serde_json::from_str(&made).map_err(|error| crate::Error::PngRequest(told_json(error)))
    }

    /// What is different from `here`, one line each; none if the same picture comes out.
    #[must_use]
    pub fn differences(&self, here: &Self) -> Vec<String> {
        let short = |digest: &str| digest.chars().take(12).collect::<String>();
        let digest = |digest: &Option<String>| digest.as_deref().map_or_else(|| "none".to_owned(), short);
        let mut found = Vec::new();
        let mut differ = |what: String, there: String, here: String| {
            if there != here {
                found.push(format!("{what}: {there}, here {here}"));
            }
        };
        differ("precision".to_owned(), self.precision.clone(), here.precision.clone());
        differ("encoders".to_owned(), digest(&self.encoders), digest(&here.encoders));
        differ("enlarger".to_owned(), digest(&self.enlarger), digest(&here.enlarger));
        let names = |made: &Self| made.stages.keys().cloned().collect::<Vec<_>>().join(", ");
        differ("stages".to_owned(), names(self), names(here));
        for (name, made) in &self.stages {
            let Some(own) = here.stages.get(name) else { continue };
            differ(format!("model, stage `{name}`"), short(&made.digest), short(&own.digest));
            // Settings are data; their stored form says every number.
            let text = |settings: &SamplerSettings| serde_json::to_string(settings).unwrap_or_default();
            differ(format!("settings of stage `{name}`"), text(&made.settings), text(&own.settings));
        }
        found
    }
}
