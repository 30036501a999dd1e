//! The errors of this crate.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::pair::VERSION;

/// Why there is no libtorch to build with. Each variant names the culprit.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// `LIBTORCH` holds a relative path, but `torch-sys` is built in a folder of its own.
    Relative(PathBuf),
    /// The folder holds no libtorch.
    NotLibtorch(PathBuf),
    /// The folder holds a libtorch without CUDA, where one with CUDA was asked for.
    WithoutCuda(PathBuf),
    /// The folder holds a libtorch of another version.
    Version {
        /// The folder.
        folder: PathBuf,
        /// The version in it.
        found: String,
    },
    /// Programs, or space, that have to be there; one line each, with what to install.
    Missing(Vec<String>),
    /// A file or a folder of the installation cannot be made.
    Io {
        /// What was tried.
        what: &'static str,
        /// The folder of the installation.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program cannot be started.
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended with an error, which it has printed.
    Failed {
        /// What it was to do.
        what: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// pip has ended well, but its folder holds no libtorch of the version.
    Wheel {
        /// The folder of the Python environment.
        folder: PathBuf,
        /// The version found there.
        found: Option<String>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative(folder) => {
                write!(f, "LIBTORCH={}: give an absolute path; `tch` is built in another folder", folder.display())
            }
            Self::NotLibtorch(folder) => {
                write!(f, "LIBTORCH={}: no libtorch there (lib/ has no torch_cpu library)", folder.display())
            }
            Self::WithoutCuda(folder) => {
                write!(f, "LIBTORCH={}: a libtorch without CUDA (lib/ has no torch_cuda library)", folder.display())
            }
            Self::Version { folder, found } => {
                write!(f, "LIBTORCH={}: libtorch {found}, but {VERSION} is needed", folder.display())
            }
            Self::Missing(lines) => f.write_str(&lines.join("\n")),
            Self::Io { what, folder, source } => write!(f, "cannot {what} in {}: {source}", folder.display()),
            Self::Start { program, source } => write!(f, "cannot start {program}: {source}"),
            Self::Failed { what, status } => write!(f, "{what} failed ({status})"),
            Self::Wheel { folder, found: None } => write!(f, "pip has put no torch into {}", folder.display()),
            Self::Wheel { folder, found: Some(found) } => {
                write!(f, "pip has put torch {found} into {}, but {VERSION} is needed", folder.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Start { source, .. } => Some(source),
            _ => None,
        }
    }
}
