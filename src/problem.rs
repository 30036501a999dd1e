//! What can be wrong with a request.

use ediffi_core::brief::{brief, told};

/// One thing that is wrong with a request. [`Error::InvalidRequest`](crate::Error::InvalidRequest) holds all of them.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// More than the pipeline's [`Limits`](crate::Limits) allow.
    #[error("{field}: {value}, the limit is {limit} (`Limits::{name}`)")]
    Limit {
        /// The field of the request.
        field: String,
        /// What it asks for.
        value: u64,
        /// The most that it may ask for.
        limit: u64,
        /// The field of the limits.
        name: &'static str,
    },
    /// There is no prompt, or nothing is left of it after captions are cleaned.
    #[error(
        "the prompt is empty, or nothing is left of it after it is cleaned (`Request::unconditional` asks for a picture of nothing in particular)"
    )]
    EmptyPrompt,
    /// An unconditional request has a prompt.
    #[error("the request is unconditional and has the prompt `{}`", brief(.0))]
    UnconditionalPrompt(String),
    /// An encoder reads fewer tokens than a prompt has.
    #[error(
        "the {which} is too long for {encoder}, which would not read: `{}` (`Request::truncate` allows it)",
        brief(lost)
    )]
    TooLong {
        /// `prompt`, `negative prompt` or `further prompt`: one that is mixed in, or a stage's.
        which: &'static str,
        /// The encoder.
        encoder: &'static str,
        /// The words at the end that it would not read.
        lost: String,
    },
    /// No encoder of the model reads text.
    #[error("the model has no text encoder for the {0}; embeddings from a file can be sampled")]
    NoTextEncoder(&'static str),
    /// No picture was asked for.
    #[error("no images were asked for: it has to be 1 at least")]
    NoImages,
    /// The model has no stage of this name.
    #[error("{setting}: there is no stage `{}`, only {}", brief(name), stages.join(", "))]
    UnknownStage {
        /// Which setting of the request names it.
        setting: &'static str,
        /// The name.
        name: String,
        /// The stages of the model.
        stages: Vec<String>,
    },
    /// The model has no preset of this name.
    #[error("there is no preset `{}`: {}", brief(name), only(presets))]
    UnknownPreset {
        /// The name.
        name: String,
        /// The presets of the model.
        presets: Vec<String>,
    },
    /// The first stage comes after the last one.
    #[error("`{}` is the first stage to run, but comes after `{}`, the last", brief(first), brief(last))]
    StageOrder {
        /// The first stage.
        first: String,
        /// The last stage.
        last: String,
    },
    /// A setting is for a stage that does not run, because an earlier one is the last.
    #[error("stage `{stage}` has settings, but does not run: `{first}` is the first stage to run, `{last}` the last")]
    StageDoesNotRun {
        /// The stage.
        stage: String,
        /// The first stage that runs.
        first: String,
        /// The last stage that runs.
        last: String,
    },
    /// A stage cannot sample with this setting.
    #[error("stage `{stage}`, {setting}: {reason}")]
    Setting {
        /// The stage.
        stage: String,
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A side of the picture, carried over to a stage, is none that its network can take.
    #[error(
        "{side} {value}: stage `{stage}` would draw {stage_side} pixels and takes multiples of {multiple}; the {side} \
         has to be a multiple of {unit}, from {unit} to {}: {}",
        crate::bounds::MAX_SIDE,
        nearest(*value, *unit)
    )]
    Size {
        /// `width` or `height`.
        side: &'static str,
        /// Pixels asked for.
        value: u32,
        /// The first stage that cannot take it.
        stage: String,
        /// How many pixels the stage would have to draw; it need not be a whole number.
        stage_side: f64,
        /// What the stage's side has to be a multiple of.
        multiple: u64,
        /// What the side of the picture has to be a multiple of, so that every stage can take it.
        unit: u64,
    },
    /// A negative prompt, and a stage that moves away from its weaker network in its place.
    #[error("there is a negative prompt, but stage `{0}` is guided against its weaker network, and makes no use of it")]
    NegativePromptUnused(String),
    /// Another prompt cannot be mixed in.
    #[error("mix: {0}")]
    Mix(String),
    /// A stage cannot be told a prompt of its own.
    #[error("stage `{stage}` has a prompt of its own, but {reason}")]
    StagePrompt {
        /// The stage.
        stage: String,
        /// Why it cannot.
        reason: &'static str,
    },
    /// The strength of variations of another seed's picture is none.
    #[error("near: the strength is {0:?}: it has to be from 0 to 1")]
    Near(f64),
    /// Micro-conditioning for a model whose networks are told none, or with a score that no network is told or that is none.
    #[error("there is a `micro`, but {0}")]
    Micro(&'static str),
    /// A style for a model whose networks take none, or that has no encoder for it.
    #[error("there is a style, but {0}")]
    Style(&'static str),
    /// The model draws variations of pictures, and the request has none.
    #[error("the model draws variations of a picture, and the request has none: it is the style (`Request::style`)")]
    NoPicture,
    /// The strength of the style is no strength.
    #[error("the strength of the style is {0:?}: it has to be from 0 to {max}", max = crate::bounds::MAX_STRENGTH)]
    StyleStrength(f64),
    /// The style has no reference.
    #[error("the style has no references: it needs one at least")]
    NoStyleReferences,
    /// The weights of the style's references are no weights.
    #[error("the weights of the style's references are {0:?}: they have to be finite, not negative, and not all 0")]
    StyleWeights(Vec<f64>),
    /// A style embedding was made by another CLIP than the model's.
    #[error(
        "a style embedding of {values} values was made by {}, the model's CLIP is {wanted} with {width}",
        brief(made_by)
    )]
    StyleOfAnother {
        /// Numbers in the embedding.
        values: usize,
        /// Name and fingerprint of the CLIP that made it.
        made_by: String,
        /// Those of the model's CLIP.
        wanted: String,
        /// Numbers of an embedding of the model's CLIP.
        width: i64,
    },
    /// The picture that is to be edited does not fit.
    #[error("edit: {0}")]
    Edit(String),
    /// The canvas cannot be painted.
    #[error("canvas: {0}")]
    Canvas(String),
}

/// The names that there are, in words.
fn only(names: &[String]) -> String {
    if names.is_empty() { "the model has none".to_owned() } else { format!("only {}", told(&names.join(", "))) }
}

/// The valid sides next to `value`, in words.
fn nearest(value: u32, unit: u64) -> String {
    let unit = unit.max(1);
    let below = u64::from(value.min(crate::bounds::MAX_SIDE)) / unit * unit;
    let above = if u64::from(value).is_multiple_of(unit) { below } else { below + unit };
    let valid = |side: u64| (unit..=u64::from(crate::bounds::MAX_SIDE)).contains(&side);
    match (valid(below), valid(above) && above != below) {
        (true, true) => format!("the nearest are {below} and {above}"),
        (true, false) => format!("the nearest is {below}"),
        (false, true) => format!("the nearest is {above}"),
        (false, false) => format!("the nearest is {unit}"),
    }
}

/// How many problems a message tells of.
const LISTED: usize = 16;

/// All problems in one line; of very many the first.
pub(crate) fn list(problems: &[Problem]) -> String {
    let more = problems.len().saturating_sub(LISTED);
    let more = (more > 0).then(|| format!("and {more} more"));
    problems.iter().take(LISTED).map(ToString::to_string).chain(more).collect::<Vec<_>>().join("; ")
}
