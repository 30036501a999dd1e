//! Reading parts of files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::file_error;

/// How long a file is and when it was written to: another file has another, or its time is set by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stamp {
    /// Bytes.
    pub(crate) length: u64,
    /// Seconds and nanoseconds since 1970; zeros where the file system does not know.
    pub(crate) modified: (u64, u32),
}

impl Stamp {
    /// That of an open file.
    pub(crate) fn of(file: &File) -> std::io::Result<Self> {
        let found = file.metadata()?;
        let since = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Ok(Self { length: found.len(), modified: (since.as_secs(), since.subsec_nanos()) })
    }
}

/// The name of a file, wherever it lies.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The first `most` bytes of a file.
pub(crate) fn beginning(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map_err(file_error(path))?;
    Ok(bytes)
}

/// `length` bytes of an open file, from `offset` on. The length is known to be that of a part of the file.
pub(crate) fn part(mut file: &File, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
