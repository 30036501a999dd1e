//! Files that must not change while they are open.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{Error, Result};

/// An open file that notices when it is written to.
///
/// It stays open, so that the answer is about this file even if another one has taken its name.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    file: File,
    stamp: Stamp,
}

/// The properties that change when a file is written to.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: SystemTime,
    /// The device and the number of the file on it.
    #[cfg(unix)]
    inode: (u64, u64),
}

impl Stamp {
    fn of(found: &Metadata) -> std::io::Result<Self> {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Ok(Self {
            length: found.len(),
            modified: found.modified()?,
            #[cfg(unix)]
            inode: (found.dev(), found.ino()),
        })
    }
}

impl Watched {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let opened = File::open(path).and_then(|file| {
            let stamp = Stamp::of(&file.metadata()?)?;
            Ok(Self { path: path.to_owned(), file, stamp })
        });
        opened.map_err(|source| ediffi_core::Error::ReadFile { path: path.to_owned(), source }.into())
    }

    /// Returns an error if the file was written to since it was opened.
    pub(crate) fn check(&self) -> Result<()> {
        self.compare(self.file.metadata())
    }

    /// Returns an error if the file was written to since it was opened, or another file has its name now.
    pub(crate) fn check_name(&self) -> Result<()> {
        self.compare(self.path.metadata())
    }

    fn compare(&self, found: std::io::Result<Metadata>) -> Result<()> {
        let path = self.path.clone();
        match found.and_then(|found| Stamp::of(&found)) {
            Ok(stamp) if stamp == self.stamp => Ok(()),
            Ok(_) => Err(Error::WeightsChanged(path)),
            Err(source) => Err(ediffi_core::Error::ReadFile { path, source }.into()),
        }
    }
}
