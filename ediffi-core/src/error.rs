//! The errors of this crate.

use std::path::PathBuf;

use crate::brief::told;
use crate::sigma_interval::SigmaInterval;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong in this crate. Each variant names the culprit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // --- the run ---
    /// An operation of libtorch failed: what it said, the backtrace of its C++ side included.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A tensor that has to be finite holds a NaN or an infinity.
    #[error("{0} holds a NaN or an infinity")]
    NotFinite(String),
    /// A denoiser returned a NaN or an infinity at this noise level; `Experts::index_of` tells the expert.
    #[error("the denoised image at sigma {0} holds a NaN or an infinity")]
    DenoisedNotFinite(f64),
    /// A denoiser returned a tensor of another shape than the one it was given.
    #[error("the denoised image at sigma {sigma} has shape {got:?}, expected {expected:?}")]
    DenoisedShape {
        /// The noise level of the evaluation.
        sigma: f64,
        /// The shape of the noisy image.
        expected: Vec<i64>,
        /// The shape that came back.
        got: Vec<i64>,
    },
    // --- noise levels ---
    /// The parameters of a schedule make no schedule.
    #[error("invalid schedule: {0}")]
    InvalidSchedule(String),
    /// One entry of a list of sigmas is out of place.
    #[error("invalid schedule: sigma {sigma:?} at index {index} {reason}")]
    InvalidSigmas {
        /// Position in the list, from 0.
        index: usize,
        /// The entry.
        sigma: f64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A denoiser or an ensemble was asked about a noise level that is not one.
    #[error("sigma {0} is not a noise level: it has to be positive and finite")]
    SigmaOutOfRange(f64),
    /// The two ends enclose no noise level.
    #[error("[{low}, {high}) is no sigma interval: 0 <= low < high has to hold, and low has to be finite")]
    InvalidInterval {
        /// The included end.
        low: f64,
        /// The excluded end.
        high: f64,
    },
    /// A noise distribution, or a node of its binary tree, is ill-formed.
    #[error("invalid noise distribution: {0}")]
    InvalidDistribution(String),
    /// A preconditioning is ill-formed.
    #[error("invalid preconditioning: {0}")]
    InvalidPrecondition(String),
    // --- sampling ---
    /// A guidance setting makes no sense.
    #[error("invalid guidance: {0}")]
    InvalidGuidance(String),
    /// Guidance is to move away from a weaker network, and there is none.
    #[error("guidance is against a weaker network, and there is none")]
    NoWeakerNetwork,
    /// A solver does not exist or has impossible parameters.
    #[error("invalid solver: {0}")]
    InvalidSolver(String),
    /// Noise was asked for in a shape that does not fit its images.
    #[error("invalid noise shape {shape:?}: {reason}")]
    InvalidNoiseShape {
        /// The shape asked for.
        shape: Vec<i64>,
        /// What is wrong with it.
        reason: String,
    },
    // --- experts ---
    /// An ensemble without experts.
    #[error("an ensemble needs at least one expert")]
    NoExperts,
    /// Noise levels between two experts belong to neither.
    #[error("no expert owns the sigmas between {below} and {above}")]
    ExpertHole {
        /// The interval below the hole.
        below: SigmaInterval,
        /// The interval above the hole.
        above: SigmaInterval,
    },
    /// The outermost expert does not reach the end of the range.
    #[error("no expert owns the sigmas {missing} beyond {outermost}")]
    ExpertEdge {
        /// The lowest or highest interval of the ensemble.
        outermost: SigmaInterval,
        /// The noise levels that nobody owns.
        missing: SigmaInterval,
    },
    /// Noise levels belong to two experts.
    #[error("two experts own the same sigmas: {first} and {second} overlap")]
    ExpertOverlap {
        /// The interval that starts lower.
        first: SigmaInterval,
        /// The other one.
        second: SigmaInterval,
    },
    /// What was said of an expert makes no noise levels.
    #[error("`{said}` is no interval of an expert: {}", told(reason))]
    ExpertInterval {
        /// What was said.
        said: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An expert was asked for that the ensemble does not have.
    #[error("there is no expert {index}: the ensemble has {experts}")]
    NoSuchExpert {
        /// The index asked for, from 0.
        index: usize,
        /// How many experts there are.
        experts: usize,
    },
    /// The thread that was loading an expert ahead of its turn panicked.
    #[error("the thread that loaded expert {0} panicked")]
    ExpertThread(usize),
    // --- files and weights ---
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder was replaced by another one while it was in use.
    #[error("{} was replaced since it was opened: open it again", .0.display())]
    FolderReplaced(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A JSON file does not say what it should.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Key and line.
        source: serde_json::Error,
    },
    /// A path in a model folder leads out of it.
    #[error("{} leads out of the folder {}", path.display(), folder.display())]
    PathOutside {
        /// The folder.
        folder: PathBuf,
        /// The path.
        path: PathBuf,
    },
    /// A folder holds weights in a format that can run code when it is read, and no others.
    #[error(
        "{} holds {file} but no {expected}: files of pickled Python can run code when they are read, and are not. {}",
        folder.display(),
        instead_of_pickle(file, expected)
    )]
    WeightsPickled {
        /// The folder.
        folder: PathBuf,
        /// The file found.
        file: String,
        /// The file looked for.
        expected: String,
    },
    /// In the place of a file is what a clone without git-lfs has there.
    #[error("{} is a pointer of git-lfs and not the file: `git lfs pull` fetches it", .0.display())]
    WeightsPointer(PathBuf),
    /// A file is no safetensors file, or is cut short.
    #[error("{} is no complete safetensors file: {source}", path.display())]
    WeightsFormat {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor lies beyond the end of its file.
    #[error("{} is cut short", .0.display())]
    WeightsTruncated(PathBuf),
    /// A tensor is of a dtype that weights do not come in.
    #[error("{}: dtype {dtype} is not one of weights", path.display())]
    WeightsDtype {
        /// The file.
        path: PathBuf,
        /// The dtype.
        dtype: String,
    },
    /// The tensors of a file are not those of the network; all differences at once.
    #[error("{} does not fit the network: {}", path.display(), differences(missing, unexpected, mismatched))]
    Weights {
        /// The file.
        path: PathBuf,
        /// Tensors that the network needs and the file lacks.
        missing: Vec<String>,
        /// Tensors of the file that the network has no place for.
        unexpected: Vec<String>,
        /// Tensors of another shape, or not of floating point.
        mismatched: Vec<ShapeMismatch>,
    },
    /// A file whose names are not those of a layout that is read.
    #[error("{}: {reason}", path.display())]
    WeightsLayout {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A file of LoRA that cannot be merged into the weights it is for.
    #[error("{}: {}", path.display(), told(reason))]
    Lora {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the first names that it is wrong of.
        reason: String,
    },
    // --- networks ---
    /// The dimensions of a network do not fit together.
    #[error("network configuration, {field}: {}", told(reason))]
    NetworkConfig {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture of a size that the network cannot take.
    #[error("the network cannot take {width}x{height}: width and height have to be positive multiples of {multiple}")]
    ImageSize {
        /// Width in pixels.
        width: i64,
        /// Height in pixels.
        height: i64,
        /// What they have to be multiples of.
        multiple: i64,
    },
    /// Pictures or latents of a shape that an autoencoder cannot take.
    #[error("the {what} have shape {got:?}, the autoencoder takes [n, {channels}, height, width]")]
    AutoencoderInput {
        /// What was given: pictures or latents.
        what: &'static str,
        /// The channels that they have to have.
        channels: i64,
        /// The shape given.
        got: Vec<i64>,
    },
    /// An embedding has another shape than the network was configured for.
    #[error("the {name} embedding has shape {got:?}, the network takes {expected:?}")]
    EmbeddingShape {
        /// Which embedding.
        name: &'static str,
        /// The configured shape.
        expected: Vec<i64>,
        /// The shape given.
        got: Vec<i64>,
    },
    /// The network was not made for this embedding.
    #[error("the network takes no {0} embedding")]
    EmbeddingNotTaken(&'static str),
    /// The network cannot do without this embedding.
    #[error("the network needs the {0} embedding")]
    EmbeddingNeeded(&'static str),
    /// A smaller picture that a base network does not take, or that a super-resolution network was not given.
    #[error("{}", if *.given { "a base network takes no smaller picture" } else { "a super-resolution network needs the smaller picture" })]
    LowRes {
        /// Whether there is one.
        given: bool,
    },
    /// A context that another network made.
    #[error("the context was made by another network")]
    ForeignContext,
    /// A fault of this library: something that its own code rules out.
    #[error("internal error: {0}; please report it")]
    Internal(&'static str),
    /// The hook that biases scores failed.
    #[error("the score bias failed: {0}")]
    ScoreBias(#[source] Box<dyn std::error::Error + Send + Sync>),
    // --- devices ---
    /// The device asked for cannot be used.
    #[error("device {device} cannot be used: {reason}")]
    Device {
        /// The device.
        device: String,
        /// What was looked for and not found.
        reason: String,
    },
}

/// A tensor whose stored shape is not the network's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Name of the tensor.
    pub name: String,
    /// Shape that the network asks for.
    pub expected: Vec<i64>,
    /// Shape in the file.
    pub found: Vec<i64>,
    /// Dtype in the file.
    pub dtype: String,
}

/// The three lists in words, each cut after a few names.
fn differences(missing: &[String], unexpected: &[String], mismatched: &[ShapeMismatch]) -> String {
    const SHOWN: usize = 8;
    let list = |what: &str, names: Vec<String>| {
        let rest = names.len().saturating_sub(SHOWN);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        (!names.is_empty()).then(|| {
            format!("{what} {}{more}", names.iter().take(SHOWN).map(|name| told(name)).collect::<Vec<_>>().join(", "))
        })
    };
    let shapes = mismatched
        .iter()
        .map(|m| format!("{} is {:?} {} instead of {:?}", m.name, m.found, m.dtype, m.expected))
        .collect();
    [list("missing", missing.to_vec()), list("unexpected", unexpected.to_vec()), list("mismatched", shapes)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}

/// What to do with a `file` of pickled Python. A shard is not the whole model, and a name that is more than letters, digits
/// and `._-` is not put into a line of Python to paste. The clones are there for tensors that share memory, such as T5's
/// table of words, which safetensors does not write.
fn instead_of_pickle(file: &str, expected: &str) -> String {
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if file.contains("-of-") || !plain(file) || !plain(expected) {
        return "Take the safetensors files of the repository that the model comes from".to_owned();
    }
    format!(
        "The model's safetensors files are beside them on its page; or convert this one, in Python: `import torch; from \
         safetensors.torch import save_file; save_file({{k: v.contiguous().clone() for k, v in torch.load('{file}', \
         weights_only=True).items()}}, '{expected}')`"
    )
}

/// What libtorch complains about, without the C++ backtrace that follows it.
fn first_line(source: &tch::TchError) -> String {
    let text = source.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("Internal torch error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn an_error_of_libtorch_is_one_line_and_keeps_its_source() {
        let x = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        let error = Error::from(x.f_matmul(&x).unwrap_err());
        assert!(error.to_string().starts_with("libtorch: mat1 and mat2 shapes cannot be multiplied"), "{error}");
        assert_eq!(error.to_string().lines().count(), 1);
        assert!(std::error::Error::source(&error).is_some());
    }
}
