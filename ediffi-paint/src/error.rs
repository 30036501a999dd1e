//! The error type of the crate.

use ediffi_core::brief::brief;

use crate::{MAX_LAYOUT, MAX_REGIONS, MAX_SIDE, MAX_WEIGHT};

/// The result of this crate's fallible operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can fail between a painted picture and a score bias.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A canvas has no region.
    #[error("the canvas has no region")]
    EmptyCanvas,
    /// A canvas has more than [`MAX_REGIONS`] regions.
    #[error("the canvas has {0} regions, at most {MAX_REGIONS} are allowed")]
    TooManyRegions(usize),
    /// A region has a phrase without a visible character.
    #[error("region {0} has an empty phrase")]
    EmptyPhrase(usize),
    /// A side of a mask is 0 or above [`MAX_SIDE`].
    #[error("the mask of phrase `{phrase}` is {width}x{height}, each side must be 1 to {MAX_SIDE}", phrase = brief(phrase))]
    MaskSides {
        /// The phrase the mask belongs to.
        phrase: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The masks of a canvas differ in size.
    #[error("the mask of phrase `{phrase}` is {width}x{height}, but the canvas is {canvas_width}x{canvas_height}", phrase = brief(phrase))]
    MaskSize {
        /// The phrase the mask belongs to.
        phrase: String,
        /// Width of the mask in pixels.
        width: u32,
        /// Height of the mask in pixels.
        height: u32,
        /// Width of the canvas, which is that of its first mask.
        canvas_width: u32,
        /// Height of the canvas.
        canvas_height: u32,
    },
    /// A mask is zero everywhere.
    #[error("nothing is painted for phrase `{}`: its mask is zero everywhere", brief(.0))]
    EmptyMask(String),
    /// A shape has no area: too few points, or a size or coordinate that is not usable.
    #[error("the shape of phrase `{phrase}` is none: {reason}", phrase = brief(phrase))]
    Shape {
        /// The phrase the shape belongs to.
        phrase: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A stored mask holds a run that is not `level` or `level*count`.
    #[error("the stored mask of phrase `{phrase}` holds `{run}`, which is not `level` or `level*count`", phrase = brief(phrase))]
    MaskRun {
        /// The phrase the mask belongs to.
        phrase: String,
        /// The run that could not be read.
        run: String,
    },
    /// A stored mask does not hold one level for each pixel.
    #[error("the stored mask of phrase `{phrase}` holds {pixels} pixels, but the canvas has {expected}", phrase = brief(phrase))]
    MaskLength {
        /// The phrase the mask belongs to.
        phrase: String,
        /// Pixels in the stored mask. Reading stops when there are too many.
        pixels: u64,
        /// Width times height.
        expected: u64,
    },
    /// The weight of a region is not from 0 to [`MAX_WEIGHT`].
    #[error("the weight of phrase `{phrase}` is {weight:?}, it must be a number from 0 to {MAX_WEIGHT}", phrase = brief(phrase))]
    Weight {
        /// The phrase.
        phrase: String,
        /// The weight given.
        weight: f64,
    },
    /// The strength of a canvas is not from 0 to [`MAX_WEIGHT`].
    #[error("the paint weight is {0:?}, it must be a number from 0 to {MAX_WEIGHT}")]
    StrengthWeight(f64),
    /// The scale of layout guidance is not from 0 to [`MAX_LAYOUT`].
    #[error("the scale of layout guidance is {0:?}, it must be a number from 0 to {MAX_LAYOUT}")]
    LayoutScale(f64),
    /// A window is empty or does not lie inside the picture.
    #[error(
        "the window spans {top} to {bottom} down and {left} to {right} across; it must lie within 0 to 1 and not be empty"
    )]
    Window {
        /// Upper edge as a fraction of the canvas height.
        top: f64,
        /// Lower edge.
        bottom: f64,
        /// Left edge as a fraction of the canvas width.
        left: f64,
        /// Right edge.
        right: f64,
    },
    /// A mask or its target has no pixel.
    #[error("a mask cannot be scaled to {height}x{width}")]
    TargetSize {
        /// Rows asked for.
        height: usize,
        /// Columns asked for.
        width: usize,
    },
    /// Two entries of a palette have the same colour.
    #[error("phrases `{first}` and `{second}` have the same colour {}", hex(*colour), first = brief(first), second = brief(second))]
    DuplicateColour {
        /// Red, green and blue.
        colour: [u8; 3],
        /// The phrase of the earlier entry.
        first: String,
        /// The phrase of the later entry.
        second: String,
    },
    /// The picture lacks a colour of the palette.
    #[error("the colour {} of phrase `{phrase}` is nowhere in the picture", hex(*colour), phrase = brief(phrase))]
    ColourNotPainted {
        /// The phrase.
        phrase: String,
        /// Red, green and blue.
        colour: [u8; 3],
    },
    /// A painted phrase is not in the prompt, as whole words.
    #[error("phrase `{}` is not in the prompt{}, whose words are: {}", brief(phrase), meant(nearest.as_deref()), list(words, *more))]
    PhraseNotFound {
        /// The phrase.
        phrase: String,
        /// The words of the prompt that are spelt most like it.
        nearest: Option<String>,
        /// The first words of the prompt, in order.
        words: Vec<String>,
        /// How many words follow.
        more: usize,
    },
    /// A region asks for an occurrence of its phrase that the prompt does not have.
    #[error(
        "occurrence {occurrence} of phrase `{phrase}` was asked for, but the prompt holds {found} (counted from 1)", phrase = brief(phrase))]
    OccurrenceNotFound {
        /// The phrase.
        phrase: String,
        /// The occurrence asked for, counted from 1.
        occurrence: usize,
        /// How often the phrase is in the prompt.
        found: usize,
    },
    /// The characters that a region paints are not in the prompt, or are only spaces.
    #[error("phrase `{phrase}` is to be characters {start}..{end} of a prompt of {characters}: there is no word", phrase = brief(phrase))]
    SpanOutside {
        /// The name of the region.
        phrase: String,
        /// The first character, from 0.
        start: usize,
        /// One past the last character.
        end: usize,
        /// Characters in the prompt.
        characters: usize,
    },
    /// A painted phrase is in the prompt, but no encoder has a token for it, because the prompt is too long.
    #[error("phrase `{}` lies in a part of the prompt that no encoder reads; move it nearer to the start", brief(.0))]
    PhraseCutOff(String),
    /// The offsets of a token leave its text. They may count bytes instead of characters.
    #[error("token {index} of encoder `{encoder}` covers characters {start}..{end} of a text of {characters}")]
    TokenOffsets {
        /// The encoder.
        encoder: String,
        /// Position of the token.
        index: usize,
        /// The first character.
        start: usize,
        /// One past the last character.
        end: usize,
        /// Characters in the text.
        characters: usize,
    },
    /// The scores of an attention layer do not fit the tokens of the painter.
    #[error(
        "attention scores have shape {shape:?}, expected [rows, heads, {height} * {width}, {columns}]: \
         were the painter's encoders the network's, in the same order and length?"
    )]
    Scores {
        /// Shape of the scores.
        shape: Vec<i64>,
        /// Rows of the feature map.
        height: i64,
        /// Columns of the feature map.
        width: i64,
        /// Text tokens of all encoders together.
        columns: i64,
    },
    /// libtorch refused an operation.
    #[error("a tensor operation of the score bias failed")]
    Torch(#[from] tch::TchError),
}

impl From<Error> for ediffi_core::Error {
    /// The error of a network whose score bias failed.
    fn from(error: Error) -> Self {
        match error {
            Error::Torch(source) => Self::Torch(source),
            other => Self::ScoreBias(Box::new(other)),
        }
    }
}

/// The hint for a misspelt phrase.
fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(" (did you mean `{nearest}`?)"))
}

/// The words of a prompt, of which there may be more.
fn list(words: &[String], more: usize) -> String {
    let more = (more > 0).then(|| format!("and {more} more"));
    let words = words.iter().map(|word| brief(word).into_owned());
    words.chain(more).collect::<Vec<_>>().join(", ")
}

/// A colour as `#rrggbb`.
fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}
