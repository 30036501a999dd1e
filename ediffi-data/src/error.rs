//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

use ediffi_core::brief::{brief, told};
use ediffi_encoders::PictureError;

/// What fallible functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate. Each variant names the culprit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the training, or of a data set.
    #[error(transparent)]
    Train {
        /// The error.
        #[from]
        source: ediffi_train::Error,
    },
    /// An error of the numerical core: of a file, or of libtorch.
    #[error(transparent)]
    Core {
        /// The error.
        #[from]
        source: ediffi_core::Error,
    },
    /// A file or folder cannot be read or written.
    #[error("cannot read or write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Data on another machine.
    #[error("{} is not on this machine: download it first, and name its folder or its shards", brief(address))]
    Remote {
        /// The address.
        address: String,
    },
    /// A path at which there are no data of a known layout.
    #[error("{} holds no data that are read: expected a folder of pictures, a folder of .tar shards, or shards as NAME-{{0000..0009}}.tar", path.display())]
    Unknown {
        /// The path.
        path: PathBuf,
    },
    /// A folder with pictures and shards.
    #[error("{} has pictures and .tar shards: which are the data? Move the others away", path.display())]
    Mixed {
        /// The folder.
        path: PathBuf,
    },
    /// A list of shards in braces that cannot be followed.
    #[error("{}: {reason}", brief(list))]
    Braces {
        /// The list.
        list: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Data without a single sample.
    #[error("there are no samples in {}", brief(what))]
    Empty {
        /// The data, or the part of them.
        what: String,
    },
    /// Something in a folder of pictures that cannot be followed.
    #[error("{}: {reason}", path.display())]
    Folder {
        /// The file or the folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A picture of which nothing is said.
    #[error("the picture {} has no caption: expected {expected}", brief(name))]
    NoCaption {
        /// The picture.
        name: String,
        /// Where its caption would be.
        expected: &'static str,
    },
    /// A caption that cannot be read.
    #[error("the caption of {}: {}", brief(name), told(reason))]
    Caption {
        /// The picture, or the file of the caption.
        name: String,
        /// Why.
        reason: String,
    },
    /// Two of what there may be one of: pictures of one name, captions of one picture, or tables.
    #[error("{} and {} are both there: {reason}", brief(first), brief(second))]
    Twice {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// Why there can be one only.
        reason: &'static str,
    },
    /// A table of captions that cannot be read.
    #[error("{}, line {line}: {}", path.display(), told(reason))]
    Table {
        /// The table.
        path: PathBuf,
        /// The line, from 1, in which the row begins; in Parquet the row.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard or a Parquet file that is damaged, or was changed while it was in use.
    #[error("{}: {}", path.display(), told(reason))]
    Shard {
        /// The shard.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture that cannot be read.
    #[error(transparent)]
    Picture {
        /// Why.
        #[from]
        source: PictureError,
    },
    /// Pixels of a data set that are no picture.
    #[error("its pixels are no picture: {reason}")]
    Pixels {
        /// What is wrong with them.
        reason: String,
    },
    /// A sample number that the data do not have.
    #[error("there is no sample {index}: the data have {len}")]
    Number {
        /// The number.
        index: usize,
        /// How many samples there are.
        len: usize,
    },
    /// A setting makes no sense.
    #[error("invalid setting of the data, {field}: {reason}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Many samples in a row cannot be read.
    #[error("{tried} samples in a row cannot be read; the last: {source}")]
    Broken {
        /// How many were tried.
        tried: u64,
        /// Why the last cannot be read.
        source: Box<ediffi_train::Error>,
    },
    /// The threads that decode pictures cannot be started.
    #[error("the threads that decode pictures cannot be started: {source}")]
    Threads {
        /// Why.
        source: rayon::ThreadPoolBuildError,
    },
    /// Kept embeddings that are damaged or incomplete, or rows that do not fit them.
    #[error("{}: {}", path.display(), told(reason))]
    Embeddings {
        /// The file or the folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Kept embeddings of other data or another encoder.
    #[error("{} has embeddings with {fact} {}, not {expected}: remove the folder, or name another", path.display(), brief(found))]
    OtherEmbeddings {
        /// The manifest.
        path: PathBuf,
        /// What differs.
        fact: &'static str,
        /// As it was written.
        found: String,
        /// As it is wanted.
        expected: String,
    },
}

/// What `path` failed with.
pub(crate) fn file_error(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}

/// Fails with the field and what is wrong with it unless `ok`.
pub(crate) fn expect_setting(ok: bool, field: &'static str, reason: impl FnOnce() -> String) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Setting { field, reason: reason() }) }
}

/// Whether a sample cannot be read because the system fails: a disk, a network, a right that is missing. A picture that is broken is passed over,
/// and so is one that is gone; but where the system fails, the next sample may fail as well, and a training would go on with what is left.
#[must_use]
pub fn is_of_the_system(error: &ediffi_train::Error) -> bool {
    let ediffi_train::Error::Sample { source, .. } = error else { return false };
    let failed = source.downcast_ref::<Error>();
    matches!(failed, Some(Error::File { source, .. }) if source.kind() != io::ErrorKind::NotFound)
}

/// Why sample `name` cannot be read, as a data set says it.
pub(crate) fn sample_error(name: String, source: Error) -> ediffi_train::Error {
    ediffi_train::Error::Sample { name, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_fails_and_pictures_are_broken() {
        let sample = |source: Error| is_of_the_system(&sample_error("a.png".to_owned(), source));
        let file = |kind: io::ErrorKind| sample(file_error(Path::new("a.png"))(kind.into()));
        assert!(
            file(io::ErrorKind::PermissionDenied) && file(io::ErrorKind::Other) && file(io::ErrorKind::UnexpectedEof)
        );
        assert!(!file(io::ErrorKind::NotFound));
        assert!(!sample(PictureError::Format.into()));
        // A file that ends too early is broken, whatever its decoder calls that.
        let short = image::ImageError::IoError(io::ErrorKind::UnexpectedEof.into());
        assert!(!sample(PictureError::from(short).into()));
        assert!(!is_of_the_system(&ediffi_train::Error::NoBatches));
    }
}
