//! The error of a published folder.

use std::path::Path;

use crate::Error;

/// A published folder that cannot be used.
pub(crate) fn unusable(folder: &Path, reason: impl Into<String>) -> Error {
    Error::Published { folder: folder.to_owned(), reason: reason.into() }
}
