//! The errors of this crate.

use std::path::PathBuf;

use ediffi_core::brief::{brief, told};

use crate::PictureError;

/// The result of every fallible function of this crate that is not part of a network.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong between a prompt or a picture and its embedding. Each variant names the culprit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read, or a network cannot be built or run.
    #[error(transparent)]
    Core(#[from] ediffi_core::Error),
    /// A tokenizer cannot be read.
    #[error("{} is no tokenizer: {source}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: tokenizers::Error,
    },
    /// A folder without a tokenizer.
    #[error("there is no tokenizer in {}, nor in a folder `tokenizer` beside it: looked for {names}", folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
        /// The files it could have been in.
        names: String,
    },
    /// A SentencePiece model cannot be used.
    #[error("{}: {}", path.display(), told(reason))]
    SentencePiece {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A configuration is one of another architecture.
    #[error("{} describes a model of type `{}`, expected {expected}", path.display(), brief(found))]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The types that can be read.
        expected: &'static str,
        /// The type it names.
        found: String,
    },
    /// A tokenizer belongs to another network.
    #[error("{} does not fit the network beside it: {}", path.display(), told(reason))]
    TokenizerMismatch {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A text cannot be cut into tokens.
    #[error("text {index} of the batch cannot be cut into tokens: {source}")]
    Tokenize {
        /// Which text, from 0.
        index: usize,
        /// Why.
        source: tokenizers::Error,
    },
    /// A number of tokens that the encoder cannot make.
    #[error("a text cannot be cut or filled up to {tokens} tokens: between {least} and {most} are possible")]
    TokenCount {
        /// The number asked for.
        tokens: i64,
        /// The special tokens alone.
        least: i64,
        /// As many as the encoder takes.
        most: i64,
    },
    /// Weights of eight bits on another device than the CPU.
    #[error("T5 with weights of eight bits runs on the CPU alone, not on {0:?}")]
    Int8Device(tch::Device),
    /// Nothing to encode.
    #[error("there are no {0} to encode")]
    EmptyBatch(&'static str),
    /// A picture for a CLIP model without a picture half.
    #[error("the CLIP model in {} has no picture half (its config.json has no vision_config)", .0.display())]
    NoVision(PathBuf),
    /// The preparation of pictures that a file describes cannot be done.
    #[error("{}, {}: {}", path.display(), brief(key), told(reason))]
    Preprocessor {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting of a published file that would change what is computed, and that this library does not follow.
    #[error("{}, {}: {}", path.display(), brief(key), told(reason))]
    Setting {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that is no picture, or one that cannot be read.
    #[error("{} is no picture that can be read: {source}", path.display())]
    PictureFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PictureError,
    },
    /// Weights that were written to after a model was opened from them.
    #[error("{} was written to since it was opened: what the model loaded cannot be told from other weights any more", .0.display())]
    WeightsChanged(PathBuf),
    /// Kept embeddings that another model made.
    #[error("the embeddings in {} were made by {}, not by {wanted}", path.display(), told(made_by))]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// The model that made them.
        made_by: String,
        /// The model they were wanted of.
        wanted: String,
    },
    /// Kept embeddings of another encoding of the same model.
    #[error("the embeddings in {} are {}, not {wanted}", path.display(), brief(kept))]
    OtherEncoding {
        /// The file.
        path: PathBuf,
        /// What they are.
        kept: String,
        /// What they were wanted to be.
        wanted: String,
    },
    /// A file that holds no kept embeddings, or damaged ones.
    #[error("{} holds no embeddings: {}", path.display(), told(reason))]
    CacheFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The hub, or the connection to it, failed.
    #[cfg(feature = "hub")]
    #[error("{repository} on the hub: {source}")]
    Hub {
        /// The repository.
        repository: String,
        /// Why.
        source: Box<hf_hub::HFError>,
    },
    /// A download that is not what the hub describes.
    #[cfg(feature = "hub")]
    #[error("{file} of {repository} on the hub: {reason}")]
    Download {
        /// The repository.
        repository: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A repository without a tokenizer.
    #[cfg(feature = "hub")]
    #[error("{repository} on the hub has no tokenizer: looked for {looked_for}")]
    NoTokenizerOnHub {
        /// The repository.
        repository: String,
        /// The files it could have been in.
        looked_for: String,
    },
    /// A repository without weights in a format that is read.
    #[cfg(feature = "hub")]
    #[error("{repository} on the hub has no {looked_for}, nor an index of its shards")]
    NoSafetensors {
        /// The repository.
        repository: String,
        /// The file that was looked for.
        looked_for: String,
    },
    /// A tensor that is no picture.
    #[error("a picture of shape {shape:?} and kind {kind}: {reason}")]
    Picture {
        /// Its shape.
        shape: Vec<i64>,
        /// Its kind.
        kind: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Bytes that are no picture of the given size.
    #[error("{bytes} bytes are no RGB picture of {width}x{height}")]
    PictureBytes {
        /// How many there are.
        bytes: usize,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
}

impl From<tch::TchError> for Error {
    fn from(source: tch::TchError) -> Self {
        Self::Core(source.into())
    }
}
