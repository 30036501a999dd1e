//! What can be wrong with a request.

/// One thing that is wrong with a request. [`Error::InvalidRequest`](crate::Error::InvalidRequest) holds all of them.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// There is no prompt.
    #[error("the prompt is empty (`Request::unconditional` asks for a picture of nothing in particular)")]
    EmptyPrompt,
    /// An unconditional request has a prompt.
    #[error("the request is unconditional and has the prompt `{0}`")]
    UnconditionalPrompt(String),
    /// An encoder reads fewer tokens than a prompt has.
    #[error("the {which} is too long for {encoder}, which would not read: `{lost}` (`Request::truncate` allows it)")]
    TooLong {
        /// `prompt` or `negative prompt`.
        which: &'static str,
        /// The encoder.
        encoder: &'static str,
        /// The words at the end that it would not read.
        lost: String,
    },
    /// No encoder of the model reads text.
    #[error("the model has no text encoder for the {0}; embeddings from a file can be sampled")]
    NoTextEncoder(&'static str),
    /// No picture, or more than one request may ask for.
    #[error("{0} images were asked for: it has to be 1 to {max}", max = crate::limits::MAX_IMAGES)]
    Images(usize),
    /// The model has no stage of this name.
    #[error("{setting}: there is no stage `{name}`, only {}", stages.join(", "))]
    UnknownStage {
        /// Which setting of the request names it.
        setting: &'static str,
        /// The name.
        name: String,
        /// The stages of the model.
        stages: Vec<String>,
    },
    /// A setting is for a stage that does not run, because an earlier one is the last.
    #[error("stage `{stage}` has settings, but `{last}` is the last stage to run")]
    StageDoesNotRun {
        /// The stage.
        stage: String,
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
        crate::limits::MAX_SIDE,
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
    /// A style for a model whose networks take none, or that has no encoder for it.
    #[error("there is a style, but {0}")]
    Style(&'static str),
    /// The strength of the style is no strength.
    #[error("the strength of the style is {0}: it has to be finite and not negative")]
    StyleStrength(f64),
    /// The references of the style are too many, or none.
    #[error("the style has {0} references: it has to be 1 to {max}", max = crate::limits::MAX_STYLE_REFERENCES)]
    StyleReferences(usize),
    /// The pictures of the style are too large to travel with the request.
    #[error(
        "the style's pictures have {0} pixels together, more than {max}: embeddings of them are \
         small (`Pipeline::encode_style`)",
        max = crate::limits::MAX_STYLE_PIXELS
    )]
    StylePixels(u64),
    /// The weights of the style's references are no weights.
    #[error("the weights of the style's references are {0:?}: they have to be finite, not negative, and not all 0")]
    StyleWeights(Vec<f64>),
    /// A style embedding was made by another CLIP than the model's.
    #[error("a style embedding of {values} values was made by {made_by}, the model's CLIP is {wanted} with {width}")]
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
    /// The canvas cannot be painted.
    #[error("canvas: {0}")]
    Canvas(String),
}

/// The valid sides next to `value`, in words.
fn nearest(value: u32, unit: u64) -> String {
    let unit = unit.max(1);
    let below = u64::from(value.min(crate::limits::MAX_SIDE)) / unit * unit;
    let above = if u64::from(value).is_multiple_of(unit) { below } else { below + unit };
    let valid = |side: u64| (unit..=u64::from(crate::limits::MAX_SIDE)).contains(&side);
    match (valid(below), valid(above) && above != below) {
        (true, true) => format!("the nearest are {below} and {above}"),
        (true, false) => format!("the nearest is {below}"),
        (false, true) => format!("the nearest is {above}"),
        (false, false) => format!("the nearest is {unit}"),
    }
}

/// All problems in one line.
pub(crate) fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
