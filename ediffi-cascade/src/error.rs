//! The errors of this crate.

use ediffi_core::brief::brief;

use crate::tiling::TilingError;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong between embeddings and a picture. Each variant names the culprit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Something that the core does failed outside of any stage.
    #[error(transparent)]
    Core(ediffi_core::Error),
    /// Something that the core does failed within a stage.
    #[error("stage `{stage}`: {source}", stage = brief(stage))]
    Stage {
        /// Name of the stage.
        stage: String,
        /// What failed.
        source: Box<ediffi_core::Error>,
    },
    /// An expert made a NaN or an infinity, and its file holds none.
    #[error("stage `{stage}`: expert {expert} ({weights}) made a NaN or an infinity at sigma {sigma}", stage = brief(stage))]
    NotFinite {
        /// Name of the stage.
        stage: String,
        /// Index of the expert.
        expert: usize,
        /// Its weights, as the stage's configuration names them.
        weights: String,
        /// The noise level of the evaluation.
        sigma: f64,
    },
    /// An expert made a NaN because its file holds one.
    #[error(
        "stage `{stage}`: tensor {tensor} of expert {expert} ({weights}) holds a NaN or an infinity: the file is damaged or was \
         converted to f16 without care; use the file in f32 or bf16"
    )]
    WeightsNotFinite {
        /// Name of the stage.
        stage: String,
        /// Index of the expert.
        expert: usize,
        /// Its weights, as the stage's configuration names them.
        weights: String,
        /// The first such tensor.
        tensor: String,
    },
    /// A field of a stage's configuration holds something that the core refuses.
    #[error("stage `{stage}`, {field}: {source}", stage = brief(stage))]
    Setting {
        /// Name of the stage.
        stage: String,
        /// The field, as in `experts[1].weights`.
        field: String,
        /// What is wrong with it.
        source: Box<ediffi_core::Error>,
    },
    /// A field of a stage's configuration does not make a stage.
    #[error("stage `{stage}`, {field}: {reason}", stage = brief(stage))]
    StageConfig {
        /// Name of the stage.
        stage: String,
        /// The field, as in `experts[1].network`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A job's inputs do not fit each other or the stage.
    #[error("stage `{stage}` cannot sample, {input}: {reason}", stage = brief(stage))]
    Job {
        /// Name of the stage.
        stage: String,
        /// The field of the job.
        input: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture cannot be tiled as asked.
    #[error("stage `{stage}`: {source}", stage = brief(stage))]
    Tiling {
        /// Name of the stage.
        stage: String,
        /// What is wrong.
        source: TilingError,
    },
    /// A network that was to enlarge finished pictures cannot.
    #[error("enlarger: {0}")]
    Enlarger(String),
    /// Stages that make no cascade.
    #[error("the stages make no cascade: {0}")]
    Cascade(String),
    /// A run of stages that the cascade does not have, or of none.
    #[error("there are no stages {first} to {last}: the cascade has {stages}")]
    NoStages {
        /// The stage to begin with, from 0.
        first: usize,
        /// The stage to end with.
        last: usize,
        /// How many stages there are.
        stages: usize,
    },
    /// Embeddings that no stage of the cascade takes.
    #[error("the {input} has {embedding}, which no stage of the cascade takes")]
    EmbeddingNotTaken {
        /// The field of the job.
        input: &'static str,
        /// The embedding.
        embedding: &'static str,
    },
    /// A run without a plan, or one whose plans are not of one stage after the other.
    #[error("{}", if .0.is_empty() { "there is no plan to run".to_owned() } else { format!("the plans are of stages {:?}: one stage after the other is needed", .0) })]
    PlanOrder(Vec<usize>),
    /// A plan that another cascade made.
    #[error("the plan of stage `{0}` was made by another cascade")]
    ForeignPlan(String),
    /// A picture of a size that some stage cannot make.
    #[error("the cascade cannot make {width}x{height}: width and height have to be positive multiples of {multiple}")]
    ImageSize {
        /// Width in pixels.
        width: i64,
        /// Height in pixels.
        height: i64,
        /// What they have to be multiples of, so that every stage gets whole pixels.
        multiple: i64,
    },
}

impl From<ediffi_core::Error> for Error {
    fn from(source: ediffi_core::Error) -> Self {
        match source {
            ediffi_core::Error::Cancelled => Self::Cancelled,
            source => Self::Core(source),
        }
    }
}

impl Error {
    /// An error of the core within the stage `stage`.
    pub(crate) fn in_stage(stage: &str, source: ediffi_core::Error) -> Self {
        match source {
            ediffi_core::Error::Cancelled => Self::Cancelled,
            source => Self::Stage { stage: stage.to_owned(), source: Box::new(source) },
        }
    }
}
