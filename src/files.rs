//! Writing files so that nobody ever sees half of one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Writes under a temporary name beside `path`, then renames. The temporary name is this call's alone, so that two
/// threads may write the same file: the last one wins.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".{}-{call}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    // Renamed only once it is on the disk: what loses power leaves the old file or the new one.
    let whole = |mut file: File| file.write_all(bytes).and_then(|()| file.sync_all());
    let written = File::create(&temporary).and_then(whole).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        // The first error is the one worth reporting.
        let _ = fs::remove_file(&temporary);
        Error::WriteFile { path: path.to_owned(), source }
    })
}

/// Reads a text file.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::ReadFile { path: path.to_owned(), source })
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::ReadFile { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        for text in ["one", "two"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(read_text(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        // A folder stands where the file should go.
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write(&path, b"x").unwrap_err();
        assert!(matches!(&error, Error::WriteFile { path: named, .. } if *named == path), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(write(&folder.path().join("no/such/folder"), b"x"), Err(Error::WriteFile { .. })));
        assert!(matches!(read(&folder.path().join("none")), Err(Error::ReadFile { .. })));
    }
}
