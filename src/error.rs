//! The errors of this crate.

use std::path::PathBuf;

use ediffi_core::brief::{brief, told};

use crate::Problem;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong between a prompt and a picture. Each variant names the culprit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // --- the run ---
    /// The observer, or the owner of a job, asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The request cannot be run; everything that is wrong with it.
    #[error("the request cannot be run: {}", crate::problem::list(problems))]
    InvalidRequest {
        /// What is wrong, at least one thing.
        problems: Vec<Problem>,
    },
    /// An observer used the pipeline that it was watching, or waited for its own worker.
    #[error("the pipeline is at work: an observer cannot use the pipeline that it watches, nor wait for its worker")]
    Busy,
    /// Something failed in the numerical core, such as an operation of libtorch
    /// ([`Torch`](ediffi_core::Error::Torch)): most likely no memory was left.
    #[error(transparent)]
    Core(ediffi_core::Error),
    /// Something failed in a text or image encoder.
    #[error(transparent)]
    Encoders(ediffi_encoders::Error),
    /// Something failed in a stage.
    #[error(transparent)]
    Cascade(ediffi_cascade::Error),
    /// Something failed in paint-with-words.
    #[error(transparent)]
    Paint(#[from] ediffi_paint::Error),
    // --- the model folder ---
    /// No model was named.
    #[error("no model: EDIFFI_MODEL{0}; set it to a model folder, such as a copy of models/icons of ediffi's checkout")]
    NoModel(String),
    /// A name on the hub, for a program that cannot download.
    #[error("{0}: this program was built without the feature `hub`")]
    WithoutHub(String),
    /// There is no such folder.
    #[error("there is no model folder {}", .0.display())]
    NoFolder(PathBuf),
    /// The folder holds no model.
    #[error("{} is no model folder: it has no pipeline.json, nor the model_index.json of a published one", .0.display())]
    NoManifest(PathBuf),
    /// A JSON file has an unknown key, a missing one, or a value of the wrong type.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Key, line and column.
        source: serde_json::Error,
    },
    /// The manifest is of a format that this version does not know.
    #[error("{}: format is `{}`, this version reads `{expected}`", path.display(), brief(found))]
    Format {
        /// The file.
        path: PathBuf,
        /// The format it names.
        found: String,
        /// The format that can be read.
        expected: &'static str,
    },
    /// A key of the manifest has a value that does not fit.
    #[error("{}, {key}: {}", path.display(), told(reason))]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The key, as `stages[1].name`.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A path of the manifest leads out of the model folder.
    #[error("{}, {key}: {} leads out of the folder", manifest.display(), path.display())]
    PathOutside {
        /// The manifest.
        manifest: PathBuf,
        /// The key that holds the path.
        key: String,
        /// The path.
        path: PathBuf,
    },
    // --- published folders ---
    /// A folder of a published model that cannot be used; the message says what to do.
    #[error("{}: {reason}", folder.display())]
    Published {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Folders that do not make a cascade together.
    #[error("these folders make no cascade: {0}")]
    Compose(String),
    /// An option of the builder was set that does nothing on this model.
    #[error("`{option}` would do nothing: {reason}")]
    IdleOption {
        /// The option, as [`PipelineBuilder`](crate::PipelineBuilder) names it.
        option: &'static str,
        /// Why it would do nothing.
        reason: &'static str,
    },
    // --- files ---
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One of several requests is refused.
    #[error("request {index}")]
    OfMany {
        /// Which, from 0.
        index: usize,
        /// Why.
        source: Box<Self>,
    },
    /// A style image cannot be read.
    #[error("style image: {0}")]
    StyleImage(String),
    /// A picture to edit, or its mask, cannot be read.
    #[error("picture to edit: {0}")]
    EditPicture(String),
    /// A file is no file of a style embedding.
    #[error("{} holds no style: {}", path.display(), told(reason))]
    StyleFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes that are no PNG file, or a damaged one.
    #[error("no readable PNG file")]
    PngDecode(#[source] png::DecodingError),
    /// A picture cannot be written as PNG.
    #[error("the picture cannot be written as PNG")]
    PngEncode(#[source] png::EncodingError),
    /// A request is too long for the text of a PNG file.
    #[error(
        "the request has {0} bytes as JSON, more than the {max} that readers of PNG take: \
         `GeneratedImage::to_png_plain` leaves it out, and embeddings of a style are small (`Pipeline::encode_style`)",
        max = crate::bounds::LONGEST_REQUEST
    )]
    PngRequestTooLong(usize),
    /// A PNG file without a stored request.
    #[error("the PNG file holds no request of ediffi")]
    PngWithoutRequest,
    /// The JSON of a request cannot be understood.
    #[error("the request: {0}")]
    RequestJson(#[source] serde_json::Error),
    /// The request stored in a PNG file cannot be understood.
    #[error("the request in the PNG file: {0}")]
    PngRequest(#[source] serde_json::Error),
    /// An image keeps no float pixels.
    #[error("the image has no float pixels: `PipelineBuilder::keep_floats` keeps them")]
    NoFloats,
    // --- embeddings ---
    /// A file is no file of embeddings.
    #[error("{} holds no embeddings: {}", path.display(), told(reason))]
    EmbeddingsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Embeddings of one text were given for a request of another.
    #[error("the embeddings are of another request: they differ in {0}")]
    EmbeddingsOfAnother(&'static str),
    /// Embeddings that the model's networks cannot take.
    #[error("the {name} embedding has shape {got:?}, the model takes {expected:?}")]
    EmbeddingsShape {
        /// Which embedding.
        name: &'static str,
        /// The shape the networks take.
        expected: Vec<i64>,
        /// The shape given.
        got: Vec<i64>,
    },
    // --- the worker ---
    /// The thread of a worker cannot be started.
    #[error("the thread of the worker cannot be started")]
    WorkerThread(#[source] std::io::Error),
    /// Pipelines that make no worker.
    #[error("the pipelines make no worker: {0}")]
    WorkerPipelines(&'static str),
    /// Pipelines that would draw other pictures of one request.
    #[error("the pipelines make no worker: they differ in their {0}")]
    WorkerPipelinesDiffer(&'static str),
    /// The queue of a worker is full.
    #[error("the queue is full: {0} jobs are waiting")]
    QueueFull(usize),
    /// A job panicked: a mistake in the library or in libtorch.
    #[error("the job panicked: {0}")]
    Panicked(String),
    /// The worker was shut down, or its thread is gone.
    #[error("the worker was shut down, or its thread is gone")]
    WorkerGone,
}

impl Error {
    /// Why the configuration of an encoder cannot be used: as of any other file of the folder.
    pub(crate) fn of_config(error: ediffi_encoders::Error) -> Self {
        match error {
            ediffi_encoders::Error::Core(error) => error.into(),
            other => other.into(),
        }
    }
}

impl From<ediffi_core::Error> for Error {
    fn from(error: ediffi_core::Error) -> Self {
        match error {
            ediffi_core::Error::Cancelled => Self::Cancelled,
            ediffi_core::Error::ReadFile { path, source } => Self::ReadFile { path, source },
            ediffi_core::Error::WriteFile { path, source } => Self::WriteFile { path, source },
            ediffi_core::Error::Json { path, source } => Self::Json { path, source },
            other => Self::Core(other),
        }
    }
}

impl From<ediffi_encoders::Error> for Error {
    fn from(error: ediffi_encoders::Error) -> Self {
        match error {
            ediffi_encoders::Error::Core(ediffi_core::Error::Cancelled) => Self::Cancelled,
            other => Self::Encoders(other),
        }
    }
}

impl From<ediffi_cascade::Error> for Error {
    fn from(error: ediffi_cascade::Error) -> Self {
        match error {
            ediffi_cascade::Error::Cancelled => Self::Cancelled,
            other => Self::Cascade(other),
        }
    }
}

impl From<tch::TchError> for Error {
    fn from(source: tch::TchError) -> Self {
        Self::Core(source.into())
    }
}
